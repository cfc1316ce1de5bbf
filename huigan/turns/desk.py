"""Where turns are handed in and watched: the queue, the answering, and what a restart has to pick up.

One desk a process. A turn that was handed in is answered whether or not anybody goes on watching: its channel may
lose its connection, the answer is kept.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any

from huigan import logs
from huigan.serving.client import AsyncOllama
from huigan.turns.answering import Phase, View, answer, close_abandoned, now
from huigan.turns.opening import Refusal
from huigan.turns.queue import Queue, Ticket
from storage import gpu, turns
from storage.db import Database
from storage.records import Answer, Ended, Turn, TurnState

logger = logging.getLogger(__name__)

LOST_SECONDS = 15.0  # without a beat for so long, a turn's process is dead
CARD_SECONDS = 2.0  # between looks whether a run still has the graphics card
OLDER_TURN_SECONDS = 0.5  # how often to look whether the conversation's older turn, in another process, is closed


def worker_name() -> str:
    """Unique to this process, also after its number is used again."""
    return f"{socket.gethostname()[:24]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class Watched:
    """A turn that was handed in. `watch` shows how it looks now, each time it has changed; `stop` ends it."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.view = View(Phase.QUEUED)
        self.stopped = asyncio.Event()
        self._version = 0
        self._changed = asyncio.Event()

    def show(self, view: View) -> None:
        self.view = view
        self._version += 1
        self._changed.set()

    def stop(self) -> None:
        self.stopped.set()

    def cut_off(self) -> None:
        """Its process ends: nothing more is shown, where it has not closed by itself."""
        if self.view.phase is not Phase.CLOSED:
            self.show(View(Phase.CLOSED, text=self.view.text, ended=Ended.INTERRUPTED, error="interrupted"))

    async def watch(self) -> AsyncIterator[View]:
        """The newest view, whenever there is a newer one than the last: a slow watcher skips, and never misses the
        closing one, which ends it."""
        seen = -1
        while True:
            if seen == self._version:
                self._changed.clear()
                await self._changed.wait()
                continue
            seen, view = self._version, self.view
            yield view
            if view.phase is Phase.CLOSED:  # the one that was shown: meanwhile there may be a newer one
                return

    async def closed(self) -> View:
        async for view in self.watch():
            last = view
        return last


class Desk:
    """Answers turns, `streams` at a time. Use as an async context: leaving it ends what streams, and records it."""

    def __init__(
        self,
        db: Database,
        client: AsyncOllama,
        *,
        streams: int = 4,
        waiting: int = 64,
        lost_seconds: float = LOST_SECONDS,
    ) -> None:
        self.worker = worker_name()
        self._db = db
        self._client = client
        self._queue = Queue(streams, waiting)
        self.lost = timedelta(seconds=lost_seconds)
        self._watched: dict[int, Watched] = {}
        self._tasks: dict[asyncio.Task[None], Watched] = {}
        self._closing = False

    async def __aenter__(self) -> Desk:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def hand_in(self, turn: Turn) -> Watched:
        """Queue a waiting turn. Handed in twice, it is answered once; to a desk that closes, at the next start."""
        if turn.id in self._watched:
            return self._watched[turn.id]
        watched = Watched(turn)
        if self._closing:
            watched.cut_off()
            return watched
        self._watched[turn.id] = watched
        task = asyncio.create_task(self._run(watched), name=f"turn {turn.id}")
        self._tasks[task] = watched
        task.add_done_callback(self._left)
        return watched

    def _left(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step runs none of its code, and its watchers wait all the same."""
        watched = self._tasks.pop(task)
        self._watched.pop(watched.turn.id, None)
        watched.cut_off()

    def find(self, turn_id: int) -> Watched | None:
        """A turn that is queued or streaming here."""
        return self._watched.get(turn_id)

    async def stop(self, turn_id: int, user_id: int | None) -> Refusal | None:
        """Stop a turn of that user's, in whichever process it is."""
        watched = self._watched.get(turn_id)
        turn = watched.turn if watched else await self._db.aread(turns.find, turn_id)
        if turn is None or turn.state is TurnState.CLOSED:
            return Refusal("stale_button")
        if turn.user_id != user_id:
            return Refusal("not_yours")
        if watched is not None:
            watched.stop()
        else:
            await self._db.awrite(turns.ask_stop, turn_id, now())
        return None

    def in_conversation(self, conversation_id: int) -> list[Watched]:
        return [each for each in self._watched.values() if each.turn.conversation_id == conversation_id]

    async def recover(self) -> tuple[list[tuple[Turn, Answer | None]], list[Turn]]:
        """What a killed process left: the turns it had open, closed now and marked as interrupted, and those that
        still wait to be answered, for the channel to hand in. Call at the start and every few seconds."""
        at = now()
        # After a suspension this process' own turns look abandoned too.
        here = frozenset(self._watched)
        interrupted = await self._db.awrite(close_abandoned, at - self.lost, at, here)
        waiting = [turn for turn in await self._db.aread(turns.unclosed) if turn.state is TurnState.WAITING]
        return interrupted, [turn for turn in waiting if turn.id not in self._watched]

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Let streams finish for so long, then record what they have shown; what waits is left for the next start."""
        self._closing = True
        waiting = {task for task, watched in self._tasks.items() if watched.view.phase is Phase.QUEUED}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        streaming = {task for task in self._tasks if not task.done()}
        if streaming and grace_seconds:
            await asyncio.wait(streaming, timeout=grace_seconds)
        for task in streaming:
            task.cancel()
        await asyncio.gather(*streaming, return_exceptions=True)

    async def _run(self, watched: Watched) -> None:
        with logs.about(turn=watched.turn.id):
            await self._run_whole(watched)

    async def _run_whole(self, watched: Watched) -> None:
        try:
            watched.show(await self._answered(watched))
        except Exception:
            # The edge of one turn: what is unforeseen (a database that is gone, a bug) ends this turn and no other.
            logger.exception("turn %d failed", watched.turn.id)
            watched.show(View(Phase.CLOSED, text=watched.view.text, ended=Ended.FAILED, error="internal"))
        finally:
            self._watched.pop(watched.turn.id, None)

    async def _answered(self, watched: Watched) -> View:
        turn = watched.turn
        ticket = self._queue.join(
            turn.user_id, turn.conversation_id, lambda position: watched.show(View(Phase.QUEUED, position))
        )
        if ticket is None:
            return await self._give_up(turn, Ended.FAILED, "queue_full")

        try:
            opened = await self._opened(turn, watched, ticket)
            if opened is None:  # stopped while it waited, or another process has it
                return await self._give_up(turn, Ended.WITHDRAWN, None)
            return await answer(self._db, self._client, opened, self.worker, watched.stopped, watched.show)
        finally:
            self._queue.leave(ticket)

    async def _opened(self, turn: Turn, watched: Watched, ticket: Ticket) -> Turn | None:
        """The turn, opened once it is its turn and the conversation's older ones are closed; None if it is stopped or
        taken. The older one may come to this queue later, at a restart: its place must not be held against it."""
        while True:
            await _first_of(ticket.granted, watched.stopped)
            if watched.stopped.is_set() or not await self._card_is_free(watched):
                return None
            opened = await self._open_next(turn)
            if opened is not None:
                if opened.stop_asked_at is not None:
                    watched.stop()
                return opened
            if (await self._db.aread(turns.get, turn.id)).state is not TurnState.WAITING:
                return None
            self._queue.step_aside(ticket)
            await asyncio.sleep(OLDER_TURN_SECONDS)
            self._queue.step_back(ticket)

    async def _card_is_free(self, watched: Watched) -> bool:
        """Wait while a run has the graphics card and answers are to wait for its end; False once the turn is stopped.
        It is not open meanwhile: a restart loses nothing."""
        while (held := await self._db.aread(gpu.held, now())) is not None and held.way == "wait":
            self._tell_who_waits({"card_minutes": held.minutes_left})
            try:
                async with asyncio.timeout(CARD_SECONDS):
                    await watched.stopped.wait()
                return False
            except TimeoutError:
                continue
        if "card_minutes" in watched.view.params:
            self._tell_who_waits({})
        return True

    def _tell_who_waits(self, params: Mapping[str, Any]) -> None:
        for each in self._watched.values():
            if each.view.phase is Phase.QUEUED and each.view.params != params:
                each.show(replace(each.view, params=params))

    async def _open_next(self, turn: Turn) -> Turn | None:
        opening = asyncio.ensure_future(self._db.awrite(turns.open_next, turn.id, self.worker, now()))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A write that has begun commits: the turn would be open, and nobody's.
            if await opening is not None:
                await self._db.awrite(turns.put_back, turn.id, self.worker)
            raise

    async def _give_up(self, turn: Turn, ended: Ended, error: str | None) -> View:
        await self._db.awrite(turns.withdraw, turn.id, ended, now(), error=error)
        return View(Phase.CLOSED, ended=ended, error=error)


async def _first_of(*events: asyncio.Event) -> asyncio.Event:
    """The event that is set first; of two that are set, the earlier argument."""
    waits = {asyncio.create_task(event.wait()) for event in events}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return next(event for event in events if event.is_set())
