"""Who may do what: what admins do, and how a chat is answered. The one place that says so to a command or a button;
what an owner alone may do is decided where it is done, in huigan.operate."""

from __future__ import annotations

from telegram import Bot, Chat, Update
from telegram.constants import ChatMemberStatus
from telegram.error import BadRequest

from bot import CHANNEL
from bot.places import ANONYMOUS_ADMIN_ID
from storage import users
from storage.db import Database
from storage.records import User

_RUN_IT = {ChatMemberStatus.OWNER, ChatMemberStatus.ADMINISTRATOR}
# Telegram's own, behind whom many people are: those who write as any group, or as any channel.
_SHARED = {str(ANONYMOUS_ADMIN_ID), "136817688", "777000"}


def is_admin(user: User | None) -> bool:
    """Whether they may do what only admins may, by the role that is in the database now."""
    return user is not None and user.is_admin and user.external_id not in _SHARED


async def may_configure(update: Update, bot: Bot, db: Database) -> bool:
    """How a chat is answered: whose a private one is, and in a group those who run it and our admins. Asks Telegram, in
    a group. Raises TelegramError where it cannot be reached."""
    chat, user, message = update.effective_chat, update.effective_user, update.effective_message
    if chat is None or user is None:
        return False
    if chat.type == Chat.PRIVATE:
        return True
    sender = message.sender_chat if message is not None and update.callback_query is None else None
    if sender is not None and sender.id == chat.id:  # an admin who writes as the group
        return True
    known = await db.aread(users.find, CHANNEL, str(user.id))
    if is_admin(known):
        return True
    try:
        return (await bot.get_chat_member(chat.id, user.id)).status in _RUN_IT
    except BadRequest:  # Telegram does not know them there
        return False
