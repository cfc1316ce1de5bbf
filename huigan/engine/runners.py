"""Which files are loaded, for how long, and who may use them now. Knows runners and files, no HTTP, no prompts.

A runner belongs to a file with its load options, not to a tag. At most `max_loaded` live at once: for another, the
idle one that would end first makes room, else the one that has waited longest to end is retired once its users are
done. Requests that wait, for a load or for a slot, are bounded.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from huigan.llama.runner import LoadOptions, Runner, RunnerFailed

log = logging.getLogger(__name__)

# Ollama's "for ever" is the longest time Go can hold; expires_at shows it.
FOR_EVER = timedelta(days=365 * 292)
_END_SECONDS = 1.0
_NOTICED_SECONDS = 0.5


class Busy(Exception):
    """As many requests wait as may."""

    def __init__(self) -> None:
        super().__init__("server busy, please try again.  maximum pending requests exceeded")


@dataclass(eq=False)
class Loaded:
    """A runner from its start to its end. `tag` is the name it was last used under."""

    options: LoadOptions
    slots: asyncio.Semaphore
    keep_alive_seconds: float
    tag: str
    ready: asyncio.Future[Runner]
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    users: int = 0
    retiring: bool = False
    idle_since: datetime | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def expires_at(self) -> datetime:
        lasts = FOR_EVER if math.isinf(self.keep_alive_seconds) else timedelta(seconds=self.keep_alive_seconds)
        return (self.idle_since or datetime.now(UTC)) + min(lasts, FOR_EVER)


class Runners:
    def __init__(self, *, max_loaded: int, parallel: int, max_queue: int, keep_alive_seconds: float) -> None:
        self._max_loaded, self._parallel, self._max_queue = max_loaded, parallel, max_queue
        self._keep_alive_seconds = keep_alive_seconds
        self._table: dict[LoadOptions, Loaded] = {}
        self._loading = asyncio.Lock()
        self._waiting = 0
        self._lives: set[asyncio.Task[None]] = set()

    @property
    def parallel(self) -> int:
        return self._parallel

    def loaded(self) -> list[Loaded]:
        """The runners that can be used now, the longest-lived first."""
        usable = [each for each in self._table.values() if each.ready.done() and not each.retiring]
        return sorted(usable, key=lambda each: each.expires_at, reverse=True)

    @asynccontextmanager
    async def lease(self, options: LoadOptions, tag: str, keep_alive_seconds: float | None) -> AsyncIterator[Runner]:
        """A slot of the file's runner, loaded if need be. Raises Busy, RunnerFailed."""
        with self._queued(options, slots=1):
            loaded = await self._take(options, tag, keep_alive_seconds)
            try:
                runner = await _usable(loaded)
                await loaded.slots.acquire()
            except BaseException:
                self._give_back(loaded)
                raise
        try:
            yield runner
        except RunnerFailed:
            # A dead child is met before its end is noticed: whoever comes next must not be given it.
            with suppress(TimeoutError):
                async with asyncio.timeout(_NOTICED_SECONDS):
                    await loaded.gone.wait()
            raise
        finally:
            loaded.slots.release()
            self._give_back(loaded)

    async def preload(self, options: LoadOptions, tag: str, keep_alive_seconds: float | None) -> None:
        """Have the file loaded. Raises Busy, RunnerFailed."""
        with self._queued(options, slots=0):
            loaded = await self._take(options, tag, keep_alive_seconds)
            try:
                await _usable(loaded)
            finally:
                self._give_back(loaded)

    async def unload(self, gguf: Path) -> None:
        """Let go of a file: at once where it is idle, else when its users are done."""
        for loaded in [each for each in self._table.values() if each.options.gguf == gguf]:
            self._retire(loaded)
            if not loaded.users:
                await loaded.gone.wait()

    async def close(self) -> None:
        """End every runner, in use or not."""
        for loaded in list(self._table.values()):
            loaded.retiring = True
            self._kill(loaded)
        if self._lives:
            _, loading = await asyncio.wait(self._lives, timeout=_END_SECONDS)
            for life in loading:
                life.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    @contextmanager
    def _queued(self, options: LoadOptions, *, slots: int) -> Iterator[None]:
        """Count among the waiting whoever may have to wait."""
        loaded = self._table.get(options)
        if loaded and loaded.ready.done() and not loaded.retiring and not (slots and loaded.slots.locked()):
            yield
            return
        if self._waiting >= self._max_queue:
            raise Busy
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _take(self, options: LoadOptions, tag: str, keep_alive_seconds: float | None) -> Loaded:
        """Become a user of the file's runner, which may still be loading."""
        loaded = self._table.get(options)
        if loaded is None or loaded.retiring:
            async with self._loading:
                loaded = self._table.get(options)
                if loaded is None or loaded.retiring:
                    await self._make_room(options)
                    loaded = self._begin(options, tag)
                self._enter(loaded)
        else:
            self._enter(loaded)
        loaded.tag = tag
        if keep_alive_seconds is not None:
            loaded.keep_alive_seconds = keep_alive_seconds
        return loaded

    def _enter(self, loaded: Loaded) -> None:
        loaded.users += 1
        loaded.idle_since = None
        if loaded.timer:
            loaded.timer.cancel()

    def _give_back(self, loaded: Loaded) -> None:
        loaded.users -= 1
        if loaded.users or loaded.gone.is_set():
            return
        loaded.idle_since = datetime.now(UTC)
        if loaded.retiring or loaded.keep_alive_seconds <= 0:
            self._retire(loaded)
        elif not math.isinf(loaded.keep_alive_seconds):
            loop = asyncio.get_running_loop()
            loaded.timer = loop.call_later(loaded.keep_alive_seconds, self._retire, loaded)

    async def _make_room(self, options: LoadOptions) -> None:
        """Wait until one more may be loaded, and nothing of these options is still ending."""
        while True:
            same = self._table.get(options)
            if same is None and len(self._table) < self._max_loaded:
                return
            victim = same or self._victim(options.gguf)
            self._retire(victim)
            await victim.gone.wait()

    def _victim(self, gguf: Path) -> Loaded:
        """Rather one that is ending, then an idle one (of the same file first), then whichever would end first."""
        return min(
            self._table.values(),
            key=lambda each: (not each.retiring, each.users > 0, each.options.gguf != gguf, each.expires_at),
        )

    def _begin(self, options: LoadOptions, tag: str) -> Loaded:
        loaded = Loaded(
            options=options,
            slots=asyncio.Semaphore(self._parallel),
            keep_alive_seconds=self._keep_alive_seconds,
            tag=tag,
            ready=asyncio.get_running_loop().create_future(),
        )
        self._table[options] = loaded
        life = asyncio.create_task(self._live(loaded))
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        return loaded

    async def _live(self, loaded: Loaded) -> None:
        """Load, wait for the end however it comes, and clear the place."""
        name = loaded.options.gguf.name
        try:
            log.info("loading %s with a context of %d tokens", name, loaded.options.context_tokens)
            runner = await Runner.start(loaded.options)
            loaded.ready.set_result(runner)
            if loaded.retiring and not loaded.users:
                runner.kill()
            code = await runner.gone()
            log.log(logging.INFO if loaded.retiring else logging.WARNING, "%s ended with exit code %d", name, code)
        except (RunnerFailed, OSError) as error:
            log.warning("%s could not be loaded: %s", name, error)
            loaded.ready.set_exception(RunnerFailed(str(error)))
            loaded.ready.exception()  # nobody may be left to hear of it
        finally:
            self._leave(loaded)

    def _leave(self, loaded: Loaded) -> None:
        loaded.retiring = True
        if loaded.timer:
            loaded.timer.cancel()
        if not loaded.ready.done():
            loaded.ready.cancel()
        if self._table.get(loaded.options) is loaded:
            del self._table[loaded.options]
        loaded.gone.set()

    def _retire(self, loaded: Loaded) -> None:
        """Take no more users; end when the last is done."""
        loaded.retiring = True
        if not loaded.users:
            self._kill(loaded)

    @staticmethod
    def _kill(loaded: Loaded) -> None:
        if loaded.ready.done() and not loaded.ready.cancelled() and loaded.ready.exception() is None:
            loaded.ready.result().kill()


async def _usable(loaded: Loaded) -> Runner:
    """Wait for the load, which goes on for others when this waiter is cancelled."""
    try:
        return await asyncio.shield(loaded.ready)
    except asyncio.CancelledError:
        if loaded.ready.cancelled():
            raise RunnerFailed("the engine is shutting down") from None
        raise
