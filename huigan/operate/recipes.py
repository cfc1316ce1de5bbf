"""Which recipe a run gets: the file or packaged name that an admin set, or the environment names. Reads files only."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from storage import settings
from storage.db import Session
from storage.recipe import Recipe, parse

DEFAULT = "llama3-8b-chinese-chat"
SETTING = "recipe"


class NoSuchRecipe(LookupError):
    """There is no recipe of that name, and no file there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no recipe {name!r}: name a TOML file, or one of {', '.join(packaged())}")


def find(name: str) -> Recipe:
    """A packaged recipe by its name, or any by the path of its file. Raises NoSuchRecipe and BadRecipe."""
    return parse(file_of(name).read_text(encoding="utf-8"))


def file_of(name: str) -> Path:
    """Raises NoSuchRecipe."""
    file = Path(name).expanduser()
    if file.suffix != ".toml":
        file = folder() / f"{name}.toml"
    if not file.is_file():
        raise NoSuchRecipe(name)
    return file


def chosen(session: Session, environment: str) -> str:
    """What an admin set, else what the environment names, else the production recipe."""
    setting = settings.get(session, SETTING)
    return str(setting.value) if setting is not None and setting.value else environment or DEFAULT


def packaged() -> list[str]:
    return sorted(each.stem for each in folder().glob("*.toml"))


def folder() -> Path:
    """Within the installed package, or beside it in a checkout."""
    root = Path(str(resources.files("huigan")))
    return next((each for each in (root / "recipes", root.parent / "recipes") if each.is_dir()), root / "recipes")
