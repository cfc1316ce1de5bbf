"""Reactions to any message of an answer are ratings: added, changed, taken back.

    👍  👍 ❤ 🔥 👏 🎉 💯 🏆 👌      👎  👎 💩 🤮      the others say nothing of an answer

The newest of a person's presses and reactions counts. Taking a reaction back takes back only a rating of that thumb:
who has pressed the other since, said that. Counts of anonymous reactions are not asked for, and what a chat reacts as
itself is ignored: a rating without a rater can be neither changed nor consented to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session
from telegram import ReactionType, ReactionTypeEmoji, Update
from telegram.ext import BaseHandler, ContextTypes, MessageReactionHandler

from bot import CHANNEL
from bot.locales import Locales
from bot.marks import marked
from bot.places import speaker_of
from bot.screen import Screen
from huigan.turns import feedback
from huigan.turns.opening import Refusal, Speaker
from storage import answers, deliveries, ratings, showings, users
from storage.db import Database
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
    """What a reaction changed, and the message under which the answer's buttons are, if it is there yet."""

    answer: Answer
    rating: Rating
    message: str | None


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
    def __init__(self, db: Database, screen: Screen, locales: Locales) -> None:
        self._db = db
        self._screen = screen
        self._locales = locales

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
        chat, message = str(reaction.chat.id), str(reaction.message_id)
        who, at = speaker_of(reaction.user), datetime.now(UTC)
        changed = await self._db.awrite(_rated, chat, message, who, meant, at)
        # In a group several may rate, and edits are dear: there the reasons come by the button.
        if changed is not None and changed.message is not None and reaction.chat.id > 0:
            keyboard = marked(changed.answer, changed.rating, await self._locales.of(update))
            await self._screen.mark(reaction.chat.id, int(changed.message), keyboard, None)


def _emoji(reactions: Iterable[ReactionType]) -> list[str]:
    return [each.emoji for each in reactions if isinstance(each, ReactionTypeEmoji)]


def _rated(session: Session, chat: str, message: str, who: Speaker, meant: Said, at: datetime) -> Changed | None:
    """One transaction. None where nothing changed: the message is no answer, it is not theirs to rate, or known."""
    shown = deliveries.find(session, CHANNEL, chat, message)
    if shown is None:
        return None
    user = users.meet(session, CHANNEL, who.external_id, who.name, who.locale, at)
    known = ratings.newest(session, shown.answer_id, user.id)
    act = feedback.withdraw if meant.is_withdrawn else feedback.rate
    rating = act(session, shown.answer_id, user.id, meant.thumb, at)
    if isinstance(rating, Refusal) or rating == known:
        return None
    answer = answers.get(session, shown.answer_id)
    showing = showings.find(session, answer.turn_id)
    parts = deliveries.of_answer(session, answer.id)
    is_whole = showing is not None and showing.finished_at is not None
    return Changed(answer, rating, parts[-1].message if is_whole else None)
