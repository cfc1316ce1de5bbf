"""What Prometheus, Compose and Grafana are told, over HTTP, of a real database."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from bot.pace import Limits, Pace
from huigan.health import endpoint, metrics, watch
from huigan.health.conditions import Condition
from huigan.health.signs import STUCK_SECONDS, Signs
from huigan.operate import timetable, workers
from huigan.serving.client import Ollama
from storage import answers, chats, messages, ratings, runs, settings, turns, users
from storage.db import Database, Session, connect
from storage.records import ChatKind, Ended, Seen, Thumb
from storage.tables import run
from tests.fakes.ollama import FakeOllama
from tests.schedules.test_loop import add_base

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
REPOSITORY = Path(__file__).parents[3]
CARD = metrics.Card("A card", 24_000, 8_000)


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        yield running


class Now:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Asked:
    """One process's endpoint."""

    def __init__(self, db: Database, host: str, home: Path) -> None:
        self.now = Now()
        self.signs = Signs(self.now)
        self.registry = metrics.registry(
            db,
            Ollama(host, timeout_seconds=5),
            home,
            self.signs,
            process="bot",
            version="1.2",
            now=lambda: AT,
            card=lambda: CARD,
        )
        self.answer = endpoint.answering(db, self.signs, self.registry, "bot")

    def values(self) -> dict[tuple[str, str], float]:
        """By name, and by the value of its label; of two labels, by both."""
        _, kind, body = self.answer("/metrics", "")
        assert kind.startswith("text/plain")
        families = list(text_string_to_metric_families(body.decode()))
        assert len({each.name for each in families}) == len(families)
        return {
            (sample.name, "/".join(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    def status(self, path: str) -> tuple[int, str]:
        status, _, body = self.answer(path, "")
        return status.value, json.loads(body)["status"]


def said(session: Session, number: int, at: datetime, *, error: str | None = None) -> None:
    """One question and its answer, or the error in its place; rated 👍 where the number is even."""
    user = users.meet(session, "test", "1", "某人的名字", None, at)
    chat = chats.meet(session, "test", "1", ChatKind.PRIVATE, "", at)
    talk = chats.current(session, chat.id, "", user.id, at)
    message = messages.add(session, talk.id, user.id, "一个秘密的问题", f"test:{number}", at)
    assert message is not None
    turn = turns.wait(session, talk.id, message.id, user.id, at)
    assert turns.open_next(session, turn.id, "w", at)
    ended = Ended.FAILED if error else Ended.COMPLETE
    turns.close(session, turn.id, ended, at, error=error)
    if error is None:
        cost = {"answer_tokens": 30, "first_token_seconds": 0.5 + number, "total_seconds": 3.5 + number}
        seen = Seen("s", [], 0, "0", {})
        made = answers.add(session, turn, "一个答案", seen, ended, at, tag="t", release_id=1, **cost)
        ratings.add(session, made.id, user.id, Thumb.UP if number % 2 == 0 else Thumb.DOWN, at)


def fill(db: Database) -> None:
    """Something of everything."""
    db.write(add_base, AT - timedelta(hours=2))
    for number in range(3):
        db.write(said, number, AT - timedelta(minutes=1))
    db.write(said, 3, AT, error="not_running")
    db.write(said, 4, AT - timedelta(hours=1))
    db.write(runs.enqueue, "default", {}, "test", AT)
    claimed = db.write(runs.claim, "gpu", AT)
    assert claimed is not None
    db.write(runs.report, claimed.id, claimed.attempt, "train", {}, AT)
    db.write(runs.enqueue, "other", {}, "test", AT)
    db.write(runs.enqueue, "third", {}, "test", AT)
    db.write(runs.ask_cancel, 3, AT - timedelta(minutes=30))
    db.write(workers.mark_seen, "gpu", AT)
    db.write(timetable.mark_looked, AT - timedelta(seconds=20))
    db.write(settings.put, "backup_made", {"made_at": (AT - timedelta(hours=3)).isoformat()}, None, AT)
    db.write(watch.tell, {"disk_low:1": Condition("disk_low:1", "disk_low", {"host": "lab"})}, AT)


def test_what_is_told_is_what_is_in_the_database(db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    fill(db)
    told = Asked(db, fake.host, tmp_path).values()
    assert told["huigan_database_up", ""] == told["huigan_ollama_up", ""] == told["huigan_trainer_alive", ""] == 1
    assert told["huigan_turns_recent", "complete/"] == 3
    assert told["huigan_turns_recent", "failed/not_running"] == 1
    assert [told["huigan_first_token_seconds", share] for share in ("0.5", "0.9", "0.99")] == [1.5, 2.5, 2.5]
    assert told["huigan_answer_tokens_per_second", ""] == 10
    assert (told["huigan_ratings", "up"], told["huigan_ratings", "down"]) == (3, 1)
    assert told["huigan_live_ups_share", ""] == 0.75
    assert told["huigan_live_release", ""] == 1
    assert [told["huigan_runs", state] for state in ("RUNNING", "QUEUED", "CANCELLED", "FAILED")] == [1, 1, 1, 0]
    assert told["huigan_run_stage", "train"] == 1
    assert told["huigan_run_ended_age_seconds", ""] == 1800
    assert told["huigan_schedules_age_seconds", ""] == 20
    assert told["huigan_backup_age_seconds", ""] == 3 * 3600
    assert told["huigan_alerts", "disk_low"] == 1
    assert told["huigan_gpu_memory_free_bytes", "A card"] == 8_000
    assert told["huigan_disk_free_bytes", ""] > 0
    assert told["huigan_process_info", "bot/1.2"] == 1
    assert told["process_resident_memory_bytes", ""] > 0


def test_no_text_and_no_person_is_among_what_is_told(sqlite_db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    fill(sqlite_db)
    _, _, body = Asked(sqlite_db, fake.host, tmp_path).answer("/metrics", "")
    assert re.search("[\u4e00-\u9fff]", body.decode()) is None


def test_an_empty_database_tells_no_ages_and_no_release(db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    told = Asked(db, fake.host, tmp_path).values()
    names = {name for name, _ in told}
    assert told["huigan_turns_unclosed", ""] == 0
    assert not names & {"huigan_live_release", "huigan_backup_age_seconds", "huigan_run_ended_age_seconds"}


def test_whoever_takes_back_what_they_said_makes_nothing_jump(db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    """What goes down when rows are deleted must be a gauge: a counter that does looks like a restart."""
    fill(db)
    _, _, body = Asked(db, fake.host, tmp_path).answer("/metrics", "")
    counters = {each.name for each in text_string_to_metric_families(body.decode()) if each.type == "counter"}
    assert {each for each in counters if each.startswith("huigan_")} == {"huigan_telegram_throttled"}


def test_a_database_and_an_ollama_that_are_away_are_told_as_such(tmp_path: Path) -> None:
    gone = connect("postgresql://nobody@127.0.0.1:9/x")
    asked = Asked(gone, "127.0.0.1:9", tmp_path)
    told = asked.values()
    assert (told["huigan_database_up", ""], told["huigan_ollama_up", ""]) == (0, 0)
    assert asked.status("/health") == (200, "ok")
    assert asked.status("/ready") == (503, "no_database")
    gone.close()


def test_a_process_that_shows_no_sign_of_life_is_not_healthy(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    asked = Asked(sqlite_db, fake.host, tmp_path)
    assert [asked.status(path) for path in ("/health", "/ready")] == [(200, "ok"), (200, "ok")]
    asked.now.seconds = STUCK_SECONDS + 1
    assert [asked.status(path) for path in ("/health", "/ready")] == [(503, "stuck"), (503, "stuck")]
    assert asked.values()["huigan_quiet_seconds", ""] == STUCK_SECONDS + 1
    asked.signs.beat()
    assert asked.status("/health") == (200, "ok")
    assert asked.status("/etc/passwd") == (404, "unknown_path")


def test_a_database_without_tables_is_not_ready(fake: FakeOllama, tmp_path: Path) -> None:
    empty = connect(f"sqlite:///{tmp_path / 'empty.db'}")
    assert Asked(empty, fake.host, tmp_path).status("/ready") == (503, "not_migrated")
    empty.close()


def test_over_http_it_is_answered_and_a_port_that_is_taken_stops_nothing(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    asked = Asked(sqlite_db, fake.host, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with endpoint.served("127.0.0.1", port, asked.answer) as at:
        assert at == port
        with endpoint.served("127.0.0.1", port, asked.answer) as taken:
            assert taken is None
        with urllib.request.urlopen(f"http://127.0.0.1:{at}/metrics", timeout=10) as answered:
            assert b"huigan_database_up 1.0" in answered.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{at}/", timeout=10)


async def test_each_time_telegram_asks_to_wait_is_counted(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    from telegram.error import RetryAfter

    asked, calls = Asked(sqlite_db, fake.host, tmp_path), [0]

    async def call() -> str:
        calls[0] += 1
        if calls[0] < 3:
            raise RetryAfter(timedelta(seconds=1))
        return "sent"

    async def sleep(seconds: float) -> None:
        asked.now.seconds += seconds

    pace = Pace(Limits(), asked.now, sleep, asked.signs.throttled)
    assert await pace.process_request(call, (), {}, "sendMessage", {"chat_id": 1}, None) == "sent"
    assert asked.values()["huigan_telegram_throttled_total", ""] == 2


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((REPOSITORY / "monitoring" / "grafana.json").read_text(encoding="utf-8"))
    return read


def test_the_dashboard_asks_for_what_is_told_and_for_all_of_it(
    sqlite_db: Database, fake: FakeOllama, tmp_path: Path
) -> None:
    fill(sqlite_db)
    told = {name for name, _ in Asked(sqlite_db, fake.host, tmp_path).values()}
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"(?:huigan|process)_[a-z_]+", target["expr"])
    }
    assert asked - told == set()
    assert {name for name in told if name.startswith("huigan_")} - asked == set()


def test_every_label_that_the_dashboard_shows_is_told(sqlite_db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    fill(sqlite_db)
    _, _, body = Asked(sqlite_db, fake.host, tmp_path).answer("/metrics", "")
    labels = {
        label
        for family in text_string_to_metric_families(body.decode())
        for each in family.samples
        for label in each.labels
    }
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            used |= {each for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for each in by.split(", ")}
            assert used <= labels | {"instance"}, target


def test_panels_stand_beside_each_other_not_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_prometheus_is_pointed_at_the_ports_of_the_three_processes() -> None:
    from huigan.commands.tending import PORTS

    [job] = yaml.safe_load((REPOSITORY / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    [found] = job["static_configs"]
    assert [int(each.rpartition(":")[2]) for each in found["targets"]] == [9464 + each for each in PORTS.values()]


def test_a_run_with_no_stage_yet_is_told_without(sqlite_db: Database, fake: FakeOllama, tmp_path: Path) -> None:
    fill(sqlite_db)
    sqlite_db.write(lambda session: session.execute(update(run).values(stage=None)))
    assert Asked(sqlite_db, fake.host, tmp_path).values()["huigan_run_stage", ""] == 1
