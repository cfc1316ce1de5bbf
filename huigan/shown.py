"""Records as a person at a terminal reads them: a table, or JSON for programs. Knows no database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from huigan.texts.printable import printable

Column = Callable[[Any], object]


def show(rows: Sequence[Any], columns: Mapping[str, Column], *, as_json: bool) -> None:
    """JSON holds the records whole; the table holds the columns."""
    if as_json:
        print_json([plain(row) for row in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(cell(read(row)) for read in columns.values()))
    Console(markup=False).print(table)


def show_one(record: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(plain(record))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in plain(record).items():
        nested = isinstance(value, (dict, list))
        table.add_row(name, cell(json.dumps(value, ensure_ascii=False, indent=1) if nested else value))
    Console(markup=False).print(table)


def print_json(value: Any) -> None:
    """To standard output and nothing else there, so that it can be piped."""
    print(printable(json.dumps(value, ensure_ascii=False, indent=1)))  # noqa: T201


def plain(value: Any) -> Any:
    """As JSON takes it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value.astimezone():%Y-%m-%d %H:%M}" if isinstance(value, datetime) else printable(str(value))
