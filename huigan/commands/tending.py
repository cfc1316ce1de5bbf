"""What every process of ours does beside its own work: looks whether all is well, and tells Prometheus and Compose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Literal

from huigan.commands.frame import now
from huigan.health import endpoint, metrics, watch
from huigan.health.rounds import beside
from huigan.health.signs import Signs
from huigan.serving.client import Ollama
from huigan.settings import Settings
from storage.db import Database
from trainer import machine

ASKED_SECONDS = 10.0
PORTS = {"bot": 0, "schedules": 1, "trainer": 2}  # from HUIGAN_HEALTH_LISTEN on

Act = tuple[float, Callable[[], object]]


@contextlib.contextmanager
def tended(
    chosen: Settings, db: Database, process: Literal["bot", "schedules", "trainer"], *acts: Act
) -> Iterator[Signs]:
    """`acts` are done beside it too: each again after so many seconds. What is yielded is to hear its beats."""
    client, signs = Ollama(chosen.ollama_host, timeout_seconds=ASKED_SECONDS), Signs()

    def look() -> None:
        watch.look(db, client, chosen.home, now(), backups_kept=chosen.backup_keep)

    with contextlib.ExitStack() as stack:
        if chosen.health_listen:
            told = metrics.registry(
                db, client, chosen.home, signs, process=process, version=version("huigan"), now=now, card=card
            )
            host, _, port = chosen.health_listen.rpartition(":")
            answers = endpoint.answering(db, signs, told, process)
            stack.enter_context(endpoint.served(host, int(port) + PORTS[process], answers))
        stack.enter_context(beside((watch.LOOK_SECONDS, look), *acts))
        yield signs


def card() -> metrics.Card | None:
    found = machine.card()
    return metrics.Card(found.name, found.total_bytes, found.free_bytes) if found else None
