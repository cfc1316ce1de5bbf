"""One turn from open to closed: assemble, stream with checkpoints, record. Knows no channel and no queue.

Whatever happens, what was shown is kept: a stream that breaks, a stop, the end of this process and, through the
checkpoints, its death. The tag is read when streaming starts, so a swap that happens while a turn waits reaches it,
and one that happens while it streams does not.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from huigan.serving import chat
from huigan.serving.client import AsyncOllama
from huigan.serving.errors import Busy, Loading, OverContext, ServingError
from huigan.turns.history import lines_for
from huigan.turns.prompts import Line, Prompt, fitted
from storage import answers, deployments, gpu, outbox, turns
from storage.db import AWAY, Database, Session
from storage.records import Answer, Ended, Live, Seen, Turn

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 1.0
RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)  # while Ollama loads or its own queue is full
RECORD_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # while the database is away
REFITS = 4
DEFAULT_CONTEXT_TOKENS = 4096  # Ollama's own default
DEFAULT_ANSWER_TOKENS = 1024
AGAIN_TEMPERATURE = 0.8  # Ollama's own default


class Phase(StrEnum):
    QUEUED = "queued"
    LOADING = "loading"  # streaming has begun and nothing has come yet
    ANSWERING = "answering"
    CLOSED = "closed"


@dataclass(frozen=True)
class View:
    """How a turn looks right now: whole, not a difference, so that a channel may skip as many as it likes."""

    phase: Phase
    position: int = 0
    text: str = ""
    thinking: str = ""
    ended: Ended | None = None
    answer: Answer | None = None
    error: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


Show = Callable[[View], None]


@dataclass
class _Draft:
    """What has come so far."""

    turn: Turn
    live: Live | None = None
    prompt: Prompt | None = None
    options: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    thinking: str = ""
    started: float = field(default_factory=time.monotonic)
    first_token_seconds: float | None = None
    metrics: chat.Metrics | None = None


def now() -> datetime:
    return datetime.now(UTC)


async def answer(db: Database, client: AsyncOllama, turn: Turn, worker: str, stop: asyncio.Event, show: Show) -> View:
    """Answer an open turn of this worker's and close it. Raises CancelledError, only after what was shown is recorded,
    and what the database raises where that cannot be recorded. Returns the last View, which `show` has seen too."""
    draft = _Draft(turn)
    show(View(Phase.LOADING))
    streaming = asyncio.create_task(_stream(db, client, draft, worker, stop, show))
    stopping = asyncio.create_task(stop.wait())
    error: ServingError | None = None
    try:
        await asyncio.wait({streaming, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if streaming.done():
            error = await streaming
            ended = _how_it_ended(draft, error)
        else:
            ended = Ended.STOPPED
    except asyncio.CancelledError:
        await _settle(streaming)
        await _close(db, draft, Ended.INTERRUPTED, "interrupted")
        raise
    finally:
        stopping.cancel()
    await _settle(streaming)
    code = "empty_answer" if ended is Ended.FAILED and error is None else error.code if error else None
    view = await _close(db, draft, ended, code, error.params if error else {})
    show(view)
    return view


async def _settle(task: asyncio.Task[Any]) -> None:
    """End the stream, and with it Ollama's generation, before its turn is closed."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _how_it_ended(draft: _Draft, error: ServingError | None) -> Ended:
    if error is not None:
        return Ended.BROKEN if draft.text.strip() else Ended.FAILED
    if not draft.text.strip():
        return Ended.FAILED
    assert draft.metrics is not None
    return Ended.LENGTH if draft.metrics.done_reason == "length" else Ended.COMPLETE


async def _stream(
    db: Database, client: AsyncOllama, draft: _Draft, worker: str, stop: asyncio.Event, show: Show
) -> ServingError | None:
    """Fill the draft from Ollama. An error is returned: what came before it counts."""
    ticking = asyncio.create_task(_checkpoint(db, draft, worker, stop))
    try:
        await _attempts(db, client, draft, show)
    except ServingError as error:
        logger.warning("turn %d ended early: %s", draft.turn.id, error.code)
        return error
    except Exception:
        # The edge of one answer: left open, its turn would hold up the conversation.
        logger.exception("turn %d failed", draft.turn.id)
        return Unforeseen()
    finally:
        ticking.cancel()
    return None


async def _attempts(db: Database, client: AsyncOllama, draft: _Draft, show: Show) -> None:
    """Ask until it is answered: again with less history where it did not fit, again later where Ollama is busy."""
    lines, chat_system = await db.aread(lines_for, draft.turn.message_id)
    scale, waits, refits = 1.0, list(RETRY_SECONDS), 0
    while True:
        turn = draft.turn
        draft.live = await db.aread(deployments.for_turn, turn.conversation_id, sampled=turn.sampled)
        if draft.live is None:
            raise NoRelease
        tag = draft.live.release.tag
        try:
            _prepare(draft, draft.live, await _seen(client, tag, lines), chat_system, scale)
            if await db.aread(gpu.held, now()) is not None:
                draft.options |= gpu.CPU_ALONE  # whoever was to wait has waited: nothing is loaded beside a training
            await _read(client, draft, tag, show)
            return
        except OverContext as error:
            assert draft.prompt is not None
            refits += 1
            if len(draft.prompt.lines) == 1 or refits > REFITS:
                raise
            scale = max(scale * 1.1, error.params["prompt_tokens"] / draft.prompt.estimated_tokens * 1.05)
        except (Loading, Busy):
            if draft.text or not waits:
                raise
            await asyncio.sleep(waits.pop(0))


class NoRelease(ServingError):
    """Nothing is served yet: register what Ollama serves with `huigan base add`."""

    code = "no_release"


class Sightless(ServingError):
    """There are images in the question and the release takes none: serve one with vision, or ask in words."""

    code = "no_vision"


class ImageLost(ServingError):
    """A file that came with the question is gone from HUIGAN_HOME: send it again."""

    code = "image_lost"


class Unforeseen(ServingError):
    """Nobody thought of this: the log has it."""

    code = "internal"


async def _seen(client: AsyncOllama, tag: str, lines: list[Line]) -> list[Line]:
    """The lines with only the images that this release can look at: it may be another than saw them first."""
    if not any(line.images for line in lines) or await chat.sees(client, tag):
        return lines
    if lines[-1].images:
        raise Sightless
    return [replace(line, images=()) for line in lines]


def budgets(live: Live) -> tuple[int, int]:
    """Tokens for the prompt, and for the answer."""
    parameters = live.artefact.parameters
    context_tokens = int(parameters.get("num_ctx", DEFAULT_CONTEXT_TOKENS))
    limit = int(parameters.get("num_predict", DEFAULT_ANSWER_TOKENS))
    answer_tokens = limit if limit > 0 else DEFAULT_ANSWER_TOKENS  # Ollama takes -1 and 0 for: no limit
    # At least half of the context is the conversation's: a long limit on answers must not erase the history.
    return context_tokens - min(answer_tokens, context_tokens // 2), answer_tokens


def _prepare(draft: _Draft, live: Live, lines: list[Line], chat_system: str | None, scale: float) -> None:
    parameters = live.artefact.parameters
    budget_tokens, answer_tokens = budgets(live)
    system = live.artefact.system if chat_system is None else chat_system
    draft.prompt = fitted(system, lines, budget_tokens, scale)
    # num_ctx and num_thread belong into the tag's parameters: given here, they reload the file.
    draft.options = {"num_predict": answer_tokens}
    # What a canary answers besides the live release is to be compared as it would be given alone.
    if draft.turn.again and not (draft.turn.sampled and live.deployment.share < 1.0):
        # Asked for another answer, a greedy release would give the same one again, and so would a fixed seed.
        draft.options["temperature"] = max(AGAIN_TEMPERATURE, float(parameters.get("temperature", AGAIN_TEMPERATURE)))
        draft.options["seed"] = draft.turn.id


async def _read(client: AsyncOllama, draft: _Draft, tag: str, show: Show) -> None:
    assert draft.prompt is not None
    messages = await asyncio.to_thread(_with_images, draft.prompt)
    async with contextlib.aclosing(chat.stream(client, tag, messages, draft.options)) as pieces:
        async for piece in pieces:
            if isinstance(piece, chat.Metrics):
                draft.metrics = piece
                continue
            if draft.first_token_seconds is None:
                draft.first_token_seconds = time.monotonic() - draft.started
            draft.text += piece.text
            draft.thinking += piece.thinking
            show(View(Phase.ANSWERING, text=draft.text, thinking=draft.thinking))


def _with_images(prompt: Prompt) -> list[dict[str, Any]]:
    """As Ollama takes them. An image of the history that is gone is left out."""
    messages: list[dict[str, Any]] = [dict(each) for each in prompt.messages]
    for message, line in zip(messages[1:], prompt.lines, strict=True):
        found = [content for content in map(_content, line.images) if content is not None]
        if len(found) < len(line.images):
            logger.warning("of message %d, %d images are gone", line.id, len(line.images) - len(found))
            if line is prompt.lines[-1]:
                raise ImageLost
        if found:
            message["images"] = [base64.b64encode(each).decode() for each in found]
    return messages


def _content(path: str) -> bytes | None:
    """None where it is gone, or on another machine that does not share HUIGAN_HOME."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


async def _checkpoint(db: Database, draft: _Draft, worker: str, stop: asyncio.Event) -> None:
    """Keep what was shown, show that this worker lives, and see whether another process was asked to stop it."""
    while True:
        await asyncio.sleep(CHECKPOINT_SECONDS)
        tag = draft.live.release.tag if draft.live else None
        try:
            kept = await db.awrite(turns.checkpoint, draft.turn.id, worker, draft.text, tag, now())
        except AWAY:
            logger.warning("turn %d could not be checkpointed: the database is away", draft.turn.id)
            continue
        except Exception:
            # Without beats the turn would be taken for abandoned: the database may be back at the next.
            logger.exception("turn %d could not be checkpointed", draft.turn.id)
            continue
        if kept is None:
            logger.warning("turn %d is no longer this worker's", draft.turn.id)
            return
        if kept.stop_asked_at is not None:
            stop.set()


async def _close(
    db: Database, draft: _Draft, ended: Ended, error: str | None, params: Mapping[str, Any] | None = None
) -> View:
    """Whole in memory, an answer waits for a database that restarts; at the end of the process there is no time to."""
    waits = [] if ended is Ended.INTERRUPTED else list(RECORD_SECONDS)
    while True:
        try:
            recorded = await db.awrite(_record, draft, ended, error, now())
            break
        except AWAY:
            if not waits:
                raise
            logger.warning("turn %d waits for the database, to be recorded", draft.turn.id)
            await asyncio.sleep(waits.pop(0))
    return View(Phase.CLOSED, 0, draft.text, draft.thinking, ended, recorded, error, params or {})


def _record(session: Session, draft: _Draft, ended: Ended, error: str | None, at: datetime) -> Answer | None:
    """The answer, if anything was shown, and the closed turn, together. None too where somebody closed it before."""
    tag = draft.live.release.tag if draft.live else None
    closed = turns.close(session, draft.turn.id, ended, at, text=draft.text, error=error, tag=tag)
    if error in {"not_running", "unknown_tag", "out_of_memory", "no_release"}:
        outbox.put(session, "serving_trouble", {"error": error}, at, key=f"serving:{error}:{at:%Y-%m-%dT%H}")
    if closed is None or not draft.text.strip() or draft.live is None or draft.prompt is None:
        return None
    live, metrics = draft.live, draft.metrics
    return answers.add(
        session,
        draft.turn,
        draft.text,
        Seen(draft.prompt.system, draft.prompt.row_ids, draft.prompt.dropped, template_digest(live), draft.options),
        ended,
        at,
        tag=live.release.tag,
        thinking=draft.thinking,
        deployment_id=live.deployment.id,
        release_id=live.release.id,
        prompt_tokens=metrics.prompt_tokens if metrics else None,
        answer_tokens=metrics.answer_tokens if metrics else None,
        first_token_seconds=draft.first_token_seconds,
        total_seconds=time.monotonic() - draft.started,
    )


def template_digest(live: Live) -> str:
    return hashlib.sha256(live.artefact.template.encode()).hexdigest()


def close_abandoned(
    session: Session, beaten_before: datetime, at: datetime, but: Collection[int] = ()
) -> list[tuple[Turn, Answer | None]]:
    """What became of turns whose process was killed: what was shown is kept as an answer, marked as interrupted.
    `but` are turns known to live."""
    lost = [turn for turn in turns.abandoned(session, beaten_before, at) if turn.id not in but]
    return [(turn, _rescue(session, turn, at)) for turn in lost]


def _rescue(session: Session, turn: Turn, at: datetime) -> Answer | None:
    lines, chat_system = lines_for(session, turn.message_id)
    live = deployments.of_tag(session, turn.tag) if turn.tag else None
    draft = _Draft(turn, live=live, text=turn.text)
    if live is not None:
        _prepare(draft, live, lines, chat_system, 1.0)
    return _record(session, draft, Ended.INTERRUPTED, "interrupted", at)
