"""The demo's report: the run's own, with the questions before and after on top. Self-contained; knows no measuring."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from huigan.texts import text
from storage.records import Run
from trainer import report
from trainer.stages import folder_of


def write(path: Path, home: Path, run: Run, told: Any, locale: str) -> None:
    page = report.Page("huigan.demo", "demo.html.jinja", {"told": told, "say": functools.partial(text, locale)})
    path.write_text(report.render(folder_of(home, run), run, locale, page), encoding="utf-8")
