"""The graphics card that Ollama serves from, taken for as long as a run trains on it: Ollama's files leave it first.

Only where both use the same one: a run on another machine takes nothing from anybody. It does not know how answers
manage meanwhile, see `storage.gpu`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from huigan.serving import library
from huigan.serving.errors import NotRunning, ServingError
from storage import gpu, settings
from trainer.stages import Work

log = logging.getLogger(__name__)

# An answer that looked just before the run said that it has the card may be on its way there: it is looked twice.
LOOKS = 2
LOOKS_PER_PATIENCE, LOOK_SECONDS = 100, 2.0


@contextmanager
def taken(work: Work, *, on_card: bool) -> Iterator[None]:
    """Raises what `work.tell` does. Where something keeps the card although it was told to go, the run goes on: a batch
    that does not fit is halved."""
    if not (on_card and work.ollama_is_here):
        yield
        return
    setting = work.db.read(settings.get, gpu.SETTING)
    way = gpu.way(work.run.recipe, setting.value if setting else None)
    work.hold(True)
    try:
        if way != "share":
            clear(work)
        yield
    finally:
        work.hold(False)
        if way == "cpu":
            call_back(work)


def clear(work: Work) -> None:
    """Until Ollama has nothing on the card: what streams ends first."""
    until, clean = time.monotonic() + work.patience_seconds, 0
    while clean < LOOKS:
        try:
            tags = library.on_card(work.client)
            for tag in tags:
                library.unload(work.client, tag)
        except NotRunning:
            return
        except ServingError as error:
            log.warning("run %d: Ollama's files could not be taken from the card: %s", work.run.id, error)
            tags = []
        clean = 0 if tags else clean + 1
        if tags and time.monotonic() > until:
            log.warning("run %d: %s stays on the card: training may lack memory", work.run.id, ", ".join(tags))
            return
        work.tell("train", "waiting: card", 0, 0)
        if clean < LOOKS:
            time.sleep(min(LOOK_SECONDS, work.patience_seconds / LOOKS_PER_PATIENCE))


def call_back(work: Work) -> None:
    """What was loaded for the CPU stays there as long as it is used (Ollama compares no more than what a request asks
    for): unloaded, it comes back to the card with the next answer."""
    try:
        for tag in library.on_cpu(work.client):
            library.unload(work.client, tag)
    except ServingError as error:
        log.warning("run %d: answers stay on the CPU until Ollama unloads them: %s", work.run.id, error)
