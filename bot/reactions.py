"""Reactions to any message of an answer are ratings: added, changed, taken back.

    👍  👍 ❤ 🔥 👏 🎉 💯 🏆 👌      👎  👎 💩 🤮      the others say nothing of an answer

The newest of a person's presses and reactions counts. Taking a reaction back takes back only a rating of that thumb:
who has pressed the other since, said that. One that comes while the answer still grows counts once it stands: until
then its update stays open, so that a restart does not lose it. Counts of anonymous reactions are not asked for, and
what a chat reacts as itself is ignored: a rating without a rater can be neither changed nor consented to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from telegram import MessageReactionUpdated, ReactionType, ReactionTypeEmoji, Update, User
from telegram.error import TelegramError
from telegram.ext import BaseHandler, ContextTypes, MessageReactionHandler

from bot import CHANNEL
from bot.locales import Locales
from bot.marks import mark_private
from bot.places import speaker_of
from bot.screen import Screen
from bot.updates import reactions_like
from huigan.turns import feedback
from huigan.turns.opening import Refusal, Speaker
from storage import answers, chats, deliveries, ratings, showings, turns, updates, users
from storage.db import Database, Session
from storage.records import Answer, Rating, Thumb

logger = logging.getLogger(__name__)

_THUMBS = dict.fromkeys("👍❤🔥👏🎉💯🏆👌", Thumb.UP) | dict.fromkeys("👎💩🤮", Thumb.DOWN)
_VARIANT = "\N{VARIATION SELECTOR-16}"  # Telegram writes ❤ with and without


@dataclass(frozen=True)
class Said:
    thumb: Thumb
    is_withdrawn: bool = False


@dataclass(frozen=True)
class Changed:
    """What a reaction changed, and what they said before."""

    answer: Answer
    known: Rating | None
    rating: Rating


class Later(Enum):
    """The answer does not stand yet, or an older reaction of theirs to it is to count first."""

    LATER = "later"


def said(before: Iterable[str], after: Iterable[str]) -> Said | None:
    """What somebody says whose reactions were these emoji and are those now; None for nothing, or both at once."""
    old, new = list(before), list(after)
    added = _thumbs(each for each in new if each not in old)
    left, gone = _thumbs(new), _thumbs(old) - _thumbs(new)
    if added:
        return Said(added.pop()) if len(added) == 1 else None
    if not gone:
        return None
    return Said(left.pop()) if left else Said(gone.pop(), is_withdrawn=True) if len(gone) == 1 else None


def _thumbs(emoji: Iterable[str]) -> set[Thumb]:
    bare = (each.replace(_VARIANT, "") for each in emoji)
    return {_THUMBS[each] for each in bare if each in _THUMBS}


class Reactions:
    def __init__(self, db: Database, screen: Screen, locales: Locales, kept: set[int]) -> None:
        """`kept`: ids of updates that stay open when their handler returns."""
        self._db = db
        self._screen = screen
        self._locales = locales
        self._kept = kept
        self._early: dict[int, Update] = {}

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        kind = MessageReactionHandler.MESSAGE_REACTION_UPDATED
        return [MessageReactionHandler(self._reacted, message_reaction_types=kind)]

    async def _reacted(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        reaction = update.message_reaction
        assert reaction is not None
        if reaction.user is None or reaction.user.is_bot:
            logger.info("a reaction in update %d is ignored: it is nobody's", update.update_id)
            return
        meant = said(_emoji(reaction.old_reaction), _emoji(reaction.new_reaction))
        if meant is None:
            return
        if not await self._count(update, reaction, reaction.user, meant):
            self._kept.add(update.update_id)
            self._early[update.update_id] = update

    async def look(self) -> None:
        """Call every few seconds."""
        for update_id, update in sorted(self._early.items()):
            reaction = update.message_reaction
            assert reaction is not None
            assert reaction.user is not None
            meant = said(_emoji(reaction.old_reaction), _emoji(reaction.new_reaction))
            try:
                is_done = meant is None or await self._count(update, reaction, reaction.user, meant)
            except TelegramError as error:
                is_done = True
                logger.warning("a reaction in update %d counts and could not be marked: %s", update_id, error)
            if is_done:
                await self._db.awrite(updates.mark_handled, update_id, datetime.now(UTC))
                del self._early[update_id]
                self._kept.discard(update_id)

    async def _count(self, update: Update, reaction: MessageReactionUpdated, user: User, meant: Said) -> bool:
        """False where it is too early."""
        chat, message, who = str(reaction.chat.id), str(reaction.message_id), speaker_of(user)
        older = (update.update_id, reactions_like(reaction.chat.id, user.id, reaction.message_id))
        changed = await self._db.awrite(_rated, chat, message, who, meant, older, datetime.now(UTC))
        # In a group several may rate, and edits are dear: there the reasons come by the button.
        if isinstance(changed, Changed) and reaction.chat.id > 0:
            locale = await self._locales.of(update)
            rated = (changed.answer, changed.known, changed.rating)
            await mark_private(self._db, self._screen, reaction.chat.id, *rated, locale)
        return not isinstance(changed, Later)


def _emoji(reactions: Iterable[ReactionType]) -> list[str]:
    return [each.emoji for each in reactions if isinstance(each, ReactionTypeEmoji)]


def _rated(
    session: Session, chat: str, message: str, who: Speaker, meant: Said, older: tuple[int, str], at: datetime
) -> Changed | Later | None:
    """One transaction. None where nothing changed: the message is no answer, it is not theirs to rate, or known."""
    if _is_growing(session, chat, message) or updates.before(session, *older):
        return Later.LATER
    shown = deliveries.find(session, CHANNEL, chat, message)
    if shown is None:
        return None
    user = users.meet(session, CHANNEL, who.external_id, who.name, who.locale, at)
    known = ratings.newest(session, shown.answer_id, user.id)
    act = feedback.withdraw if meant.is_withdrawn else feedback.rate
    rating = act(session, shown.answer_id, user.id, meant.thumb, at)
    if isinstance(rating, Refusal) or rating == known:
        return None
    return Changed(answers.get(session, shown.answer_id), known, rating)


def _is_growing(session: Session, chat: str, message: str) -> bool:
    """Whether it shows, or is a part of, an answer that is not there to its end."""
    for showing in showings.unfinished(session, CHANNEL):
        turn = turns.get(session, showing.turn_id)
        held_in = chats.get(session, chats.conversation_of(session, turn.conversation_id).chat_id)
        if held_in.external_id != chat:
            continue
        answer = answers.of_turn(session, turn.id)
        parts = [each.message for each in deliveries.of_answer(session, answer.id)] if answer else []
        if message in [*(showing.message or "").split(","), *parts]:
            return True
    return False
