"""A turn on the screen, from its first sign of life to the last part of its answer, across restarts.

The message that shows it is known to the database before its first word is, each part of the answer once Telegram took
it, also while the rest still grows: whoever picks a turn up after a kill goes on where it stood. The one window is a
part beyond the first, taken by Telegram in the instant before a kill (where the answer grew in a draft, the first part
too): it is sent again, since one too many is better than one too few.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime

from telegram.error import TelegramError

from bot import CHANNEL, keyboards
from bot.growing import Growing, formatted
from bot.places import Spot, message_id_in
from bot.render import Piece, clipped, pieces, plain
from bot.screen import Keyboard, Screen, is_passing
from bot.standing import Standing, folded, standing
from huigan.texts import locale_of, text, told
from huigan.turns import feedback, sampling
from huigan.turns.desk import Desk, Watched
from huigan.turns.history import begins_to_forget
from storage import answers, chats, deliveries, messages, showings, turns, users
from storage.db import Database, Session
from storage.records import Answer, ChatKind, Ended, OfferedFor, Turn, TurnState

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 10.0  # for what has ended and is not on the screen yet, when the process is told to end
OLDEST_SECONDS = 60.0  # an answer waits so long for those that were asked before it
OLDER_SECONDS = 0.1  # between looks whether what was asked before is on the screen
COMPARED_UNITS = 1700  # of each answer in a comparison; both stand in full above it


@dataclass(frozen=True)
class Shown:
    """A turn as the database knows it."""

    turn: Turn
    answer: Answer | None
    spot: Spot
    locale: str
    standing: Standing  # what shows it so far
    delivered: tuple[str, ...]  # messages that hold parts of its answer, in order
    is_finished: bool
    begins_to_forget: bool


class Shows:
    def __init__(self, db: Database, desk: Desk, screen: Screen, rng: random.Random) -> None:
        self._db = db
        self._desk = desk
        self._screen = screen
        self._rng = rng
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, turn: Turn) -> None:
        """Hand a waiting turn in and show it. Started twice, it is shown once."""
        if turn.id not in self._tasks:
            task = self._tasks[turn.id] = asyncio.create_task(self._show(turn), name=f"show turn {turn.id}")
            task.add_done_callback(lambda _: self._tasks.pop(turn.id, None))

    async def recover(self) -> None:
        """Pick up what a killed process left. Call at the start and every few seconds."""
        await self._desk.recover()
        worker = self._desk.worker
        await self._db.awrite(showings.beat, worker, datetime.now(UTC))
        for turn in await self._db.aread(_unfinished, worker, self._lost(), datetime.now(UTC)):
            if turn.state is not TurnState.OPEN:
                self.start(turn)

    async def close(self, grace_seconds: float) -> None:
        """Let streams finish for so long, end them, and let their last words reach the screen."""
        await self._desk.close(grace_seconds)
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lost(self) -> datetime | None:
        """Other processes that have not beaten since are dead; None where there can be no other."""
        return datetime.now(UTC) - self._desk.lost if self._db.is_shared else None

    async def _show(self, turn: Turn) -> None:
        try:
            if not await self._db.awrite(showings.claim, turn.id, self._desk.worker, self._lost(), datetime.now(UTC)):
                return
            if turn.state is TurnState.WAITING:
                await self._stream(self._desk.hand_in(turn))
            await self._conclude(turn.id)
        except TelegramError as error:
            if is_passing(error):
                logger.warning("turn %d is not shown to its end yet: %s", turn.id, error)
                return
            logger.warning("turn %d can be shown no longer: %s", turn.id, error)
            await self._db.awrite(showings.finish, turn.id, datetime.now(UTC))
        except Exception:
            # The edge of one showing: the answer is in the database, and `recover` tries again.
            logger.exception("turn %d could not be shown", turn.id)

    async def _stream(self, watched: Watched) -> None:
        turn_id = watched.turn.id
        shown = await self._db.aread(_shown, turn_id)

        async def keep(now: Standing, words: str) -> None:
            await self._db.awrite(_kept, turn_id, str(now), words)

        growing = Growing(self._screen, shown.spot, shown.locale, turn_id, shown.standing, keep)
        await growing.follow(watched, lambda: self._older_are_shown(turn_id))

    async def _older_are_shown(self, turn_id: int) -> None:
        """Not for ever: one that can never be shown must not silence those after it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OLDEST_SECONDS):
                while True:
                    if not await self._db.aread(showings.is_preceded, turn_id):
                        return
                    await asyncio.sleep(OLDER_SECONDS)

    async def _conclude(self, turn_id: int) -> None:
        """Show how it ended. Nothing where it has not: another process has it, or it waits for the next start."""
        shown = await self._db.aread(_shown, turn_id)
        if shown.is_finished or shown.turn.state is not TurnState.CLOSED:
            return
        parts, keyboard = _last_words(shown), _last_keyboard(shown)
        stands = shown.standing
        delivered = list(shown.delivered)
        if shown.answer is not None and len(delivered) < len(stands.done):
            await self._as_they_end(shown, parts)
            delivered = [str(each) for each in stands.done]
            await self._deliver(shown.answer, shown.spot, delivered)
        if stands == Standing() and not delivered:
            await self._older_are_shown(turn_id)
        grows_in = len(stands.done) if shown.answer is not None else 0
        for number, part in enumerate(parts[len(delivered) :], start=len(delivered)):
            under = keyboard if part is parts[-1] else None
            if number == grows_in and stands.growing is not None:
                message_id = await self._screen.edit(shown.spot, stands.growing, part, under)
            else:
                message_id = await self._screen.send(shown.spot, part, under)
            delivered.append(str(message_id))
            if shown.answer is not None:
                await self._deliver(shown.answer, shown.spot, delivered)
        await self._db.awrite(showings.finish, turn_id, datetime.now(UTC))
        if shown.turn.again and shown.answer is not None:
            await self._offer_comparison(shown)
        elif shown.answer is not None:
            sampled = await self._db.awrite(_sampled, turn_id, self._rng, datetime.now(UTC))
            if sampled is not None:
                self.start(sampled)

    async def _as_they_end(self, shown: Shown, parts: list[Piece]) -> None:
        """What was shown for good while the rest grew is so in the end, but where something unforeseen came: thinking
        after the answer had begun, or a text that the library cannot format."""
        if shown.answer is not None and bool(shown.answer.thinking.strip()) == bool(shown.standing.thought_units):
            for message_id, part in zip(shown.standing.done, parts, strict=False):
                await self._screen.correct(shown.spot, message_id, part)

    async def _deliver(self, answer: Answer, spot: Spot, messages: list[str]) -> None:
        await self._db.awrite(deliveries.add, answer.id, CHANNEL, str(spot.chat_id), messages, datetime.now(UTC))

    async def _offer_comparison(self, shown: Shown) -> None:
        why = OfferedFor.SAMPLED if shown.turn.sampled else OfferedFor.AGAIN
        pair = await self._db.awrite(feedback.offer, shown.turn.message_id, why, self._rng, datetime.now(UTC))
        if pair is None:
            return
        left, right = pair
        words = "\n\n".join(
            (
                f"{text(shown.locale, 'comparison.left_title')}\n{clipped(left.text, COMPARED_UNITS)}",
                f"{text(shown.locale, 'comparison.right_title')}\n{clipped(right.text, COMPARED_UNITS)}",
                text(shown.locale, "comparison.ask_sampled" if shown.turn.sampled else "comparison.ask"),
            )
        )
        await self._screen.say(shown.spot, words, keyboards.which_is_better(left.id, right.id, shown.locale))


def _last_words(shown: Shown) -> list[Piece]:
    note = _note(shown)
    if shown.answer is None:
        return plain(note)
    answer = shown.answer
    # What was thought is lost in a kill: the room that it has taken is kept, and what stands there is not shown again.
    thought = folded(shown.locale, answer.thinking) or "…" * shown.standing.thought_units
    return formatted(lambda: pieces(answer.text, note, thought), lambda: plain(f"{answer.text}\n\n{note}"))


def _note(shown: Shown) -> str:
    notes = [_how_it_ended(shown.turn, shown.locale)]
    if shown.answer is not None and shown.begins_to_forget:
        notes.append(text(shown.locale, "ended.forgot", dropped=shown.answer.seen.dropped))
    return "\n".join(filter(None, notes))


def _how_it_ended(turn: Turn, locale: str) -> str:
    if turn.ended is Ended.LENGTH:
        return text(locale, "ended.length")
    if turn.ended in {Ended.STOPPED, Ended.WITHDRAWN}:
        return text(locale, "ended.stopped")
    return told(locale, "error", turn.error) if turn.error else ""


def _last_keyboard(shown: Shown) -> Keyboard:
    if shown.answer is None:
        return keyboards.retry(shown.turn.message_id, shown.locale)
    retry_message_id = shown.turn.message_id if can_retry(shown.answer) else None
    return keyboards.under_answer(shown.answer.id, shown.locale, retry_message_id=retry_message_id)


def can_retry(answer: Answer) -> bool:
    """A part of an answer has Retry in place of 🔁: another whole one is not to be compared with it."""
    return answer.ended in {Ended.BROKEN, Ended.INTERRUPTED}


def _sampled(session: Session, turn_id: int, rng: random.Random, at: datetime) -> Turn | None:
    turn = sampling.second_answer(session, turn_id, rng, at)
    if turn is not None:
        showings.begin(session, turn.id, CHANNEL, at)
    return turn


def _kept(session: Session, turn_id: int, standing: str, words: str) -> None:
    if words:
        turns.keep(session, turn_id, words)
    showings.place(session, turn_id, standing)


def _unfinished(session: Session, worker: str, beaten_before: datetime | None, at: datetime) -> list[Turn]:
    left = showings.unfinished(session, CHANNEL, worker, beaten_before, at)
    return [turns.get(session, each.turn_id) for each in left]


def _shown(session: Session, turn_id: int) -> Shown:
    turn = turns.get(session, turn_id)
    showing = showings.find(session, turn_id)
    assert showing is not None
    answer = answers.of_turn(session, turn_id)
    conversation = chats.conversation_of(session, turn.conversation_id)
    chat = chats.get(session, conversation.chat_id)
    question = message_id_in(messages.get(session, turn.message_id).source)
    return Shown(
        turn,
        answer,
        Spot(
            int(chat.external_id),
            int(conversation.thread) if conversation.thread else None,
            question if chat.kind is ChatKind.GROUP else None,
        ),
        locale_of(chat.locale or users.get(session, turn.user_id).reads),
        standing(showing.message),
        tuple(each.message for each in deliveries.of_answer(session, answer.id)) if answer else (),
        showing.finished_at is not None,
        answer is not None and begins_to_forget(session, answer),
    )
