"""Everything Telegram refuses, seen through python-telegram-bot's own Bot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from telegram import (
    Bot,
    BotCommand,
    BotCommandScopeChat,
    BotCommandScopeChatAdministrators,
    BotCommandScopeChatMember,
    ForceReply,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    Message,
    MessageEntity,
    ReplyParameters,
)
from telegram.error import BadRequest, Forbidden, InvalidToken, RetryAfter, TelegramError

from tests.fakes.telegram import Chat, FakeTelegram, Person, StoppedClock, pictures, ptb

BOLD = MessageEntity.BOLD


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeTelegram]:
    with FakeTelegram(limits=None, is_local_server=False).running() as fake:
        yield fake


@pytest.fixture
async def bot(fake: FakeTelegram) -> AsyncIterator[Bot]:
    async with ptb(fake) as bot:
        yield bot


@pytest.fixture
def alice(fake: FakeTelegram) -> Person:
    return fake.user("Alice")


@pytest.fixture
def chat(fake: FakeTelegram, alice: Person) -> Chat:
    return fake.private(alice)


def keyboard(*buttons: InlineKeyboardButton) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[button] for button in buttons])


def entity(offset: int, length: int) -> list[MessageEntity]:
    return [MessageEntity(BOLD, offset, length)]


Sending = Callable[[Bot, int], Awaitable[object]]

SENDS: list[tuple[str, Sending]] = [
    ("message text is empty", lambda bot, chat: bot.send_message(chat, "")),
    ("text must be non-empty", lambda bot, chat: bot.send_message(chat, " \n ")),
    ("text must be non-empty", lambda bot, chat: bot.send_message(chat, "<b></b>", parse_mode="HTML")),
    ("message is too long", lambda bot, chat: bot.send_message(chat, "字" * 4097)),
    ("message is too long", lambda bot, chat: bot.send_message(chat, "😀" * 2049)),
    ("message is too long", lambda bot, chat: bot.send_message(chat, f"<b>{'a' * 4097}</b>", parse_mode="HTML")),
    ("message caption is too long", lambda bot, chat: bot.send_document(chat, b"x", caption="字" * 1025)),
    ("message caption is too long", lambda bot, chat: bot.send_photo(chat, pictures.png(), caption="😀" * 513)),
    ("file must be non-empty", lambda bot, chat: bot.send_document(chat, b"")),
    ("wrong file identifier/http url specified", lambda bot, chat: bot.send_document(chat, "no-such-file")),
    (
        "entity begins in a middle of a utf-16 symbol at byte offset 4",
        lambda bot, chat: bot.send_message(chat, "😀a", entities=entity(1, 1)),
    ),
    (
        "entity beginning at utf-16 offset 0 ends in a middle of a utf-16 symbol at byte offset 4",
        lambda bot, chat: bot.send_message(chat, "😀a", entities=entity(0, 1)),
    ),
    (
        "entity beginning at utf-16 offset 3 ends after the end of the text at utf-16 offset 9",
        lambda bot, chat: bot.send_message(chat, "aba caba", entities=entity(3, 6)),
    ),
    (
        "entity begins after the end of the text at utf-16 offset 9",
        lambda bot, chat: bot.send_message(chat, "aba caba", entities=entity(9, 1)),
    ),
    (
        "receive an entity with incorrect offset -1",
        lambda bot, chat: bot.send_message(chat, "aba caba", entities=entity(-1, 1)),
    ),
    (
        "receive an entity with incorrect length -2",
        lambda bot, chat: bot.send_message(chat, "aba caba", entities=entity(0, -2)),
    ),
    ("unsupported parse_mode", lambda bot, chat: bot.send_message(chat, "a", parse_mode="BBCode")),
    (
        "can't parse entities: can't find end tag corresponding to start tag \"b\"",
        lambda bot, chat: bot.send_message(chat, "<b>x", parse_mode="HTML"),
    ),
    (
        "can't parse entities: character '.' is reserved and must be escaped with the preceding '\\'",
        lambda bot, chat: bot.send_message(chat, "1.", parse_mode="MarkdownV2"),
    ),
    (
        "can't parse entities: can't find end of the entity starting at byte offset 4",
        lambda bot, chat: bot.send_message(chat, "字 _x", parse_mode="Markdown"),
    ),
    (
        "button_data_invalid",
        lambda bot, chat: bot.send_message(
            chat, "a", reply_markup=keyboard(InlineKeyboardButton("a", callback_data="字" * 21 + "ab"))
        ),
    ),
    (
        "can't parse inline keyboard button: text buttons are unallowed in the inline keyboard",
        lambda bot, chat: bot.send_message(chat, "a", reply_markup=keyboard(InlineKeyboardButton("a"))),
    ),
    (
        "inline keyboard button text must be non-empty",
        lambda bot, chat: bot.send_message(
            chat, "a", reply_markup=keyboard(InlineKeyboardButton(" ", callback_data="a"))
        ),
    ),
    (
        "reply markup is too long",
        lambda bot, chat: bot.send_message(
            chat, "a", reply_markup=keyboard(*[InlineKeyboardButton("a", callback_data="a")] * 101)
        ),
    ),
    (
        "message to be replied not found",
        lambda bot, chat: bot.send_message(chat, "a", reply_parameters=ReplyParameters(999_999)),
    ),
    ("message thread not found", lambda bot, chat: bot.send_message(chat, "a", message_thread_id=999_999)),
    ("chat not found", lambda bot, chat: bot.send_message(404_404, "a")),
    ("wrong parameter action in request", lambda bot, chat: bot.send_chat_action(chat, "dancing")),
    ("message to delete not found", lambda bot, chat: bot.delete_message(chat, 999_999)),
    ("message to copy not found", lambda bot, chat: bot.copy_message(chat, chat, 999_999)),
    ("message to react not found", lambda bot, chat: bot.set_message_reaction(chat, 999_999, "👍")),
    (
        "query is too old and response timeout expired or query id is invalid",
        lambda bot, chat: bot.answer_callback_query("12345"),
    ),
    ("wrong file_id or the file is temporarily unavailable", lambda bot, chat: bot.get_file("no-such-file")),
    ("random_id_invalid", lambda bot, chat: bot.send_message_draft(chat, 0, "a")),
    ("message is too long", lambda bot, chat: bot.send_message_draft(chat, 1, "字" * 4097)),
    ("user not found", lambda bot, chat: bot.get_chat_member(chat, 404_404)),
    ("there are no administrators in the private chat", lambda bot, chat: bot.get_chat_administrators(chat)),
    ("chat member status can't be changed in private chats", lambda bot, chat: bot.leave_chat(chat)),
]


@pytest.mark.parametrize(("reason", "send"), SENDS, ids=[f"{i}-{reason[:40]}" for i, (reason, _) in enumerate(SENDS)])
async def test_a_bad_call_is_refused_with_telegrams_reason(
    fake: FakeTelegram, bot: Bot, chat: Chat, reason: str, send: Sending
) -> None:
    with pytest.raises(BadRequest) as refusal:
        await send(bot, chat.id)
    assert refusal.value.message.lower() == reason
    assert fake.refusals[-1].status == 400
    assert chat.messages == []


COMMANDS: list[tuple[str, list[BotCommand]]] = [
    ("too many bot commands specified", [BotCommand("a", "b")] * 101),
    ("bot_command_invalid", [BotCommand("Start", "b")]),
    ("bot_command_invalid", [BotCommand("开始", "b")]),
    ("command length must not exceed 32", [BotCommand("a" * 33, "b")]),
    ("command must be non-empty", [BotCommand("/", "b")]),
    ("command description must be non-empty", [BotCommand("a", " ")]),
    ("command description length must not exceed 256", [BotCommand("a", "字" * 257)]),
]


@pytest.mark.parametrize(("reason", "commands"), COMMANDS)
async def test_a_bad_command_list_is_refused(bot: Bot, reason: str, commands: list[BotCommand]) -> None:
    with pytest.raises(BadRequest) as refusal:
        await bot.set_my_commands(commands)
    assert refusal.value.message.lower() == reason


async def test_commands_are_kept_by_scope_and_language(bot: Bot, chat: Chat) -> None:
    await bot.set_my_commands([BotCommand("help", "help")])
    await bot.set_my_commands([BotCommand("help", "帮助")], language_code="zh")
    await bot.set_my_commands([("status", "runs")], scope=BotCommandScopeChat(chat.id))
    assert [each.description for each in await bot.get_my_commands()] == ["help"]
    assert [each.description for each in await bot.get_my_commands(language_code="zh")] == ["帮助"]
    assert [each.command for each in await bot.get_my_commands(scope=BotCommandScopeChat(chat.id))] == ["status"]
    with pytest.raises(BadRequest, match="Invalid language code"):
        await bot.set_my_commands([], language_code="zh-hans")
    with pytest.raises(BadRequest, match="Chat not found"):
        await bot.set_my_commands([], scope=BotCommandScopeChat(404_404))


async def test_commands_of_a_chat_member_are_their_own_and_scopes_that_fit_no_chat_are_refused(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    group = fake.group("Lab", members=[alice])
    mine = BotCommandScopeChatMember(group.id, alice.id)
    await bot.set_my_commands([("runs", "runs")], scope=mine, language_code="en")
    assert [each.command for each in await bot.get_my_commands(mine, "en")] == ["runs"]
    assert await bot.get_my_commands(mine) == ()
    assert await bot.get_my_commands(BotCommandScopeChatAdministrators(group.id), "en") == ()
    await bot.delete_my_commands(mine, "en")
    assert await bot.get_my_commands(mine, "en") == ()
    with pytest.raises(BadRequest, match="Can't use specified scope in private chats"):
        await bot.set_my_commands([], scope=BotCommandScopeChatAdministrators(chat.id))
    with pytest.raises(BadRequest, match="User not found"):
        await bot.set_my_commands([], scope=BotCommandScopeChatMember(group.id, 404_404))


WEBHOOKS: list[tuple[str, dict[str, Any]]] = [
    ("bad webhook: an https url must be provided for webhook", {"url": "http://example.org/x"}),
    (
        "bad webhook: webhook can be set up only on ports 80, 88, 443 or 8443",
        {"url": "https://example.org:5000/x"},
    ),
    ("invalid webhook url specified", {"url": "nonsense"}),
    ("secret token contains unallowed characters", {"url": "https://example.org", "secret_token": "a b"}),
    ("secret token is too long", {"url": "https://example.org", "secret_token": "a" * 257}),
]


@pytest.mark.parametrize(("reason", "webhook"), WEBHOOKS)
async def test_a_bad_webhook_is_refused(bot: Bot, reason: str, webhook: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refusal:
        await bot.set_webhook(**webhook)
    assert refusal.value.message.lower() == reason
    assert (await bot.get_webhook_info()).url == ""


async def test_an_edit_that_changes_nothing_is_refused_and_one_that_drops_the_buttons_is_not(
    bot: Bot, chat: Chat
) -> None:
    markup = keyboard(InlineKeyboardButton("👍", callback_data="up"))
    sent = await bot.send_message(chat.id, "你好", reply_markup=markup)
    with pytest.raises(BadRequest, match="Message is not modified: specified new message content and reply markup are"):
        await sent.edit_text("你好 \n", reply_markup=markup)
    with pytest.raises(BadRequest, match="Message is not modified"):
        await sent.edit_reply_markup(markup)
    await sent.edit_text("你好")
    (shown,) = chat.messages
    assert shown.buttons == []
    assert shown.edits == 1


async def test_edits_are_refused_where_there_is_nothing_of_ours_to_edit(bot: Bot, alice: Person, chat: Chat) -> None:
    question = alice.says(chat, "在吗")
    document = await bot.send_document(chat.id, b"report", caption="report")
    answer = await bot.send_message(chat.id, "在")
    with pytest.raises(BadRequest, match="Message to edit not found"):
        await bot.edit_message_text("x", chat.id, 999_999)
    with pytest.raises(BadRequest, match="Message can't be edited"):
        await bot.edit_message_text("x", chat.id, question.id)
    with pytest.raises(BadRequest, match="There is no text in the message to edit"):
        await document.edit_text("x")
    with pytest.raises(BadRequest, match="There is no caption in the message to edit"):
        await answer.edit_caption("x")
    with pytest.raises(BadRequest, match="Message_too_long"):
        await answer.edit_text("字" * 4097)
    with pytest.raises(BadRequest, match="Media_caption_too_long"):
        await document.edit_caption("字" * 1025)
    with pytest.raises(BadRequest, match="Inline keyboard expected"):
        await answer.edit_text("x", reply_markup=ForceReply())  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="Message text is empty"):
        await answer.edit_text("")
    with pytest.raises(BadRequest, match="Message identifier is not specified"):
        await bot.edit_message_text("x", chat.id)
    assert chat.texts == ["在吗", "report", "在"]


async def test_a_reply_to_a_deleted_message_may_be_sent_without_it_when_allowed(
    bot: Bot, alice: Person, chat: Chat
) -> None:
    question = alice.says(chat, "在吗")
    alice.deletes(question)
    with pytest.raises(BadRequest, match="Message to be replied not found"):
        await bot.send_message(chat.id, "在", reply_parameters=ReplyParameters(question.id))
    allowed = ReplyParameters(question.id, allow_sending_without_reply=True)
    sent = await bot.send_message(chat.id, "在", reply_parameters=allowed)
    assert sent.reply_to_message is None


async def test_what_fits_exactly_is_accepted(bot: Bot, alice: Person, chat: Chat) -> None:
    await bot.send_message(chat.id, "😀" * 2048)
    await bot.send_document(chat.id, b"x", caption="字" * 1024)
    markup = keyboard(InlineKeyboardButton("a", callback_data="字" * 21 + "a"))
    sent = await bot.send_message(chat.id, "a", reply_markup=markup)
    press = alice.presses(chat.answers[-1], "a")
    assert await bot.answer_callback_query(press.id, "字" * 200)
    assert sent.reply_markup is not None
    assert press.answer == "字" * 200


ENTITIES = [
    ("x", "can't parse entities JSON object"),
    ({}, "expected an Array of MessageEntity"),
    (["bold"], "can't parse MessageEntity: expected an Object"),
    ([{"type": "bold", "offset": 0}], "can't parse MessageEntity: Can't find field \"length\""),
    (
        [{"type": "bold", "offset": "0", "length": 1}],
        'can\'t parse MessageEntity: Field "offset" must be of type Number',
    ),
    ([{"type": 1, "offset": 0, "length": 1}], 'can\'t parse MessageEntity: Field "type" must be of type String'),
    ([{"type": "text_link", "offset": 0, "length": 1}], "can't parse MessageEntity: Can't find field \"url\""),
]


@pytest.mark.parametrize(("entities", "reason"), ENTITIES)
def test_entities_of_the_wrong_shape_are_refused(fake: FakeTelegram, chat: Chat, entities: object, reason: str) -> None:
    params = {"chat_id": chat.id, "text": "a", "entities": entities}
    answer = httpx.post(f"{fake.base_url}{fake.token}/sendMessage", json=params)
    assert answer.json()["description"] == f"Bad Request: {reason}"


async def test_entities_of_unknown_type_are_left_out_without_a_word(bot: Bot, chat: Chat) -> None:
    sent = await bot.send_message(chat.id, "ab", entities=[MessageEntity("blod", 0, 1), MessageEntity(BOLD, 1, 1)])
    assert [(each.type, each.offset) for each in sent.entities] == [(BOLD, 1)]


async def test_a_prompt_that_asks_for_a_reply_shows_as_such(bot: Bot, chat: Chat) -> None:
    await bot.send_message(chat.id, "写", reply_markup=ForceReply())
    await bot.send_message(chat.id, "不写")
    assert [message.asks_for_reply for message in chat.messages] == [True, False]


async def test_entities_past_the_hundredth_are_dropped_as_telegram_drops_them(bot: Bot, chat: Chat) -> None:
    sent = await bot.send_message(chat.id, "ab" * 101, entities=[MessageEntity(BOLD, 2 * i, 1) for i in range(101)])
    assert len(sent.entities) == 100
    assert chat.messages[0].dropped_entities == 1


async def test_a_press_may_be_answered_once_within_fifteen_seconds(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    markup = keyboard(InlineKeyboardButton("👍", callback_data="up"))
    await bot.send_message(chat.id, "你好", reply_markup=markup)
    late, long, good = (alice.presses(chat.messages[0], button) for button in ("👍", "up", "👍"))
    with pytest.raises(BadRequest, match="Message_too_long"):
        await bot.answer_callback_query(long.id, "字" * 201)
    assert await bot.answer_callback_query(good.id, "谢谢", show_alert=True)
    assert (good.answered, good.answer, good.show_alert) == (True, "谢谢", True)
    with pytest.raises(BadRequest, match="Query is too old"):
        await bot.answer_callback_query(good.id)
    fake.clock.advance(16)
    with pytest.raises(BadRequest, match="Query is too old"):
        await bot.answer_callback_query(late.id)
    assert not late.answered


FLOODS = [
    ("one chat", 0.0, 5, 3),  # one a second, after a burst
    ("one group", 1.5, 20, 30),  # twenty a minute
    ("many chats", 0.0, 30, 1),  # thirty a second over all
]


@pytest.mark.parametrize(("where", "every_seconds", "taken", "wait_seconds"), FLOODS)
async def test_floods_are_refused_with_how_long_to_wait_and_edits_count(
    where: str, every_seconds: float, taken: int, wait_seconds: int
) -> None:
    with FakeTelegram(clock=StoppedClock()).running() as fake:
        people = [fake.user(f"Person {number}") for number in range(taken + 1)]
        chats = [fake.private(each) for each in people] if where == "many chats" else [fake.private(people[0])]
        if where == "one group":
            chats = [fake.group("Lab", members=people)]
        async with ptb(fake) as bot:
            sent = [await bot.send_message(chat.id, "0") for chat in chats[:taken]]
            for number in range(len(sent), taken):
                fake.clock.advance(every_seconds)
                await sent[0].edit_text(str(number))
            fake.clock.advance(every_seconds)
            with pytest.raises(RetryAfter) as flood:
                await bot.send_message(chats[-1].id, "one too many")
        assert flood.value._retry_after.total_seconds() == wait_seconds
        assert [call.status for call in fake.refusals] == [429]


async def test_deleting_follows_rights_and_age(fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat) -> None:
    group = fake.group("Lab", members=[alice], privacy_mode=False)
    foreign = alice.says(group, "hi")
    with pytest.raises(BadRequest, match="Message can't be deleted"):
        await bot.delete_message(group.id, foreign.id)
    alice.promotes_bot(group)
    assert await bot.delete_message(group.id, foreign.id)
    old = await bot.send_message(chat.id, "old")
    fake.clock.advance(49 * 3600)
    with pytest.raises(BadRequest, match="Message can't be deleted for everyone"):
        await old.delete()
    with pytest.raises(BadRequest, match="Message can't be deleted"):
        await bot.delete_messages(chat.id, [old.message_id])
    with pytest.raises(BadRequest, match="Message identifiers are not specified"):
        await bot.delete_messages(chat.id, [])
    with pytest.raises(BadRequest, match="Too many message identifiers specified"):
        await bot.delete_messages(chat.id, range(1, 102))
    new = await bot.send_message(chat.id, "new")
    assert await bot.delete_messages(chat.id, [new.message_id, 999_999])
    assert chat.texts == ["old"]


async def test_drafts_live_thirty_seconds_in_private_chats_only_and_end_with_the_message(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    group = fake.group("Lab", members=[alice])
    with pytest.raises(BadRequest, match="Textdraft_peer_invalid"):
        await bot.send_message_draft(group.id, 7, "a")
    await bot.send_message_draft(chat.id, 7, "")
    await bot.send_message_draft(chat.id, 7, "你", api_kwargs={"can_stop": True})
    (draft,) = chat.drafts
    assert (draft.frames, draft.can_stop) == (["", "你"], True)
    fake.clock.advance(31)
    assert chat.drafts == []
    await bot.send_message_draft(chat.id, 8, "你好")
    await bot.send_message(chat.id, "你好!")
    assert chat.drafts == []
    assert chat.texts == ["你好!"]


async def test_who_blocked_the_bot_or_never_started_it_cannot_be_written_to(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    alice.blocks()
    with pytest.raises(Forbidden, match="bot was blocked by the user"):
        await bot.send_message(chat.id, "你好")
    alice.unblocks()
    await bot.send_message(chat.id, "你好")
    stranger = fake.private(fake.user("Bob"), started=False)
    with pytest.raises(Forbidden, match="bot can't initiate conversation with a user"):
        await bot.send_message(stranger.id, "你好")
    group = fake.group("Lab", members=[alice])
    alice.removes_bot(group)
    with pytest.raises(Forbidden, match="bot was kicked from the supergroup chat"):
        await bot.send_message(group.id, "你好")


async def test_a_wrong_token_is_unauthorised_and_a_malformed_one_is_not_found(fake: FakeTelegram) -> None:
    for token, reason in (("123456789:" + "x" * 35, "Unauthorized"), ("nonsense", "Not Found")):
        answer = httpx.get(f"{fake.base_url}{token}/getMe")
        assert answer.json() == {"ok": False, "error_code": answer.status_code, "description": reason}
        with pytest.raises(InvalidToken):
            async with ptb(fake, token):
                pass


async def test_an_unknown_method_is_not_found(bot: Bot) -> None:
    with pytest.raises(TelegramError, match="Endpoint 'sendTelepathy' not found in Bot API"):
        await bot.do_api_request("sendTelepathy")


async def test_method_names_ignore_case_and_unknown_parameters_are_accepted_and_recorded(
    fake: FakeTelegram, bot: Bot, chat: Chat
) -> None:
    sent = await bot.do_api_request(
        "SENDMESSAGE", {"chat_id": chat.id, "text": "1", "no_such_thing": [1]}, return_type=Message
    )
    call = fake.calls_to("sendMessage")[-1]
    assert isinstance(sent, Message)
    assert sent.text == "1"
    assert call.params == {"chat_id": chat.id, "text": "1", "no_such_thing": [1]}


MISSING = [
    ("sendMessage", {"chat_id": 1}, "message text is empty"),
    ("sendMessage", {"text": "a"}, "chat_id is empty"),
    ("sendDocument", {"chat_id": 1}, "there is no document in the request"),
    ("editMessageText", {"text": "a"}, "message identifier is not specified"),
    ("deleteMessages", {}, "chat_id is empty"),
    ("getChatMember", {"chat_id": 1}, "invalid user_id specified"),
    ("getFile", {}, "file_id not specified"),
    ("setMyCommands", {"commands": "{"}, "can't parse commands JSON object"),
    ("setMyCommands", {}, "expected an Array of BotCommand"),
    ("setMyCommands", {"commands": '[{"command": "a"}]'}, "can't parse BotCommand: Can't find field \"description\""),
    ("setMyCommands", {"commands": '["a"]'}, "can't parse BotCommand: expected an Object"),
    (
        "getMyCommands",
        {"scope": '{"type": "everywhere"}'},
        "can't parse BotCommandScope: Unsupported type specified",
    ),
    (
        "getMyCommands",
        {"scope": '{"type": "chat"}'},
        "can't parse BotCommandScope: Can't find field \"chat_id\"",
    ),
    ("getUpdates", {"allowed_updates": '"x"'}, "expected an Array of String as allowed updates"),
    ("getUpdates", {"allowed_updates": "x"}, "can't parse allowed updates JSON object"),
]


@pytest.mark.parametrize(("method", "params", "reason"), MISSING)
@pytest.mark.parametrize("encoding", ["json", "data", "params"])
def test_what_is_missing_is_named_in_every_encoding(
    fake: FakeTelegram, alice: Person, method: str, params: dict[str, Any], reason: str, encoding: str
) -> None:
    if params.get("chat_id"):
        params = {**params, "chat_id": fake.private(alice).id}
    answer = httpx.request("POST", f"{fake.base_url}{fake.token}/{method}", **{encoding: params})  # type: ignore[arg-type]
    assert answer.status_code == 400
    assert answer.json() == {"ok": False, "error_code": 400, "description": f"Bad Request: {reason}"}


MARKUPS = [
    ([], "object expected as reply markup"),
    ({"inline_keyboard": "x"}, 'field "inline_keyboard" of the ReplyMarkup must be an Array of Arrays'),
    ({"inline_keyboard": ["x"]}, 'field "inline_keyboard" must be an Array of Arrays'),
    ({"inline_keyboard": [["x"]]}, "can't parse inline keyboard button: InlineKeyboardButton must be an Object"),
    ({"inline_keyboard": [[{"url": "x"}]]}, "can't parse inline keyboard button: Can't find field \"text\""),
    (
        {"inline_keyboard": [[{"text": 1}]]},
        'can\'t parse inline keyboard button: Field "text" must be of type String',
    ),
    ({"keyboard": [[""]]}, "keyboard button text must be non-empty"),
    ({"keyboard": [[1]]}, "can't parse keyboard button: KeyboardButton must be a String or an Object"),
]


@pytest.mark.parametrize(("markup", "reason"), MARKUPS)
def test_a_keyboard_of_the_wrong_shape_is_refused(fake: FakeTelegram, chat: Chat, markup: object, reason: str) -> None:
    params = {"chat_id": chat.id, "text": "a", "reply_markup": markup}
    answer = httpx.post(f"{fake.base_url}{fake.token}/sendMessage", json=params)
    assert answer.json()["description"] == f"Bad Request: {reason}"


@pytest.mark.parametrize(("body", "reason"), [(b"{", "can't parse JSON object"), (b"[]", "object expected")])
def test_a_body_that_is_no_json_object_is_refused(fake: FakeTelegram, body: bytes, reason: str) -> None:
    url, headers = f"{fake.base_url}{fake.token}/getMe", {"content-type": "application/json"}
    assert httpx.post(url, content=body, headers=headers).json()["description"] == f"Bad Request: {reason}"


def test_a_lone_surrogate_is_no_text(fake: FakeTelegram, chat: Chat) -> None:
    body = b'{"chat_id": %d, "text": "\\ud83d"}' % chat.id
    url, headers = f"{fake.base_url}{fake.token}/sendMessage", {"content-type": "application/json"}
    answer = httpx.post(url, content=body, headers=headers)
    assert answer.json()["description"] == "Bad Request: strings must be encoded in UTF-8"


async def test_files_beyond_telegrams_sizes_are_refused(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    large = alice.sends_document(chat, "large.bin", bytes(20_000_001))
    assert large.file is not None
    with pytest.raises(BadRequest, match="File is too big"):
        await bot.get_file(large.file.id)
    with pytest.raises(BadRequest, match="File is too big"):
        await bot.send_document(chat.id, bytes(50_000_001))


async def test_a_press_may_open_only_the_bots_own_links(bot: Bot, alice: Person, chat: Chat) -> None:
    markup = keyboard(InlineKeyboardButton("👍", callback_data="up"))
    await bot.send_message(chat.id, "你好", reply_markup=markup)
    press = alice.presses(chat.answers[-1], "👍")
    with pytest.raises(BadRequest, match="Url_invalid"):
        await bot.answer_callback_query(press.id, url="https://example.org")
    assert await bot.answer_callback_query(press.id, url="https://t.me/huigan_bot?start=x")
    assert press.url == "https://t.me/huigan_bot?start=x"


async def test_a_chat_that_removed_the_bot_tells_it_nothing_more(fake: FakeTelegram, bot: Bot, alice: Person) -> None:
    group = fake.group("Lab", members=[alice])
    alice.removes_bot(group)
    with pytest.raises(Forbidden, match="bot was kicked from the supergroup chat"):
        await bot.get_chat(group.id)


async def test_bots_set_one_reaction_of_the_known_ones(bot: Bot, alice: Person, chat: Chat) -> None:
    question = alice.says(chat, "在吗")
    assert await bot.set_message_reaction(chat.id, question.id, "👀")
    assert question.reactions == {"bot": ["👀"]}
    with pytest.raises(BadRequest, match="Reaction_invalid"):
        await bot.set_message_reaction(chat.id, question.id, "🀄")
    with pytest.raises(BadRequest, match="Reactions_too_many"):
        await bot.set_message_reaction(chat.id, question.id, ["👍", "👎"])
