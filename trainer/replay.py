"""General questions and answers that are mixed in against forgetting, and control questions with their keys.

Read from local files (JSON lines or TOML) or, by name, from a hub. Knows nothing of ratings. In a TOML file:

    [[replay]]                                   [[controls]]
    question = "…"                               question = "What is the capital of France?"
    answer = "…"                                 keys = ["Paris"]           # any one of them will do

A JSON line, or a row of a hub's data set, has `messages`, or `prompt` and `completion`, or `question` and `answer`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.examples import Prompt

HUB_ROWS = 20_000  # more than any run mixes in
PACKAGED = ("recipes", "huigan/recipes")  # in a checkout, in an installed wheel


class BadReplay(ValueError):
    """The recipe's [data] replay cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Control:
    """A question whose right answer no run may unlearn. Right is what holds any of the keys."""

    question: str
    keys: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        return any(key.casefold() in answer.casefold() for key in self.keys)


@dataclass(frozen=True)
class Replay:
    rows: tuple[tuple[Prompt, str], ...] = ()
    controls: tuple[Control, ...] = ()


def read(sources: Iterable[str], system: str) -> Replay:
    """`sources` as the recipe names them; a row without a system message is given `system`. Raises BadReplay."""
    found = [read_one(source, system) for source in sources]
    return Replay(
        tuple(row for each in found for row in each.rows), tuple(control for each in found for control in each.controls)
    )


def read_one(source: str, system: str) -> Replay:
    path = local_file(source)
    try:
        raw: Mapping[str, Any] = tables(path) if path is not None else {"replay": hub_rows(source)}
        rows = tuple(as_row(each, system) for each in raw.get("replay", ()))
        controls = tuple(Control(each["question"], tuple(each["keys"])) for each in raw.get("controls", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadReplay(
            f"[data] replay {source!r} cannot be read ({error!r}): see recipes/demo for one that can"
        ) from error
    return Replay(rows, controls)


def local_file(source: str) -> Path | None:
    """As given, or among the recipes that come with the program; None for a hub's name."""
    home = Path(__file__).resolve().parent.parent
    candidates = [Path(source).expanduser(), *(home / folder / source for folder in PACKAGED)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None and Path(source).suffix in (".toml", ".jsonl"):
        raise BadReplay(f"[data] replay names {source!r}, which is not there: correct the path, or leave it out")
    return found


def tables(path: Path) -> Mapping[str, Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        return tomllib.loads(text)
    return {"replay": [json.loads(line) for line in text.splitlines() if line.strip()]}


def hub_rows(name: str) -> Iterator[Mapping[str, Any]]:
    import datasets

    try:
        yield from datasets.load_dataset(name, split=f"train[:{HUB_ROWS}]")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise BadReplay(
            f"[data] replay {name!r} could not be fetched ({error}): name a local .jsonl file, or set HF_ENDPOINT"
        ) from error


def as_row(raw: Mapping[str, Any], system: str) -> tuple[Prompt, str]:
    messages = raw.get("messages") or [
        *said(raw, ("prompt", "question"), "user"),
        *said(raw, ("completion", "answer"), "assistant"),
    ]
    turns = [(str(each["role"]), str(each["content"])) for each in messages]
    if len(turns) < 2 or turns[-1][0] != "assistant" or not all(content.strip() for _, content in turns):
        raise ValueError(f"a row does not end with an assistant's answer to something: {json.dumps(raw)[:200]}")
    opened = turns if turns[0][0] == "system" else [("system", system), *turns]
    return tuple(opened[:-1]), opened[-1][1]


def said(raw: Mapping[str, Any], names: tuple[str, str], role: str) -> list[dict[str, str]]:
    value = raw[names[0] if names[0] in raw else names[1]]
    return [{"role": role, "content": value}] if isinstance(value, str) else list(value)
