"""What Prometheus is told: of the whole, read from the database when asked, and of this process.

Whatever comes from the database is a gauge, of now or of the last five minutes, and every process tells the same: take
the newest or the largest, never the sum. Counting all there ever was would go down whenever somebody takes their words
back, and a counter that goes down looks like a restart. No text, name or id of a person is among the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from huigan.health import facts
from huigan.health.signs import Signs
from huigan.operate import backups, broadcasts, timetable, workers
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from storage import alerts, deployments, figures, outbox, runs, turns, updates
from storage.db import Database, Session
from storage.records import RunState, Thumb

RECENT = timedelta(minutes=5)
SHARES = (0.5, 0.9, 0.99)

Labels = Mapping[str, str]
Rows = Sequence[tuple[Labels, float]]


@dataclass(frozen=True)
class Card:
    """Of a graphics card, as its driver measures it."""

    name: str
    total_bytes: int
    free_bytes: int


def registry(
    db: Database,
    client: Ollama,
    home: Path,
    signs: Signs,
    *,
    process: str,
    version: str,
    now: Callable[[], datetime],
    card: Callable[[], Card | None] = lambda: None,
) -> CollectorRegistry:
    """All that one process tells, its own memory and files among it."""
    made = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=made)
    made.register(Of(lambda: _of_process(signs, process, version)))
    made.register(Of(lambda: _of_database(db, now())))
    made.register(Of(lambda: _of_machine(client, home, card)))
    return made


class Of(Collector):
    """Reads only when asked: registering it asks for nothing."""

    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        return self._read()


def _gauge(name: str, about: str, rows: Rows | float) -> GaugeMetricFamily:
    """`rows` by their labels, or one value without any."""
    listed: Rows = rows if isinstance(rows, Sequence) else [({}, rows)]
    made = GaugeMetricFamily(f"huigan_{name}", about, labels=list(listed[0][0]) if listed else None)
    for labels, value in listed:
        made.add_metric(list(labels.values()), value)
    return made


def _of_process(signs: Signs, process: str, version: str) -> Iterator[Metric]:
    yield InfoMetricFamily("huigan_process", "Which process this is.", {"process": process, "version": version})
    yield _gauge("quiet_seconds", "Since this process last showed a sign of life.", signs.quiet_seconds)
    throttled = CounterMetricFamily("huigan_telegram_throttled", "How often Telegram asked us to wait (429).")
    throttled.add_metric([], signs.times_throttled)
    yield throttled


def _of_machine(client: Ollama, home: Path, card: Callable[[], Card | None]) -> Iterator[Metric]:
    disk = facts.disk(home)
    yield _gauge("disk_free_bytes", "Of the disk with HUIGAN_HOME.", disk.free_bytes)
    yield _gauge("disk_total_bytes", "Of the disk with HUIGAN_HOME.", disk.total_bytes)
    try:
        loaded = library.loaded(client)
    except ServingError:
        yield _gauge("ollama_up", "Whether Ollama answers.", 0)
    else:
        yield _gauge("ollama_up", "Whether Ollama answers.", 1)
        yield _gauge("ollama_loaded_tags", "How many tags Ollama has loaded.", len(loaded))
    if (found := card()) is not None:
        labels = {"card": found.name}
        yield _gauge("gpu_memory_free_bytes", "Of the first graphics card.", [(labels, found.free_bytes)])
        yield _gauge("gpu_memory_total_bytes", "Of the first graphics card.", [(labels, found.total_bytes)])


def _of_database(db: Database, at: datetime) -> Iterator[Metric]:
    try:
        told = db.read(lambda session: [*_people(session, at), *_runs(session, at), *_health(session, at)])
    except SQLAlchemyError:
        yield _gauge("database_up", "Whether the database answers.", 0)
        return
    yield _gauge("database_up", "Whether the database answers.", 1)
    yield from told


def _people(session: Session, at: datetime) -> Iterator[Metric]:
    since = at - RECENT
    yield _gauge("turns_unclosed", "Answers in the making or waiting.", turns.count_unclosed(session))
    yield _gauge(
        "queue_oldest_seconds", "How long the first in the queue has waited.", _age(turns.waiting_since(session), at)
    )
    ended = figures.turns_ended(session, since)
    yield _gauge(
        "turns_recent",
        "Turns that ended in the last five minutes, by how and by the error's code.",
        [({"ended": how, "error": error}, times) for (how, error), times in sorted(ended.items())],
    )
    speeds = figures.speeds(session, since)
    firsts = sorted(first for first, _, _ in speeds)
    yield _gauge(
        "first_token_seconds",
        "From the request to the first token, in the last five minutes.",
        [({"quantile": str(share)}, _quantile(firsts, share)) for share in SHARES] if firsts else [],
    )
    rates = sorted(tokens / (total - first) for first, total, tokens in speeds if total > first)
    yield _gauge("answer_tokens_per_second", "Median of the last five minutes.", _quantile(rates, 0.5) if rates else [])
    thumbs = figures.thumbs_counting(session)
    yield _gauge("ratings", "Ratings that count.", [({"thumb": thumb.value}, times) for thumb, times in thumbs.items()])


def _runs(session: Session, at: datetime) -> Iterator[Metric]:
    states = figures.runs_by_state(session)
    yield _gauge("runs", "Runs by state.", [({"state": state.value}, times) for state, times in states.items()])
    running = runs.newest(session, 1, states=frozenset({RunState.RUNNING}))
    stages: Rows = [({"stage": each.stage or ""}, 1) for each in running]
    yield _gauge("run_stage", "1 for the stage of the run that is under way.", stages)
    ended = runs.newest(session, 1, states=runs.ENDED)
    ended_at = ended[0].ended_at if ended else None
    yield _gauge("run_ended_age_seconds", "Since the last run ended.", _age(ended_at, at) if ended_at else [])
    live = deployments.live(session)
    yield _gauge("live_release", "The number of the release that answers.", live.release.id if live else [])
    if live is not None:
        counted = figures.thumbs(session, [live.release.id])[live.release.id]
        both = counted[Thumb.UP] + counted[Thumb.DOWN]
        yield _gauge("live_ups_share", "The 👍 share of its ratings.", counted[Thumb.UP] / both if both else [])


def _health(session: Session, at: datetime) -> Iterator[Metric]:
    yield _gauge("outbox_unsent", "Notices not sent.", outbox.count_unsent(session, but=(broadcasts.CODE,)))
    yield _gauge("updates_unhandled", "Telegram's updates that were not handled yet.", updates.count_unhandled(session))
    yield _gauge("trainer_alive", "Whether a trainer was heard of.", float(workers.is_alive(session, at)))
    looked_at = timetable.looked_at(session)
    yield _gauge("schedules_age_seconds", "Since schedules looked.", _age(looked_at, at) if looked_at else [])
    made_at = backups.last(session).made_at
    yield _gauge("backup_age_seconds", "Since the last nightly backup.", _age(made_at, at) if made_at else [])
    yield _gauge("clock_off_seconds", "Ahead of the database's clock.", facts.clock_off_seconds(session, at))
    yield _gauge(
        "alerts",
        "1 for each thing that is wrong and was told to admins.",
        [({"code": code}, 1) for code in sorted({each.code for each in alerts.standing(session) if each.told_at})],
    )


def _age(since: datetime | None, at: datetime) -> float:
    return max(0.0, (at - since).total_seconds()) if since else 0.0


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
