"""`huigan canary`: the release on trial shown, its share changed, stopped; a proposal put on trial."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from huigan.commands.frame import MAX_ID, AsJson, agreed, errors, now, opened
from huigan.operate import canaries
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.shown import show_one
from huigan.terminal import locale_of_terminal
from huigan.texts import told

app = typer.Typer(help="The release that is tried on a share before it goes live.", no_args_is_help=True)


@app.command("show")
def state(as_json: AsJson = False) -> None:
    """What is on trial, what was seen of it, and what decides."""
    with opened() as (_, db):
        found = db.read(canaries.standing, now())
        if found is None:
            agreed(Refusal("no_canary"))
            return
        tried, locale = found.tried, locale_of_terminal()
        shown: dict[str, Any] = {
            "release": tried.candidate.release,
            "share": tried.candidate.deployment.share,
            "by": tried.rules.by,
            "since": tried.trial.since_at,
            "beside": tried.live.release,
            "run": tried.run.id,
            "act": found.judgement.act,
            "found": [told(locale, "canary", each.code, each.params) for each in found.judgement.reasons],
        }
        show_one(shown, as_json=as_json)


@app.command("stop")
def stop() -> None:
    """End the trial: the live release answers everybody, and the proposal awaits approval."""
    with opened() as (_, db):
        stopped = agreed(db.write(canaries.stop, None, now()))
        errors.print(f"Release {stopped.release.id} is on trial no more. It awaits approval.")


@app.command("share")
def share(part: Annotated[float, typer.Argument(metavar="SHARE", min=0, max=1, help="From 0.01 to 0.9.")]) -> None:
    """Change how much the release on trial answers. What it has it keeps where that grows."""
    with opened() as (_, db):
        changed = agreed(db.write(canaries.set_share, part, None, now()))
        errors.print(f"Release {changed.release_id} is on trial with {changed.share:.0%} now.")


@app.command("try")
def begin(
    number: Annotated[int, typer.Argument(metavar="RELEASE", min=1, max=MAX_ID, help="A proposal's number.")],
) -> None:
    """Put a proposal on trial, as its run's recipe says. It is loaded first."""
    with opened() as (chosen, db):
        begun = agreed(canaries.begin(db, Ollama(chosen.ollama_host), number, by_user_id=None, at=now()))
        errors.print(f"Release {begun.release_id} is on trial with {begun.share:.0%}.")
