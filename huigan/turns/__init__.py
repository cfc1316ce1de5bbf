"""What a user can do, whatever the channel: ask, stop, regenerate, rate, correct, compare. Knows no channel."""

from __future__ import annotations
