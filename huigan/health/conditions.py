"""What is wrong, out of what was seen, and when admins are told of it. Pure: looks at nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from storage.alerts import Alert
from storage.clocks import is_ahead, is_fresh

LEAST_FREE_BYTES = 5_000_000_000
GIGABYTE = 1_000_000_000
SCHEDULES_LATE = timedelta(minutes=2)  # it looks every half minute
ANSWERS_LATE = timedelta(minutes=15)
NOTICES_LATE = timedelta(hours=1)
BACKUP_LATE = timedelta(hours=49)
CLOCK_OFF_SECONDS = 30.0  # leases and beats are believed for sixty
FAILING_RUNS = 2  # in a row; of a single one admins are told when it ends

# How long it must last before it is told: a restart is no news.
PATIENCE: Mapping[str, timedelta] = {
    "ollama_away": timedelta(minutes=2),
    "trainer_lost": timedelta(minutes=2),
    "schedules_lost": timedelta(minutes=2),
    "clock_off": timedelta(minutes=2),
}
CALM = timedelta(minutes=5)  # it must be gone so long before it is told as mended: what comes and goes is told once
AGAIN = timedelta(days=1)
# What nobody has looked at for so long stands no more: its machine is off, or has another disk now.
FORSAKEN = timedelta(hours=1)

Telling = Literal["alert_raised", "alert_still", "alert_mended"]


@dataclass(frozen=True)
class Disk:
    name: str  # the same for all who see the same disk, on one machine or in several containers
    host: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Machine:
    name: str  # the same for all processes of a machine, also in its containers
    host: str


@dataclass(frozen=True)
class Facts:
    """What one process saw. None: it was not looked at, or there is nothing."""

    at: datetime
    machine: Machine = Machine("", "")  # whose clock it is, and whose way to Ollama
    is_clock_right: bool = True
    disk: Disk | None = None
    is_ollama_well: bool | None = None
    trainer: tuple[str, datetime] | None = None  # which was heard of last, and when; None: none, or it left in order
    is_trainer_alive: bool = False
    schedules_looked_at: datetime | None = None
    failed_runs: int = 0  # the newest ones that ended, in a row
    waiting: int = 0
    oldest_waiting_at: datetime | None = None
    is_card_held: bool = False  # a run has it: answers wait, and are told so
    unsent: int = 0
    oldest_unsent_at: datetime | None = None
    clock_off_seconds: float = 0.0
    backups_kept: int = 0  # 0: no nightly ones are wanted
    backup_made_at: datetime | None = None
    backup_failed_at: datetime | None = None


@dataclass(frozen=True)
class Condition:
    key: str
    code: str
    params: Mapping[str, Any] = field(default_factory=dict)


def judge(facts: Facts) -> dict[str, Condition | None]:
    """By key, all that was looked at: what is wrong with it, or None. Whose clock is far off judges what is its own
    machine's alone: to it all that others wrote is late, or still to come."""
    judged = _of_all(facts) if facts.is_clock_right else {}
    judged |= _of_machine("clock_off", _clock(facts), facts.machine)
    if facts.is_ollama_well is not None:
        judged |= _of_machine("ollama_away", None if facts.is_ollama_well else {}, facts.machine)
    if facts.disk is not None:
        key = f"disk_low:{facts.disk.name}"
        judged[key] = Condition(key, "disk_low", _gigabytes(facts.disk)) if is_low(facts.disk.free_bytes) else None
    return judged


def _of_all(facts: Facts) -> dict[str, Condition | None]:
    """What any machine sees alike."""
    found = {
        "trainer_lost": _trainer(facts),
        "schedules_lost": _schedules(facts),
        "runs_failing": {"runs": facts.failed_runs} if facts.failed_runs >= FAILING_RUNS else None,
        "answers_late": _answers(facts),
        "notices_late": _late({"notices": facts.unsent}, facts.oldest_unsent_at, NOTICES_LATE, facts.at),
        "backup_failed": {} if _has_no_backup(facts) else None,
    }
    return {key: None if params is None else Condition(key, key, params) for key, params in found.items()}


def _of_machine(code: str, params: dict[str, Any] | None, machine: Machine) -> dict[str, Condition | None]:
    """Another one may see nothing wrong: it neither tells nor ends this."""
    key = f"{code}:{machine.name}"
    return {key: None if params is None else Condition(key, code, {"host": machine.host, **params})}


def is_low(free_bytes: int) -> bool:
    return free_bytes < LEAST_FREE_BYTES


def step(kept: Alert | None, seen: Condition | None, at: datetime) -> tuple[Alert | None, Telling | None]:
    """What is to be kept of it now (None: nothing), and what admins are to be told."""
    if seen is None:
        return (None, None) if kept is None else _gone(_dated(kept, at), at)
    alert = Alert(seen.key, seen.code, at) if kept is None else _dated(kept, at)
    alert = replace(alert, params=dict(seen.params), gone_at=None)
    if alert.told_at is None:
        is_due = at - alert.seen_at >= PATIENCE.get(seen.code, timedelta())
        return (replace(alert, told_at=at), "alert_raised") if is_due else (alert, None)
    return (replace(alert, told_at=at), "alert_still") if at - alert.told_at >= AGAIN else (alert, None)


def _dated(kept: Alert, at: datetime) -> Alert:
    """What a clock that was ahead has dated counts from now on: else nothing were told until then."""

    def believed(then: datetime) -> datetime:
        return at if is_ahead(then, at) else then

    told_at, gone_at = (None if each is None else believed(each) for each in (kept.told_at, kept.gone_at))
    return replace(kept, seen_at=believed(kept.seen_at), told_at=told_at, gone_at=gone_at)


def _gone(kept: Alert, at: datetime) -> tuple[Alert | None, Telling | None]:
    if kept.told_at is None:
        return None, None
    gone_at = kept.gone_at or at
    return (None, "alert_mended") if at - gone_at >= CALM else (replace(kept, gone_at=gone_at), None)


def _trainer(facts: Facts) -> dict[str, Any] | None:
    if facts.trainer is None or facts.is_trainer_alive:
        return None
    return {"worker": facts.trainer[0], "seen": stamp(facts.trainer[1])}


def _schedules(facts: Facts) -> dict[str, Any] | None:
    looked_at = facts.schedules_looked_at
    if looked_at is None or is_fresh(looked_at, facts.at, SCHEDULES_LATE):
        return None
    return {"looked": stamp(looked_at)}


def _answers(facts: Facts) -> dict[str, Any] | None:
    oldest_at = None if facts.is_card_held else facts.oldest_waiting_at
    return _late({"waiting": facts.waiting}, oldest_at, ANSWERS_LATE, facts.at)


def _late(params: dict[str, Any], since_at: datetime | None, allowed: timedelta, at: datetime) -> dict[str, Any] | None:
    if since_at is None or at - since_at < allowed:
        return None
    return {**params, "minutes": round((at - since_at).total_seconds() / 60)}


def _clock(facts: Facts) -> dict[str, Any] | None:
    off = facts.clock_off_seconds
    return {"seconds": round(off)} if abs(off) >= CLOCK_OFF_SECONDS else None


def _has_no_backup(facts: Facts) -> bool:
    if not facts.backups_kept:
        return False
    made_at = facts.backup_made_at
    return facts.backup_failed_at is not None or (made_at is not None and not is_fresh(made_at, facts.at, BACKUP_LATE))


def _gigabytes(disk: Disk) -> dict[str, Any]:
    return {
        "host": disk.host,
        "free": round(disk.free_bytes / GIGABYTE, 1),
        "total": round(disk.total_bytes / GIGABYTE),
    }


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
