"""The command `huigan` as a person or a script runs it: a process, with an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer

from huigan.commands.bases import add
from storage import artefacts, comparisons, deployments, ratings, turns
from storage.db import Database, connect
from storage.migrations import upgrade
from storage.records import Thumb
from tests.fakes.ollama import CHATML, FakeOllama

PYTHON = [sys.executable, "-m", "huigan"]


class Machine:
    """A home folder, an Ollama, and the environment that names them."""

    def __init__(self, home: Path, fake: FakeOllama) -> None:
        self.home = home
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HUIGAN_HOME": str(home),
            "OLLAMA_HOST": fake.host,
            "LANG": "en_GB.UTF-8",
            "COLUMNS": "200",
        }

    def run(self, *words: str, said: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PYTHON, *words],
            input=said,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=self.home,
            env=self.environment | environment,
        )

    def db(self) -> Database:
        return connect(f"sqlite:///{self.home / 'huigan.db'}")


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add("qwen:0.5b", template=CHATML, system="你是回甘。")
        yield running


@pytest.fixture
def machine(tmp_path: Path, fake: FakeOllama) -> Machine:
    made = Machine(tmp_path, fake)
    opened = made.db()
    upgrade(opened)
    opened.close()
    return made


def registered(machine: Machine) -> Machine:
    added = machine.run("base", "add", "qwen:0.5b", "--weights", "Qwen/Qwen2.5-0.5B-Instruct")
    assert added.returncode == 0, added.stderr
    return machine


def test_what_is_kept_is_its_owners_alone(tmp_path: Path, fake: FakeOllama) -> None:
    machine = Machine(tmp_path / "new" / "home", fake)
    machine.environment["HUIGAN_HOME"] = str(machine.home)
    assert subprocess.run([*PYTHON, "migrate"], env=machine.environment, umask=0o022, cwd=tmp_path).returncode == 0
    made = [machine.home, *machine.home.rglob("*")]
    assert len(made) > 1
    assert {path.stat().st_mode & 0o077 for path in made} == {0}


def test_a_gguf_whose_header_lies_never_reaches_ollama(machine: Machine, fake: FakeOllama, tmp_path: Path) -> None:
    lying = tmp_path / "lying.gguf"
    lying.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + bytes(64))
    refused = machine.run("base", "add", str(lying), "--weights", "x/y")
    assert (refused.returncode, "more than it has room for" in refused.stderr) == (2, True)
    assert [each for each in fake.tags if "file" in each] == []


def test_a_gguf_that_nothing_here_can_read_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "gguf"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])  # as where the bot alone is installed
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    with pytest.raises(typer.Exit):
        add(str(tmp_path / "some.gguf"), "x/y")
    assert "huigan[engine]" in capsys.readouterr().err


def test_a_database_that_was_never_migrated_is_named_with_the_fix(tmp_path: Path, fake: FakeOllama) -> None:
    fresh = Machine(tmp_path, fake)
    refused = fresh.run("run", "list")
    assert (refused.returncode, "huigan migrate" in refused.stderr) == (2, True)
    assert fresh.run("migrate").returncode == 0
    assert fresh.run("run", "list").returncode == 0


def test_wrong_settings_are_all_named_and_no_secret_is_shown(machine: Machine) -> None:
    refused = machine.run("bot", TELEGRAM_BOT_TOKEN="my-secret-thing", HUIGAN_ADMINS="me", HUIGAN_MIN_RATINGS="0")
    assert refused.returncode == 2
    for name in ("TELEGRAM_BOT_TOKEN", "HUIGAN_ADMINS", "HUIGAN_MIN_RATINGS"):
        assert name in refused.stderr
    assert "my-secret-thing" not in refused.stderr + refused.stdout


def test_a_bot_without_a_token_says_where_to_get_one(machine: Machine) -> None:
    refused = machine.run("bot")
    assert (refused.returncode, "@BotFather" in refused.stderr) == (2, True)


def test_a_base_is_registered_once_and_listed_as_live(machine: Machine) -> None:
    registered(machine)
    again = machine.run("base", "add", "qwen:0.5b", "--weights", "Qwen/Qwen2.5-0.5B-Instruct")
    assert "already" in again.stderr
    [release] = json.loads(machine.run("release", "list", "--json").stdout)
    assert release["tag"].startswith("huigan:base-")
    shown = json.loads(machine.run("release", "show", "1", "--json").stdout)
    assert shown["artefact"]["weights"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert shown["artefact"]["system"] == "你是回甘。"
    assert "●" in machine.run("release", "list").stdout


def test_an_unknown_tag_and_an_ollama_that_is_away_exit_with_4(machine: Machine, fake: FakeOllama) -> None:
    unknown = machine.run("base", "add", "nope:1", "--weights", "x/y")
    assert (unknown.returncode, "nope:1" in unknown.stderr) == (4, True)
    assert machine.run("base", "add", "qwen:0.5b", "--weights", "x/y", OLLAMA_HOST="127.0.0.1:9").returncode == 4


def test_a_run_is_queued_once_shown_and_cancelled(machine: Machine) -> None:
    early = machine.run("run", "start", "--recipe", "demo")
    assert (early.returncode, "base add" in early.stderr) == (3, True)
    registered(machine)
    queued = machine.run("run", "start", "--recipe", "demo")
    assert (queued.returncode, "No trainer is running" in queued.stderr) == (0, True)
    assert machine.run("run", "start", "--recipe", "demo").returncode == 3
    [run] = json.loads(machine.run("run", "list", "--json").stdout)
    assert (run["state"], run["recipe"]["name"]) == ("QUEUED", "demo")
    assert machine.run("run", "cancel", "1").returncode == 0
    shown = json.loads(machine.run("run", "show", "1", "--json").stdout)
    assert [event["after"] for event in shown["events"]] == ["QUEUED", "CANCELLED"]
    assert machine.run("run", "cancel", "1").returncode == 3
    assert machine.run("run", "show", "7").returncode == 3
    none = machine.run("train", "7")
    assert (none.returncode, "huigan run list" in none.stderr) == (3, True)
    assert machine.run("run", "quantisations", "7").returncode == 3
    made_none = machine.run("run", "quantisations", "1")
    assert (made_none.returncode, made_none.stdout) == (3, "")
    assert "made no candidate" in made_none.stderr
    unknown = machine.run("run", "quantisations", "1", "--only", "Q9_K")
    assert unknown.returncode == 2
    assert "Q9_K is none of Q8_0, Q6_K" in unknown.stderr


def test_what_was_found_of_a_run_is_told_in_words_and_whole_to_programs(machine: Machine) -> None:
    registered(machine)
    assert machine.run("run", "start", "--recipe", "demo").returncode == 0
    lost = {"code": "refusals_lost", "params": {"lost": 3, "of": 11, "gained": 0, "bar": 0.0}, "hard": True}
    kept = {"kind": "refusals", "cases": 12, "live_right": 11, "candidate_right": 8, "lost": 3}
    found = {"suite": [kept], "samples": [{"kind": "lost", "question": "How?", "live": "No.", "candidate": "So."}]}
    served = {"template": CHATML, "system": "你是回甘。", "parameters": {}, "weights": None, "quantisation": "Q4_K_M"}
    with closing(machine.db()) as db:
        db.write(
            artefacts.add,
            run_id=1,
            path=None,
            sha256=None,
            size_bytes=None,
            scorecard=found,
            verdict={"passed": False, "reasons": [lost]},
            created_at=datetime.now(UTC),
            **served,
        )
    told = machine.run("run", "show", "1").stdout
    assert "⛔ It no longer refuses 3 of 11 dangerous requests" in told
    assert "Refusing what is dangerous 11 → 8 (−3)" in told
    assert "So." in told
    assert '"candidate_right"' not in told
    shown = json.loads(machine.run("run", "show", "1", "--json").stdout)
    assert shown["artefact"]["scorecard"]["suite"] == [kept]


def test_a_recipe_that_is_not_there_or_wrong_is_refused_with_its_complaints(machine: Machine, tmp_path: Path) -> None:
    assert "demo" in machine.run("run", "start", "--recipe", "demoo").stderr
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "bad"\nmethode = "sft"\n[train]\nbatch = 0\n')
    refused = machine.run("run", "start", "--recipe", str(bad))
    assert refused.returncode == 2
    assert "method" in refused.stderr
    assert "batch" in refused.stderr


def test_chatting_through_a_pipe_asks_rates_corrects_regenerates_and_compares(
    machine: Machine, fake: FakeOllama
) -> None:
    registered(machine)
    fake.reply("London.")
    fake.reply("Paris.")
    said = "Capital of France?\n/down wrong\n/fix Paris, of course.\n/again\n=\n/why\n/up\n/nonsense\n/new\n"
    chatted = machine.run("chat", "--as", "ann", said=said)
    assert chatted.returncode == 0, chatted.stderr
    assert "London." in chatted.stdout
    assert "huigan:base-" in chatted.stdout
    opened = machine.db()
    [down, *_] = opened.read(ratings.counting)
    assert (down.thumb, down.reason, down.correction) == (Thumb.DOWN, "wrong", "Paris, of course.")
    assert len(opened.read(comparisons.counting)) == 1
    assert opened.read(turns.unclosed) == []
    opened.close()
    listed = json.loads(machine.run("feedback", "list", "--json").stdout)
    assert {each["correction"] for each in listed} >= {"Paris, of course."}


def test_chatting_without_a_release_or_without_ollama_says_so(machine: Machine) -> None:
    assert "huigan base add" in machine.run("chat", said="hi\n").stdout
    registered(machine)
    away = machine.run("chat", said="hi\n", OLLAMA_HOST="127.0.0.1:9")
    assert (away.returncode, "not running" in away.stdout) == (0, True)


def started(machine: Machine, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PYTHON, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=machine.home,
        env=machine.environment,
    )


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in listed.stdout.split()]


def reads_until(process: subprocess.Popen[str], wanted: str) -> str:
    read = ""
    assert process.stderr is not None
    while wanted not in read:
        line = process.stderr.readline()
        assert line, f"ended before {wanted!r}: {read}"
        read += line
    return read


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_up_starts_what_is_configured_and_one_interrupt_stops_it_in_order(machine: Machine) -> None:
    registered(machine)
    process = started(machine, "up")
    said = reads_until(process, "● schedules")
    assert "No TELEGRAM_BOT_TOKEN" in said
    parts = children_of(process.pid)
    assert parts
    time.sleep(1.5)  # long enough for the parts to put up their signal handlers
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest.index("○ schedules") < (rest.index("○ trainer") if "○ trainer" in rest else len(rest))
    assert not any(is_alive(each) for each in parts)


def test_no_part_outlives_an_up_that_is_killed(machine: Machine) -> None:
    process = started(machine, "up")
    reads_until(process, "● schedules")
    parts = children_of(process.pid)
    assert parts
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while any(is_alive(each) for each in parts):
        assert time.monotonic() < until, "a part outlived its up"
        time.sleep(0.05)
    assert process.stderr is not None
    process.stderr.close()


def test_the_data_set_of_a_run_is_written_without_one_and_no_other_folder_is_cleared(machine: Machine) -> None:
    pytest.importorskip("pyarrow")
    registered(machine)
    machine.run("chat", "--as", "ann", said="Capital of France?\n/fix Paris, of course.\n")
    built = machine.run("data", "build", "--recipe", "demo", "--out", "written", "--json")
    assert built.returncode == 0, built.stderr
    told = json.loads(built.stdout)
    assert told["dataset"]["counts"]["kept"]["train"]["answers"] >= 1
    assert (machine.home / "written" / "manifest.json").is_file()
    refused = machine.run("data", "build", "--recipe", "demo", "--out", ".")
    assert refused.returncode == 2
    assert (machine.home / "huigan.db").is_file()


def test_a_release_is_promoted_and_rolled_back(machine: Machine) -> None:
    registered(machine)
    machine.run("base", "add", "qwen:0.5b", "--weights", "other/weights")
    opened = machine.db()
    live = opened.read(deployments.live)
    assert live is not None
    assert live.release.id == 2
    assert machine.run("release", "rollback").returncode == 0
    assert machine.run("release", "promote", "2").returncode == 0
    assert machine.run("release", "promote", "2").returncode == 3
    assert machine.run("release", "promote", "9").returncode == 3
    assert [each.release_id for each in opened.read(deployments.history)] == [2, 1, 2, 1]
    opened.close()


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ("run list", {"DATABASE_URL": "postgresql://u:p@ss:word@h/db"}, "%40"),
        ("run list", {"DATABASE_URL": "sqlite+aiosqlite:///x.db"}, "sqlite:///"),
        ("run list", {"DATABASE_URL": "sqlite:////proc/huigan/x.db"}, "HUIGAN_HOME"),
        ("schedules", {"HUIGAN_SCHEDULE": "99 99 * * *"}, "HUIGAN_SCHEDULE"),
        ("run show 99999999999999999999999", {}, "RUN"),
        ("release promote 99999999999999999999999", {}, "RELEASE"),
        ("base add x --weights y --template nothing.txt", {}, "nothing.txt"),
        ("engine --port 99999", {}, "65535"),
    ],
)
def test_what_cannot_be_used_is_named_without_a_traceback(
    machine: Machine, words: str, environment: dict[str, str], said: str
) -> None:
    refused = machine.run(*words.split(), **environment)
    assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert "Traceback" not in refused.stderr
    assert "word" not in refused.stderr.replace("password", "")


def test_a_database_that_is_away_broken_or_of_a_newer_program_is_named_with_the_fix(machine: Machine) -> None:
    away = machine.run("run", "list", DATABASE_URL="postgresql://u:secretive@127.0.0.1:9/db")
    assert (away.returncode, "DATABASE_URL" in away.stderr) == (1, True)
    (machine.home / "broken.db").write_text("this is no database " * 100)
    broken = machine.run("run", "list", DATABASE_URL="sqlite:///broken.db")
    assert (broken.returncode, "DATABASE_URL" in broken.stderr) == (1, True)
    opened = machine.db()
    with opened.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    opened.close()
    newer = machine.run("migrate")
    assert (newer.returncode, "newer Huigan" in newer.stderr) == (1, True)
    said = away.stderr + broken.stderr + newer.stderr
    assert "secretive" not in said
    assert "Traceback" not in said


def test_a_terminal_without_emoji_is_no_reason_to_fail(machine: Machine) -> None:
    registered(machine)
    chatted = machine.run("chat", said="hi\n", PYTHONIOENCODING="latin-1")
    assert (chatted.returncode, "You said: hi" in chatted.stdout) == (0, True), chatted.stderr
    assert machine.run("release", "list", PYTHONIOENCODING="latin-1").returncode == 0


def test_the_demo_names_the_extras_that_it_lacks_before_it_begins(machine: Machine) -> None:
    for lacking, extras in (({"xllamacpp"}, "engine"), ({"xllamacpp", "trl"}, "engine,train")):
        without = f"import sys; sys.modules.update(dict.fromkeys({lacking!r}))"  # as in an installation without them
        script = f"{without}; sys.argv = ['huigan', 'demo', '--no-chat']; from huigan.cli import app; app()"
        ended = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=machine.home,
            env=machine.environment,
        )
        assert (ended.returncode, f"pip install 'huigan[{extras}]'" in ended.stderr) == (2, True), ended.stderr
        assert not (machine.home / ".huigan").exists()


def test_a_backup_is_made_listed_and_restored_by_commands_and_holds_no_secret(machine: Machine) -> None:
    registered(machine)
    token = "123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8rUoAbcd"
    made = machine.run("backup", "--json", TELEGRAM_BOT_TOKEN=token)
    assert made.returncode == 0, made.stderr
    file = json.loads(made.stdout)["file"]
    assert json.loads(made.stdout)["counts"]["release"] == 1
    assert token.encode() not in b"".join(_contents(Path(file)))
    assert Path(file).name in machine.run("backup", "--list").stdout
    told = machine.run("restore", file, "--look")
    assert (told.returncode, "A backup of" in told.stdout) == (0, True)
    refused = machine.run("restore", file)
    assert (refused.returncode, "--force" in refused.stderr) == (3, True)
    elsewhere = machine.run("restore", file, HUIGAN_HOME=str(machine.home / "elsewhere"))
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert "brought up to date" in elsewhere.stdout
    there = machine.run("release", "list", "--json", HUIGAN_HOME=str(machine.home / "elsewhere"))
    assert len(json.loads(there.stdout)) == 1
    assert machine.run("restore", file, "--force").returncode == 0
    nothing = machine.run("restore", "nothing.tar.gz")
    assert (nothing.returncode, "no such file" in nothing.stderr) == (1, True)


def _contents(file: Path) -> Iterator[bytes]:
    with tarfile.open(file) as archive:
        for member in archive:
            if (held := archive.extractfile(member)) is not None:
                yield held.read()


def test_settings_are_listed_with_their_origin_set_and_taken_back(machine: Machine) -> None:
    assert "quiet_hours is 08:00-23:00 now" in machine.run("settings", "set", "quiet_hours", "8-23").stderr
    told = {each["name"]: each for each in json.loads(machine.run("settings", "list", "--json").stdout)}
    assert (told["quiet_hours"]["value"], told["quiet_hours"]["origin"]) == ("08:00-23:00", "admin")
    assert told["recipe"]["origin"] == "default"
    refused = machine.run("settings", "set", "zone", "Moon")
    assert refused.returncode == 3
    assert "Asia/Shanghai" in refused.stderr
    assert "again, by the default" in machine.run("settings", "unset", "quiet_hours").stderr
    table = machine.run("settings", "list").stdout
    assert "quiet_hours" in table


def test_the_next_run_is_told_in_words(machine: Machine) -> None:
    assert "has not looked yet" in machine.run("run", "next").stdout


def test_pruning_shows_what_would_go_before_it_does(machine: Machine) -> None:
    registered(machine)
    half = machine.home / "bases" / "b.f16.gguf.part"
    half.parent.mkdir()
    half.write_bytes(b"x")
    os.utime(half, (0, 0))
    shown = machine.run("prune", "--dry-run", "--json")
    assert [(each["thing"]["name"], each["why"]) for each in json.loads(shown.stdout)] == [(str(half), "left")]
    assert half.exists()
    assert machine.run("prune").returncode == 0
    assert not half.exists()
