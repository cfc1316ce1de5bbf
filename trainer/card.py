"""The graphics card, taken for as long as a run trains on it: waited for where others hold its memory, cleared of
Ollama's files where Ollama serves from the same one, and given back.

A run on another machine takes nothing from Ollama. How answers manage meanwhile, `storage.gpu` knows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import OperationalError

from huigan.operate import settable
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import NotRunning, ServingError
from storage import deployments, gpu, settings
from storage.db import Database, Session
from trainer.stages import GIB, Work

log = logging.getLogger(__name__)

# An answer that looked just before the run said that it has the card may be on its way there: it is looked twice.
LOOKS = 2
LOOKS_PER_PATIENCE, LOOK_SECONDS = 100, 2.0
# A driver and a desktop keep some for good, and the estimate is on the safe side: more is not waited for.
MOST_SHARE = 0.9


@dataclass(frozen=True)
class Terms:
    """How a run shares the card: what answers do meanwhile, and what may be done for memory that lacks."""

    way: gpu.WhileTraining
    unload_idle: bool
    wait_seconds: float


@contextmanager
def taken(work: Work, *, on_card: bool, needed_bytes: int = 0) -> Iterator[None]:
    """Raises what `work.tell` does. Where something keeps the card although it was told to go, or memory stays short,
    the run goes on in the end: a batch that does not fit is halved."""
    if not on_card:
        yield
        return
    terms = work.db.read(terms_of, work)
    # Before the card is said to be taken: answers need not wait for what somebody else holds.
    wait_for_memory(work, terms, needed_bytes)
    if not work.ollama_is_here:
        yield
        return
    work.hold(True)
    try:
        if terms.way != "share":
            gone = clear(work, lambda: library.on_card(work.client))
        elif terms.unload_idle and lacking_bytes(work, needed_bytes):
            gone = clear(work, lambda: idle(work))
        else:
            gone = frozenset()
        yield
    finally:
        try:
            work.hold(False)  # which may hear that the run is to end
        finally:
            if terms.way == "cpu":
                call_back(work)
    give_back(work, gone)
    work.note(gpu.OWED, {})


def terms_of(session: Session, work: Work) -> Terms:
    setting = settings.get(session, gpu.SETTING)
    said = {"unload_idle": work.unload_idle, "card_wait_minutes": work.card_wait_minutes}
    environment = {name: value for name, value in said.items() if value is not None}
    found = settable.values(session, said, {"environment": environment})
    way = gpu.way(work.run.recipe, setting.value if setting else None)
    return Terms(way, found["unload_idle"], 60 * found["card_wait_minutes"])


def wait_for_memory(work: Work, terms: Terms, needed_bytes: int) -> None:
    """Until there is enough, counting what Ollama will leave; at most as long as an admin or the environment says."""
    until, waited = time.monotonic() + terms.wait_seconds, False
    while lacks := lacking_bytes(work, needed_bytes, leaving_bytes(work, terms)):
        if time.monotonic() >= until:
            log.warning("run %d: the card lacks %.1f GiB still: training may run out of it", work.run.id, lacks / GIB)
            break
        waited = True
        work.note("waits", {"code": "card_memory", "lacks_gib": f"{lacks / GIB:.1f}"})
        work.tell("train", "", 0, 0)
        time.sleep(pause_seconds(work))
    if waited:
        work.note("waits", {})


def lacking_bytes(work: Work, needed_bytes: int, leaving: int = 0) -> int:
    """0 also where nobody can measure it."""
    card = work.measure_card()
    if card is None or not needed_bytes:
        return 0
    return max(0, min(needed_bytes, int(MOST_SHARE * card.total_bytes)) - card.free_bytes - leaving)


def leaving_bytes(work: Work, terms: Terms) -> int:
    """What Ollama holds on the card and will leave to the run."""
    if not work.ollama_is_here or (terms.way == "share" and not terms.unload_idle):
        return 0
    try:
        held = library.card_bytes(work.client)
        staying = [] if terms.way != "share" else [tag for tag in held if tag not in idle(work)]
    except ServingError:
        return 0
    return sum(held.values()) - sum(held[tag] for tag in staying)


def idle(work: Work) -> list[str]:
    """What is on the card and answers nobody: all but the live release. One that is asked all the same ends its answer
    before it leaves, and is loaded again."""
    live = work.db.read(deployments.live)
    return [tag for tag in library.on_card(work.client) if live is None or tag != live.release.tag]


def clear(work: Work, leaving: Callable[[], list[str]]) -> frozenset[str]:
    """Until Ollama has nothing of that on the card: what streams ends first. Which tags left."""
    until, clean, gone = time.monotonic() + work.patience_seconds, 0, frozenset[str]()
    while clean < LOOKS:
        try:
            tags = leaving()
            for tag in tags:
                library.unload(work.client, tag)
        except NotRunning:
            break
        except ServingError as error:
            log.warning("run %d: Ollama's files could not be taken from the card: %s", work.run.id, error)
            tags = []
        gone |= frozenset(tags)
        clean = 0 if tags else clean + 1
        if tags and time.monotonic() > until:
            log.warning("run %d: %s stays on the card: training may lack memory", work.run.id, ", ".join(tags))
            break
        work.note("waits", {"code": "card_leaves"} if tags else {})
        work.tell("train", "", 0, 0)
        if clean < LOOKS:
            time.sleep(pause_seconds(work))
    work.note("waits", {})
    return gone


def pause_seconds(work: Work) -> float:
    return min(LOOK_SECONDS, work.patience_seconds / LOOKS_PER_PATIENCE)


def call_back(work: Work) -> None:
    """What was loaded for the CPU stays there as long as it is used (Ollama compares no more than what a request asks
    for): unloaded, it comes back to the card with the next answer."""
    try:
        for tag in library.on_cpu(work.client):
            library.unload(work.client, tag)
    except ServingError as error:
        log.warning("run %d: answers stay on the CPU until Ollama unloads them: %s", work.run.id, error)


def give_back(work: Work, gone: frozenset[str]) -> None:
    """Load what answers again, if it left for the run: else the first answer would wait for it."""
    try:
        live = work.db.read(deployments.live)
        if live is not None and live.release.tag in gone:
            library.warm(work.client, live.release.tag)
    except (ServingError, OperationalError) as error:
        log.warning("run %d: the live release is loaded by its next answer: %s", work.run.id, type(error).__name__)


def give_back_late(db: Database, client: Ollama, at: datetime) -> None:
    """After a run whose process was killed while it had the card: answers go on from the card again. Raises
    ServingError; then it is tried at the next look."""
    left = db.read(gpu.left)
    if not left or db.read(gpu.held, at) is not None:
        return
    for tag in library.on_cpu(client):
        library.unload(client, tag)
    live = db.read(deployments.live)
    if live is not None and live.release.tag not in library.loaded(client):
        library.warm(client, live.release.tag)
    for run in left:
        db.write(gpu.mark_given_back, run)
        log.warning("run %d was killed while it had the card: it is given back", run.id)
