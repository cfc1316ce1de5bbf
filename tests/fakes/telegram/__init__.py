"""A strict fake of the Telegram Bot API over HTTP; see fake.py."""

from __future__ import annotations

from . import pictures
from .calls import Call
from .clock import Clock, StoppedClock
from .fake import TOKEN, FakeTelegram
from .floods import Limits
from .people import Person
from .ptb import ptb
from .world import Chat, Draft, Message, Press

__all__ = [
    "TOKEN",
    "Call",
    "Chat",
    "Clock",
    "Draft",
    "FakeTelegram",
    "Limits",
    "Message",
    "Person",
    "Press",
    "StoppedClock",
    "pictures",
    "ptb",
]
