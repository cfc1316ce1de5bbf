"""`huigan run`: runs queued, listed, shown, measured and cancelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from huigan.commands.frame import (
    REFUSED,
    USAGE,
    AsJson,
    Limit,
    RecipeName,
    RunNumber,
    agreed,
    errors,
    give_up,
    now,
    opened,
    recipe_for,
)
from huigan.operate import runs
from huigan.operate.refusals import Refusal
from huigan.shown import show, show_one
from huigan.terminal import locale_of_terminal
from storage import artefacts, holdings
from storage import runs as run_rows
from storage.records import Artefact

app = typer.Typer(help="Runs: from feedback to a release.", no_args_is_help=True)


@app.command("start")
def start(
    recipe: RecipeName = "", dataset_only: Annotated[bool, typer.Option(help="End with the data set.")] = False
) -> None:
    """Queue a run, as /retrain does. The trainer takes it up."""
    with opened() as (chosen, db):
        wanted = recipe_for(chosen, db, recipe)
        queued = agreed(runs.enqueue(db, wanted, why="command", by_user_id=None, at=now(), dataset_only=dataset_only))
        errors.print(f"Run {queued.run.id} is queued.")
        if not queued.trainer_lives:
            errors.print("No trainer is running: start `huigan trainer` on the training machine.", style="yellow")


@app.command("list")
def newest(limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest runs."""
    with opened() as (_, db):
        columns = {
            "run": lambda run: run.id,
            "state": lambda run: run.state,
            "stage": lambda run: run.stage,
            "recipe": lambda run: run.recipe.get("name"),
            "why": lambda run: run.why,
            "attempt": lambda run: run.attempt,
            "queued": lambda run: run.queued_at,
            "ended": lambda run: run.ended_at,
            "error": lambda run: (run.error or {}).get("code"),
        }
        show(db.read(run_rows.newest, limit), columns, as_json=as_json)


@app.command("next")
def upcoming() -> None:
    """When the next run starts by itself, and what keeps one from it now."""
    from bot.status import schedule

    with opened() as (_, db):
        for line in db.read(lambda session: [*schedule(session, locale_of_terminal() or "", now())]):
            print(line)  # noqa: T201


@app.command("show")
def whole(number: RunNumber, as_json: AsJson = False) -> None:
    """One run: its recipe as used, its moves, its scorecard and verdict."""
    with opened() as (_, db):
        try:
            run = db.read(run_rows.get, number)
        except LookupError:
            agreed(Refusal("unknown_run", {"run": number}))
        artefact = db.read(artefacts.of_run, number)
        found: dict[str, Any] = {"run": run, "events": db.read(run_rows.events, number), "artefact": artefact}
        found["holding"] = db.read(holdings.of_run, number)  # that somebody took back what it learnt
        show_one(found if as_json or artefact is None else found | in_words(artefact), as_json=as_json)


def in_words(artefact: Artefact) -> dict[str, Any]:
    """What was found of it, as the bot's cards tell it; the figures behind it are in the JSON, and in the report."""
    from bot import scorecards

    locale, card = locale_of_terminal(), artefact.scorecard or {}
    told = {
        "verdict": "\n".join(scorecards.reasons(artefact.verdict or {}, locale)),
        "measured": "\n".join(scorecards.measured(card, locale)),
        "samples": "\n\n".join(scorecards.samples(card, locale)),
    }
    return {"artefact": replace(artefact, scorecard=None, verdict=None), **told}


@app.command("quantisations")
def measured(
    number: RunNumber,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="One of them, for example Q4_K_M; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every quantisation of what a run has trained: size, perplexity, divergence, tokens a second.

    On the run's held-out answers, on this machine's CPU; a recipe's `quantisation` chooses one for the next run.
    """
    from trainer import quantisations

    if unknown := [each for each in only or () if each not in {way.name for way in quantisations.WAYS}]:
        known = ", ".join(way.name for way in quantisations.WAYS)
        give_up(f"{', '.join(unknown)} is none of {known}", USAGE)
    with opened() as (chosen, db):
        try:
            run = db.read(run_rows.get, number)
        except LookupError:
            agreed(Refusal("unknown_run", {"run": number}))
        found = []
        try:
            for each in quantisations.of_run(chosen.home, run, only or (), lambda *_: None):
                errors.print(f"{each.name}: {each.size_bytes / 2**20:,.0f} MiB, KL {each.divergence.mean:.4f}")
                found.append(each)
        except quantisations.NothingToMeasure as error:
            give_up(str(error), REFUSED)
    show(found, quantisations.COLUMNS, as_json=as_json)


@app.command("cancel")
def cancel(number: RunNumber) -> None:
    """Cancel a queued run, or ask a running one to stop."""
    with opened() as (_, db):
        cancelled = agreed(runs.cancel(db, number, by_user_id=None, at=now()))
        errors.print(f"Run {number} is {'asked to stop' if cancelled.run.ended_at is None else 'cancelled'}.")
