"""What /status tells an admin, in words: what is live, who waits, who trains, and why no run is due. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from huigan.operate import cron, workers
from huigan.texts import text, told
from storage import deployments, holdings, ratings, runs, settings, turns
from storage.db import Session
from storage.records import Holding, Run, RunState, TurnState

DECISION_KEY = "schedule_decision"  # where schedules leaves its newest one
LATE = timedelta(minutes=5)  # schedules looks every half minute
LISTED_RUNS = 3
UNDER_WAY = frozenset({RunState.QUEUED, RunState.RUNNING, RunState.AWAITING_APPROVAL})


def status(session: Session, locale: str, at: datetime) -> str:
    lines = (
        _live(session, locale),
        *on_trial(session, locale),
        _turns(session, locale),
        text(locale, "admin.status_ratings", ratings=len(ratings.counting(session)), raters=ratings.raters(session)),
        _trainer(session, locale, at),
        *schedule(session, locale, at),
        *(_run(each, locale) for each in _runs(session)),
    )
    return "\n".join(lines)


def time_of(at: datetime, zone: tzinfo = UTC) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def _live(session: Session, locale: str) -> str:
    live = deployments.live(session)
    if live is None:
        return text(locale, "admin.status_no_live")
    since = time_of(live.deployment.since_at)
    line = text(locale, "admin.status_live", release=live.release.id, tag=live.release.tag, since=since)
    mark = marked(holdings.of_release(session, live.release.id), locale)
    return f"{line} · {mark}" if mark else line


def marked(held: Holding | None, locale: str) -> str:
    """That somebody took back what it learnt; nothing where nobody did."""
    if held is None:
        return ""
    return text(locale, "admin.holds_withdrawn") if held.withdrawn_at is None else text(locale, "admin.is_withdrawn")


def on_trial(session: Session, locale: str) -> Iterator[str]:
    """Which release is tried beside the live one, if one is."""
    tried, live = deployments.canary(session), deployments.live(session)
    if tried is None or live is None:
        return
    params = {"release": tried.release.id, "tag": tried.release.tag, "share": tried.deployment.share}
    since = time_of(deployments.of_canary(session)[0].since_at)
    by_comparisons = tried.deployment.why == deployments.COMPARISONS
    code = "canary.by_comparisons" if by_comparisons else "canary.of_conversations"
    yield text(locale, code, **params, live=live.release.id, since=since)


def _turns(session: Session, locale: str) -> str:
    unclosed = turns.unclosed(session)
    streaming = sum(turn.state is TurnState.OPEN for turn in unclosed)
    return text(locale, "admin.status_turns", streaming=streaming, waiting=len(unclosed) - streaming)


def _trainer(session: Session, locale: str, at: datetime) -> str:
    seen = workers.seen(session)
    if seen is None:
        return text(locale, "admin.status_no_trainer")
    if workers.is_alive(session, at):
        return text(locale, "admin.status_trainer", worker=seen[0])
    return text(locale, "admin.status_lost_trainer", worker=seen[0], seen=time_of(seen[1]))


def schedule(session: Session, locale: str, at: datetime) -> Iterator[str]:
    """When the next run is due, and what keeps one from being queued now."""
    kept = settings.get(session, DECISION_KEY)
    if kept is None:
        yield text(locale, "schedule.never_looked")
        return
    zone = _zone(kept.value.get("zone"))
    starts_at = _time(kept.value.get("starts_at") or kept.value.get("next_at"))
    due_at = _time(kept.value.get("due_at"))
    if starts_at is None:
        yield text(locale, "schedule.no_cron")
    else:
        is_late = starts_at < at - LATE
        yield text(locale, "schedule.late" if is_late else "schedule.next", next_at=time_of(starts_at, zone))
    if due_at is not None and not kept.value["enqueue"]:
        yield text(locale, "schedule.due", due_at=time_of(due_at, zone))
    for reason in kept.value["reasons"]:
        if reason["code"] != "not_yet":  # which the first line says
            params = {
                name: time_of(_time(each) or at, zone) if name == "until" else each
                for name, each in reason["params"].items()
            }
            yield f"· {told(locale, 'schedule', reason['code'], params)}"


def _time(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None


def _zone(name: str | None) -> tzinfo:
    """UTC where schedules' own machine calls its zone by a name that is known nowhere else."""
    try:
        return cron.zone_of(name) if name else UTC
    except cron.BadZone:
        return UTC


def _runs(session: Session) -> list[Run]:
    """Newest first: the last few, and whichever is not at its end."""
    found = [*runs.newest(session, states=UNDER_WAY), *runs.newest(session, LISTED_RUNS)]
    return sorted({each.id: each for each in found}.values(), key=lambda each: -each.id)


def _run(run: Run, locale: str) -> str:
    words = text(locale, "admin.status_run", run=run.id, state=told(locale, "state", run.state))
    if run.state is RunState.RUNNING and run.stage:
        words += f" · {told(locale, 'stage', run.stage)}{_share(run.progress)}"
        if waits := run.progress.get("waits"):
            words += f" · {told(locale, 'waits', str(waits.get('code')), waits)}"
    return words


def _share(progress: Mapping[str, Any]) -> str:
    done, total = progress.get("done", 0), progress.get("total", 0)
    return f" {done / total:.0%}" if total else ""
