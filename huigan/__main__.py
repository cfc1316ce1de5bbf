"""`python -m huigan`: the command `huigan`, also where its script is not on the PATH."""

from __future__ import annotations

from huigan.cli import app

app()
