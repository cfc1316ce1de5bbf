"""`huigan settings`: what admins may set, shown with its origin, set and taken back."""

from __future__ import annotations

from typing import Annotated

import typer

from huigan.commands.frame import AsJson, agreed, errors, now, opened
from huigan.operate import settable
from huigan.shown import show

app = typer.Typer(help="Settings: what an admin says beats the environment, that the recipe.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name, from `huigan settings list`.")]


@app.command("list")
def every(as_json: AsJson = False) -> None:
    """What holds of each, and whose word it is. Of environment and recipe: as the processes that go by them told."""
    with opened() as (_, db):
        columns = {
            "setting": lambda held: held.name,
            "value": lambda held: "off" if held.value in (None, "") else held.value,
            "origin": lambda held: held.origin,
            "beats": lambda held: ", ".join(f"{origin}: {value}" for origin, value in held.beaten.items()),
            "set": lambda held: held.set_at,
        }
        show(db.read(settable.every), columns, as_json=as_json)


@app.command("set")
def choose(
    name: Name, value: Annotated[str, typer.Argument(metavar="VALUE", help="`off` where that makes sense.")]
) -> None:
    """Set one, as /settings does. It counts within half a minute."""
    with opened() as (_, db):
        held = agreed(db.write(settable.choose, name, value, None, now()))
        errors.print(f"{held.name} is {held.value} now.")


@app.command("unset")
def take_back(name: Name) -> None:
    """Take an admin's word back: what the environment, the recipe or the program says holds again."""
    with opened() as (_, db):
        held = agreed(db.write(settable.take_back, name, None, now()))
        errors.print(f"{held.name} is {held.value} again, by the {held.origin}.")
