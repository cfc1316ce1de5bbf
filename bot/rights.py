"""Who may set how a chat is answered: in a private chat whose it is, in a group those who run it and our admins."""

from __future__ import annotations

from telegram import Bot, Chat, Update
from telegram.constants import ChatMemberStatus
from telegram.error import BadRequest

from bot import CHANNEL
from storage import users
from storage.db import Database

_RUN_IT = {ChatMemberStatus.OWNER, ChatMemberStatus.ADMINISTRATOR}


async def may_configure(update: Update, bot: Bot, db: Database) -> bool:
    """Asks Telegram, in a group. Raises TelegramError where it cannot be reached."""
    chat, user, message = update.effective_chat, update.effective_user, update.effective_message
    if chat is None or user is None:
        return False
    if chat.type == Chat.PRIVATE:
        return True
    sender = message.sender_chat if message is not None and update.callback_query is None else None
    if sender is not None and sender.id == chat.id:  # an admin who writes as the group
        return True
    known = await db.aread(users.find, CHANNEL, str(user.id))
    if known is not None and known.is_admin:
        return True
    try:
        return (await bot.get_chat_member(chat.id, user.id)).status in _RUN_IT
    except BadRequest:  # Telegram does not know them there
        return False
