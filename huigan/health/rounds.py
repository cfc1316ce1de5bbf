"""What a process does again and again beside its own work, each in a thread of its own. Knows not what."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from huigan.health.outage import Outage
from huigan.serving.errors import NotRunning

logger = logging.getLogger(__name__)

GRACE_SECONDS = 20.0  # for what is under way when the process ends; it must bear being cut off


@contextlib.contextmanager
def beside(*acts: tuple[float, Callable[[], object]]) -> Iterator[None]:
    """Each act at once, then with so many seconds between one's end and the next."""
    stop = threading.Event()
    threads = [threading.Thread(target=_again, args=(*act, stop), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        until = time.monotonic() + GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _again(seconds: float, act: Callable[[], object], stop: threading.Event) -> None:
    outage = Outage("a round", logger)
    while not stop.is_set():
        with outage:  # the edge of one round: the database may be back at the next
            try:
                act()
            except NotRunning as error:  # an Ollama that is away is told of by the watch
                logger.warning("a round waits for Ollama: %s", error)
        stop.wait(seconds)
