"""How a run goes, in words: its state, a bar, what is left, a sparkline of the loss; at its end the verdict. Pure.

`Account` is all that is known of one run, read at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot import scorecards
from bot.status import marked, time_of
from huigan.operate import workers
from huigan.operate.canaries import BY_CANARY
from huigan.texts import text, told
from storage import artefacts, datasets, deployments, gpu, holdings, releases, run_points, runs, users
from storage.db import Session
from storage.records import Artefact, Dataset, Holding, Release, Run, RunPoint, RunState

SPARKS = "▁▂▃▄▅▆▇█"
SPARKLINE, BAR = 24, 12
ACTIVE = frozenset({RunState.QUEUED, RunState.RUNNING})


@dataclass(frozen=True)
class Account:
    run: Run
    points: Sequence[RunPoint]
    dataset: Dataset | None
    artefact: Artefact | None
    release: Release | None
    trainer_lives: bool
    decided_by: str | None  # whoever promoted or rejected it; None: nobody has, or it needed nobody
    held: Holding | None = None  # that somebody took back what it learnt
    tried_on: float | None = None  # the share that its release answers on trial, while it does

    @property
    def is_over(self) -> bool:
        return self.run.state not in ACTIVE


def account(session: Session, run_id: int, at: datetime) -> Account:
    """Raises LookupError."""
    run = runs.get(session, run_id)
    artefact = artefacts.of_run(session, run_id)
    tried = deployments.canary(session)
    return Account(
        run,
        run_points.curve(session, run_id),
        datasets.of_run(session, run_id),
        artefact,
        releases.of_artefact(session, artefact.id) if artefact else None,
        workers.is_alive(session, at),
        _decided_by(session, run),
        holdings.of_run(session, run_id),
        tried.deployment.share if tried is not None and tried.artefact.run_id == run_id else None,
    )


def progress(known: Account, locale: str, at: datetime) -> str:
    """What a card shows: as it goes, or how it ended."""
    run = known.run
    if run.state is RunState.QUEUED and run.attempt == 0:
        return queued(run, known.trainer_lives, locale)
    lines = [head(run, locale), *(_going(known, locale, at) if run.state in ACTIVE else _ended(known, locale))]
    return "\n".join(lines)


def queued(run: Run, trainer_lives: bool, locale: str) -> str:
    if run.dataset_only:
        return text(locale, "admin.dry_queued" if trainer_lives else "admin.dry_waits", run=run.id)
    return text(locale, "admin.retrain_queued" if trainer_lives else "admin.retrain_waits", run=run.id)


def whole(known: Account, locale: str, at: datetime) -> str:
    """All that /run tells: how it goes, when, on what, and what was found of it."""
    run = known.run
    lines = [head(run, locale), *(_going(known, locale, at) if run.state in ACTIVE else _ended(known, locale))]
    lines += [_times(run)]
    if known.dataset is not None and run.state is not RunState.BUILT:
        lines += scorecards.data(known.dataset.counts, locale)
    if run.state in ACTIVE:
        lines += scorecards.preflight(run.progress.get("preflight", {}), locale)
    if known.artefact is not None:
        lines += scorecards.measured(known.artefact.scorecard or {}, locale)
    return "\n".join(lines)


def line(run: Run, locale: str) -> str:
    """One of /runs."""
    params = {"run": run.id, "recipe": recipe_name(run), "state": told(locale, "state", run.state)}
    return text(locale, "admin.run_line", **params, at=time_of(run.ended_at or run.queued_at))


def head(run: Run, locale: str) -> str:
    method = run.recipe.get("method", "auto")
    words = text(locale, "admin.run_head", run=run.id, recipe=recipe_name(run), method=method)
    return f"{words} · {text(locale, 'admin.run_dry')}" if run.dataset_only else words


def recipe_name(run: Run) -> str:
    return str(run.recipe.get("name", "?"))


def bar(done: int, total: int) -> str:
    """Empty where nothing is counted."""
    if total <= 0:
        return ""
    share = min(1.0, max(0.0, done / total))
    full = round(share * BAR)
    return f"{'▰' * full}{'▱' * (BAR - full)} {share:.0%}"


def sparkline(values: Sequence[float], width: int = SPARKLINE) -> str:
    """The shape of a series, in at most `width` signs; each stands for the mean of its part."""
    parts = [values[i * len(values) // width : (i + 1) * len(values) // width] for i in range(width)]
    means = [sum(part) / len(part) for part in parts if part] if len(values) > width else list(values)
    if not means:
        return ""
    low, high = min(means), max(means)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((each - low) * scale)] for each in means)


def losses(points: Sequence[RunPoint]) -> tuple[str, list[float]]:
    """Of the method that is trained now: another's loss is another measure."""
    method = points[-1].method if points else ""
    return method, [each.measures["loss"] for each in points if each.method == method and "loss" in each.measures]


def _going(known: Account, locale: str, at: datetime) -> Iterator[str]:
    run, told_of = known.run, known.run.progress
    state = told(locale, "state", run.state)
    stage = f" · {told(locale, 'stage', run.stage)}" if run.stage and run.state is RunState.RUNNING else ""
    what = f" ({told_of['what']})" if stage and told_of.get("what") else ""
    yield f"{state}{stage}{what}"
    if run.cancel_asked_at is not None:
        yield text(locale, "admin.run_stopping")
    if run.state is RunState.RUNNING and (waits := told_of.get("waits")):
        yield told(locale, "waits", str(waits.get("code")), waits)
    if drawn := bar(told_of.get("done", 0), told_of.get("total", 0)):
        yield f"{drawn}  {told_of['done']} / {told_of['total']}"
    method, values = losses(known.points)
    if values:
        shape = sparkline(values)
        yield text(locale, "admin.run_loss", method=method, first=values[0], last=values[-1], shape=shape)
    left = gpu.seconds_left(run, "run", at)
    if left is not None and run.state is RunState.RUNNING:
        yield text(locale, "admin.run_left", minutes=max(1, round(left / 60)))


def _ended(known: Account, locale: str) -> Iterator[str]:
    run = known.run
    yield outcome(known, locale)
    if known.held is not None:
        yield marked(known.held, locale)
    if run.error:
        code = str(run.error.get("code", "internal"))
        yield told(locale, "error", code, run.error)
    if run.state is RunState.BUILT:
        yield from scorecards.data(known.dataset.counts if known.dataset else {}, locale)
        yield from scorecards.preflight(run.progress.get("preflight", {}), locale)
    if known.artefact is not None:
        yield from scorecards.reasons(known.artefact.verdict or {}, locale)


def outcome(known: Account, locale: str) -> str:
    """How it ended, and by whose decision."""
    run, number = known.run, known.release.id if known.release else None
    if run.state is RunState.AWAITING_APPROVAL and known.tried_on is not None:
        return text(locale, "admin.card_tried", release=number, share=known.tried_on)
    if run.state is RunState.AWAITING_APPROVAL:
        return text(locale, "admin.card_awaits", release=number)
    if known.decided_by == BY_CANARY:
        code = "admin.card_proven" if run.state is RunState.RELEASED else "admin.card_withdrawn"
        return text(locale, code, release=number)
    if known.decided_by is not None and run.state is RunState.RELEASED:
        return text(locale, "admin.card_promoted", release=number, name=known.decided_by)
    if known.decided_by is not None and run.state is RunState.REJECTED:
        return text(locale, "admin.card_rejected", release=number, name=known.decided_by)
    return f"{told(locale, 'state', run.state)}" + (f" · {known.release.tag}" if known.release else "")


def _times(run: Run) -> str:
    ended = f" → {time_of(run.ended_at)}" if run.ended_at else ""
    return f"{time_of(run.started_at or run.queued_at)}{ended}"


def _decided_by(session: Session, run: Run) -> str | None:
    """The name of the admin, or where the command came from."""
    decisions = [each for each in runs.events(session, run.id) if each.before is RunState.AWAITING_APPROVAL]
    by = str(decisions[-1].detail.get("by") or "") if decisions else ""
    kind, _, number = by.partition(" ")
    if kind == "user" and number.isdigit():
        return users.get(session, int(number)).name or by
    return by or None
