"""Telegram: updates in, messages out. Decides nothing: what a user or an operator can do is in huigan.turns and
huigan.operate."""

from __future__ import annotations

CHANNEL = "telegram"
