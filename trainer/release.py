"""The last stage: the candidate becomes a tag that was seen to answer, then a release, or an artefact that was refused.

Nothing that answers now is touched until the one transaction at the end, which `huigan.operate.releases` knows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError

from huigan.operate import releases, tags
from huigan.operate import runs as operate_runs
from huigan.operate.turned_away import same_as
from huigan.serving import library
from huigan.serving.errors import Busy, Crashed, Loading, NotRunning, OutOfMemory, ServingError, Stalled
from storage import releases as release_rows
from storage import runs
from storage.db import Session
from storage.records import RunState
from trainer import seals
from trainer.gate import Verdict
from trainer.scorecard import Scorecard
from trainer.stages import Merged, Origin, RunFailed, Taught, Work, tokenizer_of, weighed_reference
from trainer.tokens import render_ids

log = logging.getLogger(__name__)

T = TypeVar("T")
Move = Callable[[Session, int, int, Mapping[str, Any], str, datetime], object]

# An Ollama that restarts, or is asked for too much. Memory passes, too: for a file to be loaded Ollama itself unloads
# runners that are idle, so what is waited for is somebody's answer, or a driver that tells late what is free again.
PASSING = (NotRunning, Busy, Loading, Crashed, Stalled, OutOfMemory)
PAUSE_SECONDS, PAUSES = 5.0, 10
# What becomes of what passed, by the recipe's `approval`.
ENDS: dict[str, tuple[Move, RunState]] = {
    "approve": (releases.propose, RunState.AWAITING_APPROVAL),
    "canary": (releases.put_on_trial, RunState.AWAITING_APPROVAL),
    "auto": (releases.publish, RunState.RELEASED),
}
STOPPING_TOKENS = 256  # a greeting is answered in fewer, also where a demo's answers are cut sooner


class AttemptOver(Exception):
    """The run is another worker's by now, or ended: whatever this process still does must change nothing."""


@dataclass(frozen=True)
class Released:
    """How the run ended. A rejected one has no tag."""

    state: RunState
    tag: str | None
    release_id: int | None


def release(work: Work, origin: Origin, taught: Taught, merged: Merged, card: Scorecard, verdict: Verdict) -> Released:
    for each in (reference := weighed_reference(work), seals.beside(reference)):
        each.unlink(missing_ok=True)
    artefact = described(work, origin, taught, merged, card, verdict)
    if not verdict.passed:
        return turn_down(work, artefact, merged)
    if (known := turned_away(work)) is not None:
        Path(artefact["path"]).unlink(missing_ok=True)
        return known
    tag = tags.name_of(
        f"run{work.run.id}", merged.sha256, artefact["template"], artefact["system"], artefact["parameters"]
    )
    with withdrawn_where_it_fails(work, tag):
        patiently(work, lambda: serve(work, tag, artefact))
        patiently(work, lambda: try_out(work, tag, artefact["system"], taught))
        return publish(work, tag, artefact)


@contextmanager
def withdrawn_where_it_fails(work: Work, tag: str) -> Iterator[None]:
    """No tag stays in Ollama that nothing names. Where only the database is away, the next attempt will want it."""
    try:
        yield
    except OperationalError:
        raise
    except Exception:
        withdraw(work, tag)
        raise


def withdraw(work: Work, tag: str) -> None:
    """Unless a release is called so: another attempt may have made the very same file."""
    try:
        if work.db.read(release_rows.by_tag, tag) is None:
            library.delete(work.client, tag)
    except (OperationalError, ServingError) as error:
        log.warning("run %d: tag %s stays in Ollama: %s", work.run.id, tag, error)


def described(
    work: Work, origin: Origin, taught: Taught, merged: Merged, card: Scorecard, verdict: Verdict
) -> dict[str, Any]:
    """The artefact: everything that shapes an answer is written out, and what was found of it."""
    recipe = work.recipe
    stops = dict.fromkeys([*stop_texts(origin.parameters), taught.end_of_turn])
    return {
        "path": str(merged.path.absolute()) if verdict.passed and merged.path else None,
        "sha256": merged.sha256 or None,
        "quantisation": recipe.quantisation,
        "size_bytes": merged.size_bytes or None,
        "weights": origin.weights,
        "template": origin.template if recipe.system.template == "base" else recipe.system.template,
        "system": recipe.system.text,
        "parameters": {**recipe.generate.options(), "stop": list(stops)},
        "scorecard": asdict(card),
        "verdict": asdict(verdict),
    }


def stop_texts(parameters: dict[str, Any]) -> list[str]:
    given = parameters.get("stop", [])
    return [given] if isinstance(given, str) else list(given)


def serve(work: Work, tag: str, artefact: dict[str, Any]) -> None:
    work.tell("release", "create", 0, 3)
    shaped = {name: artefact[name] for name in ("template", "system", "parameters")}
    library.create(work.client, tag, Path(artefact["path"]), **shaped)
    work.tell("release", "warm", 1, 3)
    library.warm(work.client, tag)


def try_out(work: Work, tag: str, system: str, taught: Taught) -> None:
    """The served tag must read the very tokens that were trained on, answer, and know where to end."""
    work.tell("release", "try", 2, 3)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": tags.QUESTION}]
    longest = max(STOPPING_TOKENS, work.recipe.generate.num_predict)
    told = library.ask(work.client, tag, messages, {"temperature": 0.0, "num_predict": longest})
    wanted = len(render_ids(tokenizer_of(taught.weights), messages))
    if told.prompt_eval_count != wanted:
        raise RunFailed("template_differs", tag=tag, served_tokens=told.prompt_eval_count, trained_tokens=wanted)
    if not (told.message.content or "").strip():
        raise RunFailed("answers_nothing", tag=tag)
    if told.done_reason != "stop" and work.recipe.gate.min_stop_share > 0:
        raise RunFailed("does_not_stop_when_served", tag=tag, tokens=told.eval_count)


def publish(work: Work, tag: str, artefact: dict[str, Any]) -> Released:
    """Raises AttemptOver."""
    act, state = ENDS[work.recipe.approval]
    last_move(work, state, lambda: work.db.write(act, work.run.id, work.run.attempt, artefact, tag, work.now()))
    released = patiently(work, lambda: work.db.read(release_rows.by_tag, tag))
    if work.alias is not None and state is RunState.RELEASED:
        tags.point(work.client, work.alias, tag)
    return Released(state, tag, released.id if released else None)


def turn_down(work: Work, artefact: dict[str, Any], merged: Merged) -> Released:
    """The file is of no more use; its scorecard is. Raises AttemptOver."""
    run, state = work.run, RunState.REJECTED
    last_move(work, state, lambda: work.db.write(releases.turn_down, run.id, run.attempt, artefact, work.now()))
    if merged.path is not None:
        merged.path.unlink(missing_ok=True)
    return Released(state, None, None)


def turned_away(work: Work) -> Released | None:
    """How a run ends whose data and recipe have made a release already that was turned away. Raises AttemptOver."""
    number = patiently(work, lambda: work.db.read(same_as, work.run.id))
    if number is None:
        return None
    run, state = work.run, RunState.REJECTED
    last_move(work, state, lambda: work.db.write(operate_runs.turn_away, run.id, run.attempt, number, work.now()))
    return Released(state, None, None)


def last_move(work: Work, state: RunState, write: Callable[[], object]) -> None:
    """`write` gives None where the attempt is over; or where it ended the run before, and the word of it was lost."""
    if patiently(work, write) is None:
        known = patiently(work, lambda: work.db.read(runs.get, work.run.id))
        if (known.attempt, known.state) != (work.run.attempt, state):
            raise AttemptOver


def patiently(work: Work, act: Callable[[], T]) -> T:
    """Hours of training are not thrown away because Ollama or the database is away. Other errors pass at once."""
    until = time.monotonic() + work.patience_seconds
    while True:
        try:
            return act()
        except (*PASSING, OperationalError) as error:
            if time.monotonic() > until:
                raise
            waiting = error.code if isinstance(error, ServingError) else None
        if waiting is not None:
            work.tell("release", f"waiting: {waiting}", 0, 0)
        time.sleep(min(PAUSE_SECONDS, work.patience_seconds / PAUSES))
