"""The nouns of Huigan, their tables, and the functions on them. Knows nothing of Telegram, Ollama or training.

Every function is `fn(session, …) → record`: it neither commits nor waits, and no ORM object leaves the room.
Callers go through the doors of `storage.db`.
"""

from __future__ import annotations
