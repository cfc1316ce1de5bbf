"""In which language to write: what was chosen for a group, else what its reader chose, else what Telegram tells."""

from __future__ import annotations

from telegram import Chat, Update, User

from bot import CHANNEL
from huigan.texts import locale_of
from storage import chats, users
from storage.db import Database, Session


class Locales:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def of(self, update: Update) -> str:
        """The catalogue to answer this update in."""
        return await self._db.aread(_chosen, update.effective_chat, update.effective_user)


def told_by_telegram(update: Update) -> str:
    """Without the database, where that is what has failed."""
    user = update.effective_user
    return locale_of(user.language_code if user else None)


def _chosen(session: Session, chat: Chat | None, user: User | None) -> str:
    if chat is not None and chat.type != Chat.PRIVATE:
        group = chats.find(session, CHANNEL, str(chat.id))
        if group is not None and group.locale is not None:
            return locale_of(group.locale)
    known = users.find(session, CHANNEL, str(user.id)) if user else None
    chosen = known.chosen_locale if known else None
    return locale_of(chosen or (user.language_code if user else None))
