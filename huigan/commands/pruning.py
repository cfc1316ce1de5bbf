"""`huigan prune`: what old runs, bases and releases leave behind goes, on this machine's disk and in Ollama."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from huigan.commands.frame import AsJson, errors, now, opened
from huigan.operate import library
from huigan.operate.keeping import Going, Limits, Plan
from huigan.serving.client import Ollama
from huigan.settings import Settings
from huigan.shown import show

GIB = 2**30


def limits_of(chosen: Settings) -> Limits:
    logs = None if chosen.keep_logs_days is None else timedelta(days=chosen.keep_logs_days)
    budget = None if chosen.disk_budget_gib is None else int(chosen.disk_budget_gib * GIB)
    number: dict[str, int | None] = {
        "artefact": chosen.keep_releases,
        "candidate": chosen.keep_releases,
        "run": chosen.keep_runs,
        "base": chosen.keep_bases,
    }
    return Limits(number, {"log": logs}, budget)  # type: ignore[arg-type]


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what HUIGAN_KEEP_… and HUIGAN_DISK_BUDGET_GIB leave no room for. What answers, what a rollback would need,
    what awaits approval and what is tried stays whatever they say."""
    from trainer import stores

    with opened() as (chosen, db):
        here = stores.prune(db, chosen.home, limits_of(chosen), now(), dry=dry_run)
        there = library.prune(db, Ollama(chosen.ollama_host), chosen.keep_releases, now(), dry=dry_run)
        going = [*here.going, *there.going]
        columns = {
            "what": lambda one: one.thing.kind,
            "name": lambda one: one.thing.name,
            "MiB": lambda one: f"{one.thing.size_bytes / 2**20:,.1f}",
            "why": lambda one: one.why,
        }
        show(going, columns, as_json=as_json)
        errors.print(summary(going, here, dry=dry_run))


def summary(going: list[Going], here: Plan, *, dry: bool) -> str:
    freed = sum(each.thing.size_bytes for each in going) / GIB
    done = "nothing was deleted yet" if dry else "deleted, but what is in use"
    said = f"{len(going)} things, {freed:.2f} GiB: {done}."
    if here.over_bytes:
        said += f" The budget is exceeded by {here.over_bytes / GIB:.2f} GiB all the same: everything else is needed."
    return said
