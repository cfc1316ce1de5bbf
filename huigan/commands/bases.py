"""`huigan base`: what is served today, registered with the weights that it came from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from huigan.commands.frame import FAILED, USAGE, agreed, errors, give_up, now, opened
from huigan.operate import bases
from huigan.serving.client import Ollama

app = typer.Typer(help="Bases: what is served today, and the 16-bit weights it came from.", no_args_is_help=True)


@app.command("add")
def add(
    source: Annotated[str, typer.Argument(metavar="TAG|FILE.gguf", help="What Ollama serves now, or a GGUF file.")],
    weights: Annotated[str, typer.Option(help="The 16-bit weights it came from: a hub name, a folder or a GGUF.")],
    system: Annotated[str | None, typer.Option(help="The system message; by default the tag's own.")] = None,
    template: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file with the Go template; by default the tag's own."),
    ] = None,
    num_ctx: Annotated[int | None, typer.Option(min=128, help="Context length in tokens.")] = None,
    num_predict: Annotated[int, typer.Option(min=1, help="The longest answer in tokens.")] = 1024,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch the weights now, not when a run first needs them.")
    ] = False,
) -> None:
    """Register what is served now as a release, with the 16-bit weights it came from, and let it answer."""
    path = Path(source).expanduser()
    is_file = path.suffix == ".gguf" or path.is_file()
    if path.is_file():
        _check_header(path)
    local = Path(weights).expanduser()
    parameters: dict[str, Any] = {"num_predict": num_predict} | ({"num_ctx": num_ctx} if num_ctx else {})
    serving = bases.Serving(template.read_text(encoding="utf-8") if template else None, system, parameters)
    with opened() as (chosen, db):
        kept = str(local.resolve()) if local.exists() else weights
        with errors.status("…") as status:
            registered = agreed(
                bases.register(
                    db,
                    Ollama(chosen.ollama_host),
                    path if is_file else source,
                    kept,
                    by_user_id=None,
                    at=now(),
                    serving=serving,
                    progress=status.update,
                )
            )
        known = "" if registered.is_new else " (it was registered already)"
        errors.print(f"Release {registered.release.id} answers as {registered.release.tag}{known}")
        if fetch:
            from trainer.weights import WeightsUnavailable, local_weights

            try:
                folder = local_weights(kept, chosen.home / "weights", endpoint=chosen.hf_endpoint)
            except WeightsUnavailable as error:
                give_up(f"The release answers; its weights are not here yet: {error}", FAILED)
            errors.print(f"Weights: {folder}")


def _check_header(path: Path) -> None:
    """Before Ollama loads it. What reads headers comes with the engine and the trainer, not with the bot alone: what
    cannot be checked is not taken."""
    if importlib.util.find_spec("gguf") is None:
        give_up(f"{path} cannot be checked here: pip install 'huigan[engine]', or do this where the trainer is", USAGE)
    from huigan.llama import gguf

    try:
        gguf.read(path)
    except gguf.BadGguf as error:
        give_up(str(error), USAGE)
