"""`huigan feedback`: the ratings that count."""

from __future__ import annotations

import typer

from huigan.commands.frame import AsJson, Limit, opened
from huigan.shown import show
from storage import ratings, users

app = typer.Typer(help="Feedback: what raters said.", no_args_is_help=True)


@app.command("list")
def newest(limit: Limit = 50, as_json: AsJson = False) -> None:
    """The newest ratings that count."""
    with opened() as (_, db):
        found = db.read(ratings.counting)[::-1][:limit]
        people = {each: db.read(users.get, each).name for each in {rating.user_id for rating in found}}
        columns = {
            "rating": lambda rating: rating.id,
            "answer": lambda rating: rating.answer_id,
            "by": lambda rating: people[rating.user_id],
            "thumb": lambda rating: rating.thumb,
            "reason": lambda rating: rating.reason,
            "correction": lambda rating: rating.correction,
            "when": lambda rating: rating.rated_at,
        }
        show(found, columns, as_json=as_json)
