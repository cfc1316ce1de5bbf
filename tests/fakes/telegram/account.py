"""The Bot API methods about the bot itself: who it is, its commands, its webhook, chats. Polling for updates is in
wire.py, since it waits. Knows nothing of HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .calls import Params
from .methods import find_chat, method, writable_chat
from .refusals import bad_request, forbidden
from .world import JSON

if TYPE_CHECKING:
    from .fake import FakeTelegram

MAX_COMMANDS = 100
WEBHOOK_PORTS = (80, 88, 443, 8443)
_SCOPES = {
    "default": (), "all_private_chats": (), "all_group_chats": (), "all_chat_administrators": (),
    "chat": ("chat_id",), "chat_administrators": ("chat_id",), "chat_member": ("chat_id", "user_id"),
}  # fmt: skip


@method("getMe")
def get_me(fake: FakeTelegram, p: Params) -> object:
    can = {"can_join_groups": True, "can_read_all_group_messages": False, "supports_inline_queries": False}
    return fake.bot | can


@method("logOut", "close", "setMyName", "setMyDescription", "setMyShortDescription", "setChatMenuButton")
def accept(fake: FakeTelegram, p: Params) -> object:
    """Recorded, without an effect that our tests could see."""
    return True


# Commands


@method("setMyCommands")
def set_my_commands(fake: FakeTelegram, p: Params) -> object:
    decoded = p.decoded("commands", "commands")
    if not isinstance(decoded, list):
        raise bad_request("expected an Array of BotCommand")
    if len(decoded) > MAX_COMMANDS:
        raise bad_request("too many bot commands specified")
    fake.commands[_commands_key(fake, p)] = [_command(each) for each in decoded]
    return True


@method("getMyCommands")
def get_my_commands(fake: FakeTelegram, p: Params) -> object:
    return fake.commands.get(_commands_key(fake, p), [])


@method("deleteMyCommands")
def delete_my_commands(fake: FakeTelegram, p: Params) -> object:
    fake.commands.pop(_commands_key(fake, p), None)
    return True


def _command(decoded: object) -> JSON:
    if not isinstance(decoded, dict):
        raise bad_request("can't parse BotCommand: expected an Object")
    for field in ("command", "description"):
        if not isinstance(decoded.get(field), str):
            raise bad_request(f"can't parse BotCommand: Can't find field \"{field}\"")
    name, description = decoded["command"].strip().removeprefix("/"), decoded["description"].strip()
    if not name:
        raise bad_request("command must be non-empty")
    if len(name) > 32:
        raise bad_request("command length must not exceed 32")
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise bad_request("BOT_COMMAND_INVALID")
    if not description:
        raise bad_request("command description must be non-empty")
    if len(description) > 256:
        raise bad_request("command description length must not exceed 256")
    return {"command": name, "description": description}


def _commands_key(fake: FakeTelegram, p: Params) -> tuple[str, int, str]:
    """Scope, chat and language."""
    scope = p.decoded("scope", "BotCommandScope") or {"type": "default"}
    kind = scope.get("type") if isinstance(scope, dict) else None
    if kind not in _SCOPES:
        raise bad_request("can't parse BotCommandScope: Unsupported type specified")
    if missing := [field for field in _SCOPES[kind] if field not in scope]:
        raise bad_request(f"can't parse BotCommandScope: Can't find field \"{missing[0]}\"")
    chat_id = scope.get("chat_id", 0)
    if chat_id and (not isinstance(chat_id, int) or chat_id not in fake.chats):
        raise bad_request("chat not found")
    if chat_id and fake.chats[chat_id].is_private and kind != "chat":
        raise bad_request("can't use specified scope in private chats")
    if kind == "chat_member" and scope["user_id"] not in fake.people:
        raise bad_request("user not found")
    language = p.text("language_code")
    if language and not re.fullmatch(r"[a-z]{2}", language):
        raise bad_request("invalid language code specified")
    return (f"{kind} {scope['user_id']}" if kind == "chat_member" else kind), chat_id, language


# Updates and webhook


def note_allowed_updates(fake: FakeTelegram, p: Params) -> None:
    """Remembered until the next list; an empty one is the default again."""
    kinds = p.decoded("allowed_updates", "allowed updates")
    if kinds is None:
        return
    if not isinstance(kinds, list):
        raise bad_request("expected an Array of String as allowed updates")
    fake.updates.allowed = frozenset(map(str, kinds)) or None


@method("setWebhook")
def set_webhook(fake: FakeTelegram, p: Params) -> object:
    url, secret = p.text("url"), p.text("secret_token")
    if not url:
        return delete_webhook(fake, p)
    _check_webhook_url(fake, url)
    if len(secret) > 256:
        raise bad_request("secret token is too long")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", secret):
        raise bad_request("secret token contains unallowed characters")
    note_allowed_updates(fake, p)
    if p.flag("drop_pending_updates"):
        fake.updates.pending.clear()
    connections = min(max(p.integer("max_connections", 40), 1), 100)
    fake.webhook.set(url, secret, connections)
    return True


def _check_webhook_url(fake: FakeTelegram, url: str) -> None:
    parts = urlsplit(url)
    if not parts.hostname:
        raise bad_request("invalid webhook URL specified")
    if fake.is_local_server:
        return
    if parts.scheme != "https":
        raise bad_request("bad webhook: An HTTPS URL must be provided for webhook")
    if (parts.port or 443) not in WEBHOOK_PORTS:
        raise bad_request("bad webhook: Webhook can be set up only on ports 80, 88, 443 or 8443")


@method("deleteWebhook")
def delete_webhook(fake: FakeTelegram, p: Params) -> object:
    if p.flag("drop_pending_updates"):
        fake.updates.pending.clear()
    fake.webhook.unset()
    return True


@method("getWebhookInfo")
def get_webhook_info(fake: FakeTelegram, p: Params) -> object:
    webhook = fake.webhook
    info: JSON = {"url": webhook.url, "has_custom_certificate": False}
    info["pending_update_count"] = len(fake.updates.pending)
    if webhook.url:
        info["max_connections"] = webhook.max_connections
    if webhook.last_error:
        info |= {"last_error_date": int(webhook.last_error_at), "last_error_message": webhook.last_error}
    if fake.updates.allowed:
        info["allowed_updates"] = sorted(fake.updates.allowed)
    return info


# Chats


@method("getChat")
def get_chat(fake: FakeTelegram, p: Params) -> object:
    chat = find_chat(fake, p)
    if not chat.is_private and not chat.bot_is_member:
        raise forbidden(f"bot was kicked from the {chat.kind} chat")
    gifts = dict.fromkeys(
        ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels"), False
    )
    return chat.as_json() | {"accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": gifts}


@method("getChatMember")
def get_chat_member(fake: FakeTelegram, p: Params) -> object:
    chat, user_id = writable_chat(fake, p), p.integer("user_id")
    if not p.text("user_id"):
        raise bad_request("invalid user_id specified")
    if user_id == fake.bot["id"]:
        return fake.bot_membership("administrator" if chat.bot_is_admin else "member")
    person = fake.people.get(user_id)
    if person is None:
        raise bad_request("user not found")
    if person is chat.owner and not chat.is_private:
        return {"status": "creator", "user": person.as_json(), "is_anonymous": False}
    return {"status": "member" if person in chat.members else "left", "user": person.as_json()}


@method("getChatAdministrators")
def get_chat_administrators(fake: FakeTelegram, p: Params) -> object:
    chat = writable_chat(fake, p)
    if chat.is_private:
        raise bad_request("there are no administrators in the private chat")
    owner = {"status": "creator", "user": chat.owner.as_json(), "is_anonymous": False}
    return [owner, *([fake.bot_membership("administrator")] if chat.bot_is_admin else [])]


@method("getChatMemberCount")
def get_chat_member_count(fake: FakeTelegram, p: Params) -> object:
    return len(writable_chat(fake, p).members) + 1


@method("leaveChat")
def leave_chat(fake: FakeTelegram, p: Params) -> object:
    chat = writable_chat(fake, p)
    if chat.is_private:
        raise bad_request("chat member status can't be changed in private chats")
    chat.bot_is_member = chat.bot_is_admin = False
    return True
