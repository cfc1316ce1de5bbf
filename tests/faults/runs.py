"""Faults that strike a run: its process is killed at any instant of any stage, the disk fills up, files rot, the
database or Ollama is away, the clock jumps, two attempts meet. It ends with the verdict of a run that was left alone,
or it fails, says so, and changes no answer.

Disks that fill up are small tmpfs mounts: without the right to mount one the cell says so and is not played.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from storage import outbox
from storage.records import Run, RunState
from tests.fakes import ollama as fakes
from tests.fakes.ollama import FakeOllama
from tests.faults import invariants
from tests.faults.attempts import begun
from tests.faults.disks import mounted
from tests.faults.forks import soon
from tests.faults.grounds import ended
from tests.faults.matrix import Came, Cell
from tests.trainer.world import World
from trainer import HANDED_BACK
from trainer.checkpoints import MARK
from trainer.child import DONE

AWAY_SECONDS = 1.2
DISK = "192m"
TRIES = 4


def killed(cell: Cell, stage: str, rounds: int) -> Came:
    """Again and again while that stage is at work, or whatever comes after it where it was quicker."""
    with cell.grounds.opened(stage, cell.folder) as (world, run):
        kills = 0
        for _ in range(rounds):
            attempt = begun(world, run)
            time.sleep(cell.rng.uniform(0, cell.grounds.seconds[stage]))
            if not attempt.killed():
                break
            kills, run = kills + 1, world.hand_on(run)
        return judged(cell, world, finished(world, run), kills=kills, strikes=rounds)


def disk_full(cell: Cell, stage: str) -> Came:
    """The run's disk fills up while that stage is at work. With room again the next run ends as one left alone."""
    with mounted(cell.folder / "home", DISK) as disk, cell.grounds.opened(stage, cell.folder) as (world, run):
        attempt = begun(world, run)
        time.sleep(cell.rng.uniform(0, cell.grounds.seconds[stage]))
        disk.fill(leave_bytes=1024 * cell.rng.choice((0, 4, 32, 256, 1024)))
        attempt.wait()
        came = judged(cell, world, finished(world, run))
        disk.clear()
        if world.state(run).state is RunState.FAILED:
            world.queue()
            following = judged(cell, world, finished(world, world.claim()))
            return Came(f"{came.how}; the next one {following.how}", [*came.broken, *following.broken])
        return came


def database_away(cell: Cell, stage: str) -> Came:
    with cell.grounds.opened(stage, cell.folder) as (world, run):
        attempt = begun(world, run)
        time.sleep(cell.rng.uniform(0, cell.grounds.seconds[stage]))
        with gone(world):
            time.sleep(cell.rng.uniform(0.1, AWAY_SECONDS))
        if attempt.wait() == HANDED_BACK:
            run = world.hand_on(run)
        return judged(cell, world, finished(world, run))


class gone:  # noqa: N801 - read as a phrase: with gone(world)
    """The table of runs is not to be had, as little as in a database that restarts."""

    def __init__(self, world: World) -> None:
        self.db = world.db

    def __enter__(self) -> None:
        self.db.write(lambda session: session.exec_driver_sql("ALTER TABLE run RENAME TO gone"))

    def __exit__(self, *_: object) -> None:
        self.db.write(lambda session: session.exec_driver_sql("ALTER TABLE gone RENAME TO run"))


def clock_jumps(cell: Cell, stage: str, hours: float) -> Came:
    """The attempt's machine goes by another time than that which handed it the run."""
    with cell.grounds.opened(stage, cell.folder) as (world, run):
        begun(world, run, ahead=timedelta(hours=hours)).wait()
        return judged(cell, world, finished(world, run))


def ollama_fails(cell: Cell, how: str) -> Came:
    with cell.grounds.opened("release", cell.folder) as (world, run):
        mended = OLLAMA[how](world.ollama, cell.rng)
        attempt = begun(world, run)
        attempt.wait()
        mended()
        return judged(cell, world, finished(world, run))


def nothing() -> None:
    """There is nothing to mend."""


def goes_for_a_moment(ollama: FakeOllama, rng: random.Random) -> Callable[[], None]:
    ollama.stop()
    back = threading.Timer(rng.uniform(0.2, 1.0), ollama.start)
    back.start()
    return back.join


def goes_for_good(ollama: FakeOllama, _rng: random.Random) -> Callable[[], None]:
    ollama.stop()
    return ollama.start


def goes_meanwhile(ollama: FakeOllama, rng: random.Random) -> Callable[[], None]:
    def restart() -> None:
        ollama.stop()
        ollama.start()

    meanwhile = threading.Timer(rng.uniform(0.5, 2.5), restart)
    meanwhile.start()
    return meanwhile.join


def is_slow(ollama: FakeOllama, rng: random.Random) -> Callable[[], None]:
    ollama.load_seconds = rng.uniform(0.5, 2.0)
    return nothing


def errs(path: str, status: int, error: str, times: int) -> Callable[[FakeOllama, random.Random], Callable[[], None]]:
    def put(ollama: FakeOllama, _rng: random.Random) -> Callable[[], None]:
        ollama.inject(path, status, error, times=times)
        return nothing

    return put


def dies_while_it_answers(ollama: FakeOllama, rng: random.Random) -> Callable[[], None]:
    for _ in range(rng.randint(1, 2)):
        ollama.reply(tokens=["你", "好", "吗"], dies_after=rng.randint(0, 2))
    return nothing


def drops_while_it_answers(ollama: FakeOllama, rng: random.Random) -> Callable[[], None]:
    ollama.reply(tokens=["你", "好", "吗"], drops_after=rng.randint(0, 2))
    return nothing


def babbles(path: str, times: int) -> Callable[[FakeOllama, random.Random], Callable[[], None]]:
    def put(ollama: FakeOllama, rng: random.Random) -> Callable[[], None]:
        ollama.babble(path, rng.choice(fakes.GARBAGE), times=times)
        return nothing

    return put


OLLAMA: dict[str, Callable[[FakeOllama, random.Random], Callable[[], None]]] = {
    "gone for a moment": goes_for_a_moment,
    "gone for good": goes_for_good,
    "gone meanwhile": goes_meanwhile,
    "slow": is_slow,
    "out of memory for a moment": errs("/api/generate", *fakes.OUT_OF_MEMORY, times=2),
    "out of memory for good": errs("/api/generate", *fakes.OUT_OF_MEMORY, times=99),
    "its disk full": errs("/api/create", *fakes.DISK_FULL_LINE, times=99),
    "busy": errs("/api/generate", *fakes.BUSY, times=2),
    "runner stopped": errs("/api/generate", *fakes.RUNNER_STOPPED, times=1),
    "garbage at create": babbles("/api/create", 1),
    "garbage at warm": babbles("/api/generate", 1),
    "garbage at chat": babbles("/api/chat", 1),
    "garbage for good": babbles("/api/chat", 99),
    "dying mid-stream": dies_while_it_answers,
    "dropping mid-stream": drops_while_it_answers,
}


def file_rots(cell: Cell, stage: str, pattern: str, how: str) -> Came:
    """A file that an earlier process left is not what it was."""
    with cell.grounds.opened(stage, cell.folder) as (world, run):
        kills = 0
        if "checkpoint" in pattern:
            attempt = begun(world, run)
            assert soon(lambda: attempt.poll() is not None or len([*world.home.rglob(MARK)]) > 1)
            kills = attempt.killed()
            run = world.hand_on(run)
        found = sorted(world.home.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
        assert found, (pattern, sorted(world.home.rglob("*")))
        ROT[how](found[-1], cell.rng)
        return judged(cell, world, finished(world, run), kills=kills)


def truncated(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(rng.randrange(path.stat().st_size))


def flipped(path: Path, rng: random.Random) -> None:
    """One bit of the last two thirds: data, not a header."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(at := rng.randrange(size // 3, size))
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))


def zeroed(path: Path, _rng: random.Random) -> None:
    """As after a power cut: the length is there, what was in it is not."""
    path.write_bytes(bytes(path.stat().st_size))


def lost(path: Path, _rng: random.Random) -> None:
    path.unlink()


ROT: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncated, "flipped": flipped, "zeroed": zeroed, "lost": lost,
}  # fmt: skip


def two_of_one_attempt(cell: Cell, stage: str) -> Came:
    with cell.grounds.opened(stage, cell.folder) as (world, run):
        ends = [attempt.wait() for attempt in [begun(world, run) for _ in range(2)]]
        broken = [] if min(ends) == DONE else [f"two ended with {ends}"]
        came = judged(cell, world, finished(world, run))
        return Came(came.how, broken + came.broken)


def zombie(cell: Cell, stage: str) -> Came:
    """The run was handed on while its worker, thought lost, was still at work."""
    with cell.grounds.opened(stage, cell.folder) as (world, run):
        first = begun(world, run)
        time.sleep(cell.rng.uniform(0, cell.grounds.seconds[stage]))
        if world.state(run).state is RunState.RUNNING:
            run = world.hand_on(run)
        second = begun(world, run)
        first.wait(), second.wait()
        return judged(cell, world, finished(world, run))


def finished(world: World, run: Run) -> Run:
    """Handed on, as a supervisor would, while it is not over."""
    for _ in range(TRIES):
        if world.state(run).state is not RunState.RUNNING:
            break
        if begun(world, run).wait() not in (DONE, 1):
            run = world.hand_on(run)
    return world.state(run)


def judged(cell: Cell, world: World, run: Run, kills: int = 0, strikes: int = 1) -> Came:
    broken = [
        *invariants.runs_come_to_an_end(world.db),
        *invariants.runs_move_as_runs_do(world.db),
        *invariants.one_release_is_live(world.db, world.ollama.tags),
        *invariants.what_is_served_is_what_was_judged(world.db, blobs_of(world.ollama)),
        *invariants.nothing_half_written_is_left(world.home),
    ]
    if run.state is RunState.RELEASED:
        broken += invariants.the_verdict_is_the_undisturbed_one_s(ended(world, run), cell.grounds.alone)
        return Came("as if nothing had been", broken, kills, strikes)
    code = str((run.error or {}).get("code", run.state))
    broken += invariants.a_failure_is_told(run, [each.code for each in world.db.read(outbox.unsent)])
    broken += [] if world.tag() == "base:1" else ["a run that failed changed what answers"]
    return Came(f"failed and told: {code}", broken, kills, strikes)


def blobs_of(ollama: FakeOllama) -> dict[str, str]:
    """The digest of what is really served, by tag."""
    return {name: hashlib.sha256(ollama.blobs[tag.blob]).hexdigest() for name, tag in ollama.tags.items()}
