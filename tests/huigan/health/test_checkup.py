"""`huigan doctor` finds what is wrong and says what helps, in three languages, without a network or a secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from huigan.commands import doctor
from huigan.health import checkup
from huigan.health.checkup import CHECKS, Finding, Patient
from huigan.health.metrics import Card
from huigan.operate import bases, workers
from huigan.serving.client import Ollama
from huigan.texts import LOCALES
from storage.db import Database
from tests.fakes.ollama import CHATML, FakeOllama
from tests.huigan.test_cli import Machine

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
TOKEN = "123456789:AAEhBOweik6ad6PsVMRxjeQKXkq8rUoAbcd"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    with FakeOllama().running() as running:
        running.add("qwen:0.5b", template=CHATML, system="你是回甘。")
        yield running


class Telegram(BaseHTTPRequestHandler):
    """Knows one token, and the time that a test sets."""

    date = ""

    def do_GET(self) -> None:
        known = TOKEN in self.path
        body = {"ok": known, "result": {"username": "our_bot"}} if known else {"ok": False}
        self._answer(200 if known else 401, json.dumps(body).encode())

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        if self.date:
            self.send_header("Date", self.date)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def telegram() -> Iterator[str]:
    Telegram.date = ""
    with ThreadingHTTPServer(("127.0.0.1", 0), Telegram) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def patient(db: Database, fake: FakeOllama, telegram: str, tmp_path: Path) -> Patient:
    """One with whom all is well."""
    assert isinstance(
        bases.register(db, Ollama(fake.host, timeout_seconds=5), "qwen:0.5b", str(tmp_path), by_user_id=None, at=AT),
        bases.Registered,
    )
    return Patient(
        token=TOKEN,
        telegram_url=f"{telegram}/bot",
        database_url=db.engine.url.render_as_string(hide_password=False),
        home=tmp_path,
        ollama_host=fake.host,
        recipe="",
        hub=telegram,
        backups_kept=0,
        at=lambda: datetime.now(UTC),
        card=lambda: Card("A card", 24 * 2**30, 20 * 2**30),
    )


def found(patient: Patient, *checks: str) -> dict[str, Finding]:
    return {each.code: each for name in checks or CHECKS for each in CHECKS[name](patient)}


def test_nothing_is_wrong_where_all_is_well(patient: Patient) -> None:
    told = checkup.examine(patient)
    assert [each for each in told if each.level == "bad" and each.code != "disk_low"] == []
    assert {"token_well", "database_well", "ollama_well", "release_well", "running_well", "weights_here"} <= {
        each.code for each in told
    }


def test_whatever_is_away_or_wrong_is_found(patient: Patient, fake: FakeOllama, tmp_path: Path) -> None:
    assert "token_none" in found(replace(patient, token=None), "token")
    assert "token_wrong" in found(replace(patient, token="1:x"), "token")
    assert "telegram_away" in found(replace(patient, telegram_url=f"{NOWHERE}/bot"), "token")
    assert "ollama_away" in found(replace(patient, ollama_host="127.0.0.1:9"), "ollama")
    assert "database_none" in found(replace(patient, database_url=f"sqlite:///{tmp_path}/none.db"), "database")
    assert not (tmp_path / "none.db").exists()
    gone = replace(patient, database_url="postgresql://me:a-secret@127.0.0.1:9/x")
    assert found(gone, "database")["database_away"].params["where"] == "postgresql://me:***@127.0.0.1:9/x"
    assert found(gone, "release", "running") == {}
    for url in ("nonsense", "mysql://a/b"):
        assert "database_url" in found(replace(patient, database_url=url), "database")
        assert found(replace(patient, database_url=url), "release", "running") == {}
    assert "recipe_wrong" in found(replace(patient, recipe="nothing"), "recipe")
    assert set(found(replace(patient, card=lambda: None), "card")) < {"card_none", "card_unmeasured"}
    fake.reset()
    assert "release_gone" in found(patient, "release")


def test_a_database_of_another_version_is_told_from_one_that_is_new(patient: Patient, db: Database) -> None:
    for revision, code in (("0001", "database_old"), ("9999", "database_newer")):
        with db.engine.connect() as connection, connection.begin():
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
        assert code in found(patient, "database")


def test_what_is_lost_is_told_in_the_words_of_the_alert(patient: Patient, db: Database) -> None:
    db.write(workers.mark_seen, "gpu:1", AT)
    [finding] = CHECKS["running"](patient)
    assert (finding.level, finding.code) == ("bad", "condition.trainer_lost")
    assert "huigan trainer" in doctor._words(finding, "en")


def test_a_clock_that_is_off_is_seen_by_anothers(sqlite_db: Database, telegram: str, tmp_path: Path) -> None:
    patient = Patient(
        None, f"{telegram}/bot", f"sqlite:///{tmp_path}/huigan.db", tmp_path, "x", "", None, 0, lambda: AT
    )
    for ahead, level, code in ((90, "bad", "clock_off"), (2, "well", "clock_well")):
        Telegram.date = f"{AT - timedelta(seconds=ahead):%a, %d %b %Y %H:%M:%S} GMT"
        [finding] = CHECKS["clock"](patient)
        assert (finding.level, finding.code, finding.params["seconds"]) == (level, code, ahead)


def test_without_a_network_nothing_fails_but_what_needs_one(patient: Patient, db: Database, tmp_path: Path) -> None:
    offline = replace(patient, token=None, telegram_url=f"{NOWHERE}/bot", hub=NOWHERE)
    codes = {each.code: each.level for each in checkup.examine(offline) if each.code != "disk_low"}
    assert "bad" not in codes.values()
    assert "weights_here" in codes
    nothing = replace(offline, database_url=f"sqlite:///{tmp_path}/none.db")
    assert found(nothing, "mirrors")["hub_away"].level == "bad"
    assert found(nothing, "clock")["clock_unknown"].level == "note"


def test_a_check_that_hangs_or_fails_costs_no_other(patient: Patient) -> None:
    hangs = threading.Event()

    def hanging(_: Patient) -> list[Finding]:
        hangs.wait(30)
        return []

    def failing(_: Patient) -> list[Finding]:
        raise RuntimeError(f"GET /bot{TOKEN}")

    checks = {"token": hanging, "ollama": failing, "tools": CHECKS["tools"]}
    told = checkup.examine(patient, checks, limit_seconds=0.3)
    hangs.set()
    assert [each.code for each in told[:2]] == ["too_slow", "check_failed"]
    assert {each.check for each in told[2:]} == {"tools"}
    assert TOKEN not in str(told)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_finding_has_words_with_its_parameters(patient: Patient, locale: str) -> None:
    worst = replace(
        patient,
        telegram_url=f"{NOWHERE}/bot",
        ollama_host="127.0.0.1:9",
        recipe="nothing",
        hub=NOWHERE,
        home=Path("/proc"),
        card=lambda: None,
    )
    for finding in [*checkup.examine(patient), *checkup.examine(worst)]:
        words = doctor._words(finding, locale)
        assert words
        assert words not in {finding.code, finding.code.partition(".")[2]}
        assert TOKEN not in words


def test_as_a_command_it_needs_no_token_and_no_database_and_ends_with_what_it_found(
    fake: FakeOllama, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, fake)
    away = {"TELEGRAM_BASE_URL": f"{NOWHERE}/bot", "HF_ENDPOINT": NOWHERE}
    told = machine.run("doctor", **away)
    assert told.returncode == 1
    assert "✗" in told.stdout
    assert "Run huigan migrate" in told.stdout
    assert "HF_ENDPOINT=https://hf-mirror.com" in told.stdout
    assert not (tmp_path / "huigan.db").exists()
    listed = machine.run("doctor", "--json", **away, TELEGRAM_BOT_TOKEN=TOKEN, LANG="zh_TW.UTF-8")
    findings = {each["code"]: each for each in json.loads(listed.stdout)}
    assert findings["telegram_away"]["words"].startswith("連不上 127.0.0.1")
    assert TOKEN not in listed.stdout + listed.stderr
    wrong = machine.run("doctor", HUIGAN_ADMINS="me")
    assert (wrong.returncode, "HUIGAN_ADMINS" in wrong.stdout) == (1, True)
