"""What breaks in other people's pipelines has a test here: docs/failures.md says which, and names none that is gone."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def rows() -> dict[str, list[tuple[str, str]]]:
    """(file, test) by failure."""
    lines = (REPOSITORY / "docs/failures.md").read_text(encoding="utf-8").splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("| ")][1:]
    return {failure.strip(): re.findall(r"`([\w/.]+)::(\w+)`", held) for failure, held in cells}


def test_every_failure_that_is_told_of_is_held_by_tests_that_exist() -> None:
    told = rows()
    assert len(told) >= 20
    for failure, held in told.items():
        assert held, failure
        for file, name in held:
            assert f"def {name}(" in (REPOSITORY / file).read_text(encoding="utf-8"), (failure, file, name)
