"""`huigan data`: the data set that a run would train on, without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from huigan import disk
from huigan.commands.frame import USAGE, AsJson, RecipeName, give_up, now, opened, recipe_for
from huigan.shown import show_one
from storage import deployments

app = typer.Typer(help="Data sets that runs train on.", no_args_is_help=True)


@app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="The folder to write it to.")] = Path("dataset"),
    recipe: RecipeName = "",
    as_json: AsJson = False,
) -> None:
    """Write the data set that a run would train on now, without training; say what training on it would need."""
    from trainer import dataset, estimates
    from trainer.replay import BadReplay

    with opened() as (chosen, db):
        wanted = recipe_for(chosen, db, recipe)
        try:
            built = dataset.build(db, wanted, out, now(), disk=disk.name_of(chosen.home))
        except (BadReplay, dataset.FolderTaken, dataset.Unsettled) as error:
            give_up(str(error), USAGE)
        live = db.read(deployments.live)
        weights = live.artefact.weights if live else None
        home, endpoint = chosen.home, chosen.hf_endpoint
        fit = estimates.preflight_of(wanted, built, weights, home, endpoint=endpoint) if weights else None
        show_one({"dataset": built, "preflight": fit.to_dict() if fit else None}, as_json=as_json)
