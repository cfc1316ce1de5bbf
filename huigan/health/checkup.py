"""What `huigan doctor` looks at: each thing alone, at once, with a time limit, and nothing is changed by looking.

A finding is a code with parameters; the words, with the fix in them, are in huigan.texts. No secret is in either.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from huigan.health import facts
from huigan.health.conditions import CLOCK_OFF_SECONDS, GIGABYTE, judge
from huigan.health.conditions import is_low as is_low_disk
from huigan.health.metrics import Card
from huigan.operate import recipes
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage import copies, deployments
from storage.db import BadDatabaseUrl, Database, connect
from storage.migrations import is_current, is_newer
from storage.recipe import BadRecipe

Level = Literal["well", "note", "bad"]

LIMIT_SECONDS = 15.0
ASKED_SECONDS = 6.0
TESTED_OLLAMA = (0, 33)
HUB = "https://huggingface.co"
EXTRAS = {"xllamacpp": "engine", "trl": "train"}  # what is tried for, and what installs it
SEEN_ELSEWHERE = frozenset({"ollama_away", "disk_low", "clock_off"})  # conditions that a check of their own tells of


@dataclass(frozen=True)
class Finding:
    check: str
    level: Level
    code: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Patient:
    """Where things are, as the settings say."""

    token: str | None
    telegram_url: str
    database_url: str
    home: Path
    ollama_host: str
    recipe: str
    hub: str | None
    backups_kept: int
    at: Callable[[], datetime]
    card: Callable[[], Card | None] = lambda: None


Check = Callable[[Patient], list[Finding]]


def examine(
    patient: Patient, checks: Mapping[str, Check] | None = None, limit_seconds: float = LIMIT_SECONDS
) -> list[Finding]:
    """All checks beside each other, told in their order; none lasts longer than the limit."""
    chosen = CHECKS if checks is None else checks
    pending = {name: _begun(name, check, patient) for name, check in chosen.items()}
    found: list[Finding] = []
    until = time.monotonic() + limit_seconds
    for name, answer in pending.items():
        found += _within(name, answer, until, limit_seconds)
    return found


def _begun(name: str, check: Check, patient: Patient) -> queue.SimpleQueue[list[Finding]]:
    answer: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put(check(patient))
        except Exception as error:  # noqa: BLE001 the edge of one check, told by its name: a message may quote a secret
            answer.put([Finding(name, "bad", "check_failed", {"problem": type(error).__name__})])

    threading.Thread(target=run, daemon=True).start()  # one that hangs must not keep the command from ending
    return answer


def _within(name: str, answer: queue.SimpleQueue[list[Finding]], until: float, seconds: float) -> list[Finding]:
    try:
        return answer.get(timeout=max(0.01, until - time.monotonic()))
    except queue.Empty:
        return [Finding(name, "bad", "too_slow", {"seconds": round(seconds)})]


def _token(patient: Patient) -> list[Finding]:
    host = urlsplit(patient.telegram_url).hostname or ""
    if patient.token is None:
        return [Finding("token", "note", "token_none")]
    try:
        answered = httpx.get(f"{patient.telegram_url}{patient.token}/getMe", timeout=ASKED_SECONDS)
        told = answered.json()
    except (httpx.HTTPError, ValueError):
        return [Finding("token", "bad", "telegram_away", {"host": host})]
    if answered.status_code in {401, 404}:
        return [Finding("token", "bad", "token_wrong")]
    if not (isinstance(told, dict) and told.get("ok")):
        return [Finding("token", "bad", "telegram_refused", {"host": host, "status": answered.status_code})]
    return [Finding("token", "well", "token_well", {"username": told["result"]["username"]})]


def _database(patient: Patient) -> list[Finding]:
    try:
        db = _opened(patient)
    except BadDatabaseUrl as error:
        return [Finding("database", "bad", "database_url", {"problem": str(error)})]
    where = make_url(patient.database_url).render_as_string(hide_password=True)
    if db is None:
        return [Finding("database", "bad", "database_none", {"where": where})]
    try:
        if is_newer(db):
            return [Finding("database", "bad", "database_newer")]
        if not is_current(db):
            return [Finding("database", "bad", "database_old")]
    except SQLAlchemyError as error:
        return [Finding("database", "bad", "database_away", {"where": where, "problem": _said(error)})]
    finally:
        db.close()
    found = [Finding("database", "well", "database_well", {"where": where})]
    lacking = [tool for tool in copies.TOOLS if db.is_shared and shutil.which(tool) is None]
    return found + [Finding("database", "bad", "no_backup_tool", {"tool": tool}) for tool in lacking]


def _ollama(patient: Patient) -> list[Finding]:
    try:
        version = library.version(_client(patient))
    except ServingError:
        return [Finding("ollama", "bad", "ollama_away", {"host": patient.ollama_host})]
    parts = version.partition("-")[0].split(".")[:2]
    is_old = all(part.isdigit() for part in parts) and tuple(map(int, parts)) < TESTED_OLLAMA
    tested = ".".join(map(str, TESTED_OLLAMA))
    if is_old:
        return [Finding("ollama", "bad", "ollama_old", {"version": version, "tested": tested})]
    return [Finding("ollama", "well", "ollama_well", {"version": version})]


def _release(patient: Patient) -> list[Finding]:
    db = _usable(patient)
    if db is None:
        return []  # what the database lacks is told of it
    try:
        live = db.read(deployments.live)
    finally:
        db.close()
    if live is None:
        return [Finding("release", "bad", "release_none")]
    tag = live.release.tag
    try:
        is_there = tag in library.tags(_client(patient))
    except ServingError:
        return []
    return [
        Finding("release", "well" if is_there else "bad", "release_well" if is_there else "release_gone", {"tag": tag})
    ]


def _running(patient: Patient) -> list[Finding]:
    db = _usable(patient)
    if db is None:
        return []
    try:
        seen = facts.gather(db, None, patient.home, patient.at(), backups_kept=patient.backups_kept)
    finally:
        db.close()
    wrong = [each for each in judge(seen).values() if each is not None and each.code not in SEEN_ELSEWHERE]
    if wrong:
        return [Finding("running", "bad", f"condition.{each.code}", each.params) for each in wrong]
    return [Finding("running", "well", "running_well")]


def _recipe(patient: Patient) -> list[Finding]:
    db = _usable(patient)
    try:
        name = db.read(recipes.chosen, patient.recipe) if db is not None else patient.recipe or recipes.DEFAULT
        recipe = recipes.find(name)
    except (recipes.NoSuchRecipe, BadRecipe, OSError) as error:
        return [Finding("recipe", "bad", "recipe_wrong", {"problem": str(error)})]
    finally:
        if db is not None:
            db.close()
    return [Finding("recipe", "well", "recipe_well", {"name": recipe.name})]


def _tools(patient: Patient) -> list[Finding]:
    def looked_for(module: str, extra: str) -> Finding:
        params = {"package": module, "extra": extra}
        is_there = importlib.util.find_spec(module) is not None
        return Finding("tools", "well" if is_there else "note", "tool_well" if is_there else "tool_none", params)

    return [looked_for(module, extra) for module, extra in EXTRAS.items()]


def _card(patient: Patient) -> list[Finding]:
    card = patient.card()
    if card is not None:
        params = {"name": card.name, "free": card.free_bytes / 2**30, "total": card.total_bytes / 2**30}
        return [Finding("card", "well", "card_well", params)]
    if shutil.which("nvidia-smi") is not None and importlib.util.find_spec("pynvml") is None:
        return [Finding("card", "note", "card_unmeasured")]
    return [Finding("card", "note", "card_none")]


def _disk(patient: Patient) -> list[Finding]:
    disk = facts.disk(patient.home)
    params = {"free": disk.free_bytes / GIGABYTE, "total": disk.total_bytes / GIGABYTE, "home": str(patient.home)}
    there = next(each for each in (patient.home.absolute(), *patient.home.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return [Finding("disk", "bad", "home_closed", params)]
    is_low = is_low_disk(disk.free_bytes)
    return [Finding("disk", "bad" if is_low else "well", "disk_low" if is_low else "disk_well", params)]


def _clock(patient: Patient) -> list[Finding]:
    """Against the database's, and against whoever in the network answers with a date."""
    off = _off_database(patient) or _off_network(patient)
    if off is None:
        return [Finding("clock", "note", "clock_unknown")]
    seconds, whose = off
    is_off = abs(seconds) >= CLOCK_OFF_SECONDS
    params = {"seconds": round(seconds), "whose": whose}
    return [Finding("clock", "bad" if is_off else "well", "clock_off" if is_off else "clock_well", params)]


def _off_database(patient: Patient) -> tuple[float, str] | None:
    db = _usable(patient)
    if db is None or not db.is_shared:
        if db is not None:
            db.close()
        return None
    try:
        return db.read(facts.clock_off_seconds, patient.at()), "PostgreSQL"
    finally:
        db.close()


def _off_network(patient: Patient) -> tuple[float, str] | None:
    for url in (patient.telegram_url, patient.hub or HUB):
        try:
            asked = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/"
            dated = httpx.head(asked, timeout=ASKED_SECONDS).headers.get("Date")
        except httpx.HTTPError:
            continue
        if dated:
            return (patient.at() - parsedate_to_datetime(dated)).total_seconds(), urlsplit(url).hostname or ""
    return None


def _mirrors(patient: Patient) -> list[Finding]:
    """Where the 16-bit weights come from; where they lie here already, nobody needs it."""
    db = _usable(patient)
    live = None
    if db is not None:
        try:
            live = db.read(deployments.live)
        finally:
            db.close()
    weights = live.artefact.weights if live else None
    if weights and Path(weights).expanduser().exists():
        return [Finding("mirrors", "well", "weights_here", {"weights": weights})]
    hub = patient.hub or HUB
    host = urlsplit(hub).hostname or hub
    try:
        httpx.head(hub, timeout=ASKED_SECONDS)
    except httpx.HTTPError:
        return [Finding("mirrors", "bad", "hub_away", {"host": host})]
    return [Finding("mirrors", "well", "hub_well", {"host": host})]


CHECKS: Mapping[str, Check] = {
    "token": _token,
    "database": _database,
    "ollama": _ollama,
    "release": _release,
    "running": _running,
    "recipe": _recipe,
    "tools": _tools,
    "card": _card,
    "disk": _disk,
    "clock": _clock,
    "mirrors": _mirrors,
}


def _opened(patient: Patient) -> Database | None:
    """None where there is none, for connecting would make a file. Raises BadDatabaseUrl."""
    try:
        url = make_url(patient.database_url)
    except (ArgumentError, ValueError):
        return connect(patient.database_url)  # which says what is wrong with it
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return None
    return connect(patient.database_url)


def _usable(patient: Patient) -> Database | None:
    """One that holds our tables as they are today."""
    try:
        db = _opened(patient)
    except BadDatabaseUrl:
        return None
    try:
        if db is not None and is_current(db):
            return db
    except SQLAlchemyError:
        pass
    if db is not None:
        db.close()
    return None


def _client(patient: Patient) -> Ollama:
    return Ollama(patient.ollama_host, timeout_seconds=ASKED_SECONDS)


def _said(error: SQLAlchemyError) -> str:
    """The driver's first line: it names hosts and users, and no password."""
    lines: Sequence[str] = str(getattr(error, "orig", error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
