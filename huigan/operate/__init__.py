"""What an operator can do: start and cancel runs, register bases, promote, reject and roll back releases.

Callable from any channel. Takes the database and Ollama's client, never a session that outlives a call; knows no words
for people: what cannot be done is a `Refusal`, a code with parameters. Every admin's act is in the audit table.
"""

from __future__ import annotations
