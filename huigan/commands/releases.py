"""`huigan release`: releases listed, shown, promoted, rejected and rolled back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from huigan.commands.frame import MAX_ID, AsJson, Limit, agreed, errors, now, opened
from huigan.operate import releases, rollbacks
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.shown import show, show_one
from huigan.terminal import locale_of_terminal
from huigan.texts import told
from storage import artefacts, deployments, holdings
from storage import releases as release_rows
from storage.db import Session
from storage.records import Holding

app = typer.Typer(help="Releases: what answers, what could, what did.", no_args_is_help=True)

ReleaseNumber = Annotated[
    int, typer.Argument(metavar="RELEASE", min=1, max=MAX_ID, help="Its number, from `huigan release list`.")
]


@app.command("list")
def newest(limit: Limit = 50, as_json: AsJson = False) -> None:
    """All releases; the live one is marked."""
    with opened() as (_, db):
        live, held = db.read(deployments.live), db.read(held_by_artefact)
        columns = {
            "": lambda release: "●" if live and live.release.id == release.id else "",
            "release": lambda release: release.id,
            "tag": lambda release: release.tag,
            "since": lambda release: release.created_at,
            "taken back": lambda release: told_of(held.get(release.artefact_id)),
        }
        show(db.read(release_rows.newest, limit), columns, as_json=as_json)


@app.command("show")
def whole(number: ReleaseNumber, as_json: AsJson = False) -> None:
    """One release: how it is served, its scorecard and verdict, and when it answered."""
    with opened() as (_, db):
        try:
            release = db.read(release_rows.get, number)
        except LookupError:
            agreed(Refusal("unknown_release", {"release": number}))
        deployed = [each for each in db.read(deployments.history) if each.release_id == number]
        found: dict[str, Any] = {
            "release": release,
            "artefact": db.read(artefacts.get, release.artefact_id),
            "deployments": deployed,
        }
        found["holding"] = db.read(holdings.of_release, number)
        show_one(found, as_json=as_json)


def held_by_artefact(session: Session) -> dict[int, Holding]:
    made = {each: artefacts.of_run(session, each.run_id) for each in holdings.newest(session)}
    return {artefact.id: each for each, artefact in made.items() if artefact is not None}


def told_of(held: Holding | None) -> str:
    """Whether it holds what somebody took back."""
    return "" if held is None else "holds some" if held.withdrawn_at is None else "withdrawn"


@app.command("promote")
def promote(number: ReleaseNumber) -> None:
    """Let a release answer. It is loaded first: if that fails, the live one stays."""
    with opened() as (chosen, db):
        done = agreed(releases.promote(db, Ollama(chosen.ollama_host), number, by_user_id=None, at=now()))
        errors.print(f"Release {done.release.id} answers now.")


@app.command("reject")
def reject(number: ReleaseNumber, why: Annotated[str, typer.Option(help="For the audit table.")] = "") -> None:
    """Turn a proposed release down."""
    with opened() as (_, db):
        agreed(releases.reject(db, number, by_user_id=None, why=why, at=now()))
        errors.print(f"Release {number} is rejected.")


@app.command("rollback")
def rollback(
    to: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="A release's number; by default the one before.")
    ] = None,
) -> None:
    """Let the release that answered before answer again."""
    with opened() as (chosen, db):
        done = agreed(rollbacks.rollback(db, Ollama(chosen.ollama_host), by_user_id=None, at=now(), to=to))
        errors.print(f"Release {done.release.id} answers again.")
        for each in done.passed_over:
            errors.print(told(locale_of_terminal(), "passed_over", each.code, {"release": each.release}))
