"""How the whole is: looked at, told to admins once, counted for Prometheus, and examined by `huigan doctor`. Sync."""

from __future__ import annotations
