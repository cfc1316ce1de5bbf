"""What is wrong with a recipe: where, what, and how to put it right. Knows no keys."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Complaint:
    """One thing wrong with a recipe: where, what, and how to put it right."""

    key: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; {self.fix}"


class BadRecipe(ValueError):
    """The recipe cannot be used; `complaints` lists everything that is wrong with it, not only the first thing."""

    def __init__(self, complaints: list[Complaint]) -> None:
        super().__init__("\n".join(map(str, complaints)))
        self.complaints = tuple(complaints)
