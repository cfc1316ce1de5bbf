"""How updates reach the bot: polling, webhook, allowed_updates, privacy mode, and what people's acts become."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, ReactionType, Update
from telegram.error import Conflict, EndPointNotFound, InvalidToken, NetworkError
from telegram.ext import Application, CallbackQueryHandler, MessageHandler, filters

from tests.fakes.telegram import TOKEN, Chat, FakeTelegram, Person, ptb

MARKUP = InlineKeyboardMarkup([[InlineKeyboardButton("👍", callback_data="up")]])
EVERYTHING = [*Update.ALL_TYPES, "stopped_message_generation"]


@pytest.fixture
def fake() -> Iterator[FakeTelegram]:
    with FakeTelegram(limits=None).running() as fake:
        yield fake


@pytest.fixture
async def bot(fake: FakeTelegram) -> AsyncIterator[Bot]:
    async with ptb(fake) as bot:
        yield bot


@pytest.fixture
def alice(fake: FakeTelegram) -> Person:
    return fake.user("Alice", username="alice_w")


@pytest.fixture
def chat(fake: FakeTelegram, alice: Person) -> Chat:
    return fake.private(alice)


async def texts(bot: Bot, offset: int | None = None, **options: Any) -> list[str | None]:
    updates = await bot.get_updates(offset=offset, timeout=0, **options)
    return [update.effective_message.text if update.effective_message else None for update in updates]


# Polling


async def test_an_offset_confirms_what_lies_below_it_and_nothing_else_does(bot: Bot, alice: Person, chat: Chat) -> None:
    for text in "一二三":
        alice.says(chat, text)
    assert await texts(bot) == await texts(bot) == ["一", "二", "三"]
    assert await texts(bot, limit=2) == ["一", "二"]
    (first, *_) = await bot.get_updates(timeout=0)
    assert await texts(bot, first.update_id + 1) == ["二", "三"]
    assert await texts(bot) == ["二", "三"]
    assert await texts(bot, -1) == ["三"]
    assert await texts(bot) == ["三"]


async def test_at_most_a_hundred_updates_come_at_once(bot: Bot, alice: Person, chat: Chat) -> None:
    for number in range(101):
        alice.says(chat, str(number))
    assert len(await texts(bot, limit=1000)) == 100


async def test_a_long_poll_ends_with_the_first_update_or_with_its_time(bot: Bot, alice: Person, chat: Chat) -> None:
    polling = asyncio.create_task(bot.get_updates(timeout=20))
    await asyncio.sleep(0.1)
    assert not polling.done()
    alice.says(chat, "在吗")
    (update,) = await polling
    assert update.message is not None
    assert update.message.text == "在吗"
    assert await bot.get_updates(offset=update.update_id + 1, timeout=1) == ()


async def test_a_second_poll_ends_the_first_with_a_conflict(fake: FakeTelegram, bot: Bot) -> None:
    first = asyncio.create_task(bot.get_updates(timeout=20))
    await asyncio.sleep(0.1)
    assert await bot.get_updates(timeout=0) == ()
    with pytest.raises(Conflict, match="terminated by other getUpdates request"):
        await first
    assert [call.status for call in fake.refusals] == [409]


async def test_a_poll_whose_client_is_gone_disturbs_nobody(fake: FakeTelegram, bot: Bot) -> None:
    first = asyncio.create_task(bot.get_updates(timeout=20))
    await asyncio.sleep(0.1)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    await fake.until(lambda: fake.calls_to("getUpdates"))
    assert await bot.get_updates(timeout=0) == ()
    assert fake.refusals == []


async def test_polling_and_a_webhook_exclude_each_other(bot: Bot) -> None:
    polling = asyncio.create_task(bot.get_updates(timeout=20))
    await asyncio.sleep(0.1)
    await bot.set_webhook("http://127.0.0.1:9/nobody")
    with pytest.raises(Conflict, match="terminated by setWebhook request"):
        await polling
    with pytest.raises(Conflict, match="can't use getUpdates method while webhook is active"):
        await bot.get_updates()
    await bot.delete_webhook()
    assert await bot.get_updates(timeout=0) == ()


async def test_allowed_updates_count_from_then_on_and_are_remembered(bot: Bot, alice: Person, chat: Chat) -> None:
    answer = await _answer(bot, chat)
    alice.reacts(answer, "👍")  # not asked for yet: lost
    assert await bot.get_updates(timeout=0, allowed_updates=["message_reaction"]) == ()
    alice.reacts(answer, "👎")
    alice.says(chat, "not asked for any more")
    (update,) = await bot.get_updates(timeout=0)  # without a list the last one holds
    assert update.message_reaction is not None
    assert [each.to_dict() for each in update.message_reaction.old_reaction] == [{"type": "emoji", "emoji": "👍"}]
    assert [each.to_dict() for each in update.message_reaction.new_reaction] == [{"type": "emoji", "emoji": "👎"}]
    await bot.get_updates(offset=update.update_id + 1, timeout=0, allowed_updates=[])  # the default again
    alice.says(chat, "heard")
    alice.reacts(answer)
    assert await texts(bot) == ["heard"]
    assert answer.reactions[alice.id] == []


async def test_an_update_may_come_twice(fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat) -> None:
    alice.says(chat, "在吗")
    (update,) = await bot.get_updates(timeout=0)
    await bot.get_updates(offset=update.update_id + 1, timeout=0)
    fake.deliver_again()
    (again,) = await bot.get_updates(offset=update.update_id + 1, timeout=0)
    assert again == update
    assert await bot.get_updates(offset=update.update_id + 1, timeout=0) == ()


# Groups


@pytest.mark.parametrize(
    ("text", "is_heard"),
    [
        ("大家好", False),
        ("/start", True),
        ("/start@huigan_bot", True),
        ("/start@other_bot", False),
        ("走 /start", False),
        ("😀 @huigan_bot 在吗", True),
        ("@huigan_bot2 在吗", False),
    ],
)
async def test_in_privacy_mode_the_bot_hears_commands_and_mentions(
    fake: FakeTelegram, bot: Bot, alice: Person, text: str, is_heard: bool
) -> None:
    alice.says(fake.group("Lab", members=[alice]), text)
    assert await texts(bot) == ([text] if is_heard else [])


async def test_in_privacy_mode_the_bot_hears_replies_to_itself_and_as_admin_everything(
    fake: FakeTelegram, bot: Bot, alice: Person
) -> None:
    group = fake.group("Lab", members=[alice])
    answer = await _answer(bot, group)
    question = alice.says(group, "unheard")
    alice.says(group, "unheard too", reply_to=question)
    heard = alice.says(group, "heard", reply_to=answer)
    alice.edits(heard, "heard again")
    alice.edits(question, "still unheard")
    alice.promotes_bot(group)
    alice.says(group, "as admin")
    open_group = fake.group("Open", members=[alice], privacy_mode=False)
    alice.says(open_group, "without privacy")
    updates = await bot.get_updates(timeout=0)
    heard_texts = [update.effective_message.text for update in updates if update.effective_message]
    assert heard_texts == ["heard", "heard again", "as admin", "without privacy"]
    assert [update.my_chat_member.new_chat_member.status for update in updates if update.my_chat_member] == [
        "administrator"
    ]


async def test_reactions_in_groups_need_admin_rights_and_anonymous_ones_come_as_counts(
    fake: FakeTelegram, bot: Bot, alice: Person
) -> None:
    await bot.get_updates(timeout=0, allowed_updates=EVERYTHING)
    group = fake.group("Lab", members=[alice])
    answer = await _answer(bot, group)
    alice.reacts(answer, "👍")
    assert await bot.get_updates(timeout=0) == ()
    alice.promotes_bot(group)
    alice.reacts(answer, "👎")
    alice.reacts(answer, "👍", anonymously=True)
    _, reaction, count = await bot.get_updates(timeout=0)
    assert reaction.message_reaction is not None
    assert count.message_reaction_count is not None
    assert reaction.message_reaction.user is not None
    assert reaction.message_reaction.user.id == alice.id
    assert count.message_reaction_count.reactions[0].total_count == 1


async def test_reactions_in_private_are_told_as_added_changed_and_withdrawn(
    bot: Bot, alice: Person, chat: Chat
) -> None:
    await bot.get_updates(timeout=0, allowed_updates=EVERYTHING)
    answer = await _answer(bot, chat)
    for emoji in (("👍",), ("👎",), ("👎",), ("👎", "5445284980978621387"), ()):
        alice.reacts(answer, *emoji)  # the third changes nothing: no update
    told = [update.message_reaction for update in await bot.get_updates(timeout=0)]
    moves = [
        ([_name(old) for old in each.old_reaction], [_name(new) for new in each.new_reaction]) for each in told if each
    ]
    assert moves == [
        ([], ["👍"]),
        (["👍"], ["👎"]),
        (["👎"], ["👎", "5445284980978621387"]),
        (["👎", "5445284980978621387"], []),
    ]
    with pytest.raises(AssertionError, match="clients do not offer"):
        alice.reacts(answer, "🀄")


async def test_anonymous_reactions_are_counted_over_all_who_hide(fake: FakeTelegram, bot: Bot, alice: Person) -> None:
    await bot.get_updates(timeout=0, allowed_updates=EVERYTHING)
    bob = fake.user("Bob")
    group = fake.group("Lab", members=[alice, bob], bot_is_admin=True)
    answer = await _answer(bot, group)
    alice.reacts(answer, "👍", anonymously=True)
    bob.reacts(answer, "👍", anonymously=True)
    alice.reacts(answer, anonymously=True)
    counts = [update.message_reaction_count for update in await bot.get_updates(timeout=0)]
    assert [[each.total_count for each in count.reactions] for count in counts if count] == [[1], [2], [1]]
    assert answer.reactions == {}


async def test_topics_have_thread_ids_and_others_have_none(fake: FakeTelegram, bot: Bot, alice: Person) -> None:
    forum = fake.group("Forum", members=[alice], privacy_mode=False, forum=True)
    topic = fake.topic(forum, "茶")
    alice.says(forum, "在吗", thread=topic)
    (update,) = await bot.get_updates(timeout=0)
    assert update.message is not None
    assert (update.message.message_thread_id, update.message.is_topic_message) == (topic, True)
    await bot.send_message(forum.id, "在", message_thread_id=topic)
    assert forum.answers[0].thread_id == topic


async def test_message_ids_of_different_chats_collide(fake: FakeTelegram, bot: Bot, alice: Person) -> None:
    groups = [fake.group(title, members=[alice]) for title in ("A", "B")]
    first, second = [await bot.send_message(group.id, "hi") for group in groups]
    assert first.message_id == second.message_id
    assert first.chat_id != second.chat_id


# People's acts


async def test_presses_carry_what_was_pressed_and_forged_ones_what_was_forged(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    mallory = fake.user("Mallory")
    answer = await _answer(bot, chat)
    alice.presses(answer, "👍")
    mallory.forges_press(answer, "promote:7")
    with pytest.raises(AssertionError, match="Mallory is not in the chat"):
        mallory.presses(answer, "👍")
    with pytest.raises(AssertionError, match="no button '👎'"):
        alice.presses(answer, "👎")
    queries = [update.callback_query for update in await bot.get_updates(timeout=0)]
    assert [(query.from_user.id, query.data) for query in queries if query] == [
        (alice.id, "up"),
        (mallory.id, "promote:7"),
    ]


async def test_a_press_under_a_deleted_message_comes_without_its_content(bot: Bot, alice: Person, chat: Chat) -> None:
    answer = await _answer(bot, chat)
    await bot.delete_message(chat.id, answer.id)
    alice.forges_press(answer, "up")
    (update,) = await bot.get_updates(timeout=0)
    assert update.callback_query is not None
    assert update.callback_query.message is not None
    assert not update.callback_query.message.is_accessible


async def test_stop_beside_a_draft_reaches_the_bot_only_if_it_could_be_pressed(
    bot: Bot, alice: Person, chat: Chat
) -> None:
    await bot.get_updates(timeout=0, allowed_updates=EVERYTHING)
    await bot.send_message_draft(chat.id, 7, "你")
    with pytest.raises(AssertionError, match="no draft with a Stop button"):
        alice.stops_draft(chat)
    await bot.send_message_draft(chat.id, 7, "你好", api_kwargs={"can_stop": True})
    alice.stops_draft(chat)
    (update,) = await bot.get_updates(timeout=0)
    stopped = update.api_kwargs["stopped_message_generation"]
    assert (stopped["chat"]["id"], stopped["draft_id"]) == (chat.id, 7)
    assert chat.drafts == []
    await bot.send_message_draft(chat.id, 7, "你好呀", api_kwargs={"can_stop": True})  # taken, and shown to nobody
    assert chat.drafts == []
    await bot.send_message_draft(chat.id, 8, "再", api_kwargs={"can_stop": True, "keep_on_stop": True})
    assert alice.stops_draft(chat).frames == ["再"]
    assert [draft.text for draft in chat.drafts] == ["再"]
    with pytest.raises(AssertionError, match="no draft with a Stop button"):
        alice.stops_draft(chat)


async def test_a_stop_that_the_bot_did_not_ask_for_is_lost(fake: FakeTelegram, bot: Bot, alice: Person) -> None:
    chat = fake.private(alice)
    await bot.get_updates(timeout=0, allowed_updates=Update.ALL_TYPES)
    await bot.send_message_draft(chat.id, 7, "你", api_kwargs={"can_stop": True})
    alice.stops_draft(chat)
    assert await bot.get_updates(timeout=0) == ()
    assert [kind for kind, _ in fake.updates.not_allowed] == ["stopped_message_generation"]


async def test_older_servers_show_no_stop_and_still_older_ones_know_no_drafts() -> None:
    with FakeTelegram(knows_stop=False).running() as fake:
        alice = fake.user("Alice")
        chat = fake.private(alice)
        async with ptb(fake) as bot:
            await bot.send_message_draft(chat.id, 7, "你", api_kwargs={"can_stop": True})
        assert [draft.text for draft in chat.drafts] == ["你"]
        with pytest.raises(AssertionError, match="no draft with a Stop button"):
            alice.stops_draft(chat)
    with FakeTelegram(knows_drafts=False).running() as fake:
        chat = fake.private(fake.user("Alice"))
        async with ptb(fake) as bot:
            with pytest.raises(InvalidToken, match="method not found"):  # PTB's word for every 404
                await bot.send_message_draft(chat.id, 7, "你")
            with pytest.raises(EndPointNotFound):
                await bot.do_api_request("sendMessageDraft".lower(), {"chat_id": chat.id, "draft_id": 7, "text": "你"})
        assert chat.all_drafts == []


async def test_blocking_and_adding_are_told_as_membership(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    group = fake.group("Lab", members=[alice])
    alice.blocks()
    with pytest.raises(AssertionError, match="must unblock"):
        alice.says(chat, "在吗")
    alice.unblocks()
    alice.removes_bot(group)
    alice.adds_bot(group)
    moves = [update.my_chat_member for update in await bot.get_updates(timeout=0)]
    assert [(move.chat.id, move.new_chat_member.status) for move in moves if move] == [
        (chat.id, "kicked"),
        (chat.id, "member"),
        (group.id, "kicked"),
        (group.id, "member"),
    ]


async def test_adding_the_bot_to_a_group_is_told_in_the_group_as_well(
    fake: FakeTelegram, bot: Bot, alice: Person
) -> None:
    group = fake.group("Lab", members=[alice])
    alice.adds_bot(group)
    _, told = await bot.get_updates(timeout=0)
    assert told.message is not None
    assert [each.id for each in told.message.new_chat_members] == [fake.bot["id"]]
    assert told.message.text is None


async def test_a_start_button_and_a_link_say_start_with_the_links_payload(
    fake: FakeTelegram, bot: Bot, alice: Person
) -> None:
    stranger = fake.private(alice, started=False)
    alice.starts()
    alice.follows("https://t.me/huigan_bot?start=i_Zm9v-1")
    assert await texts(bot) == ["/start", "/start i_Zm9v-1"]
    await bot.send_message(stranger.id, "你好")
    with pytest.raises(AssertionError, match="no link to the bot"):
        alice.follows("https://t.me/other_bot?start=x")
    for payload in ("a b", "字", "x" * 65):
        with pytest.raises(AssertionError, match="open no link"):
            alice.starts(payload)


async def test_an_edited_reply_stays_a_reply(bot: Bot, alice: Person, chat: Chat) -> None:
    answer = await _answer(bot, chat)
    question = alice.says(chat, "为甚么", reply_to=answer)
    alice.edits(question, "为什么")
    said, edited = await bot.get_updates(timeout=0)
    assert said.message is not None
    assert said.message.edit_date is None
    assert edited.edited_message is not None
    assert edited.edited_message.edit_date is not None
    assert edited.edited_message.message_id == said.message.message_id
    assert edited.edited_message.reply_to_message is not None
    assert edited.edited_message.reply_to_message.message_id == answer.id


async def test_a_long_paste_comes_in_pieces_that_lose_nothing(bot: Bot, alice: Person, chat: Chat) -> None:
    text = "\n".join(["字" * 999 + "😀"] * 12)
    pieces = alice.pastes(chat, text)
    assert "\n".join(piece.text for piece in pieces) == text
    updates = await bot.get_updates(timeout=0)
    assert [update.message.text for update in updates if update.message] == [piece.text for piece in pieces]
    assert len({update.message.date for update in updates if update.message}) == 1
    answer = await _answer(bot, chat)
    assert [piece.reply_to for piece in alice.pastes(chat, text, reply_to=answer)] == [answer, None, None]
    assert len(alice.pastes(chat, "😀" * 5000)) == 3
    with pytest.raises(AssertionError, match="use pastes"):
        alice.says(chat, "字" * 4097)


async def test_files_go_both_ways_byte_for_byte(bot: Bot, alice: Person, chat: Chat) -> None:
    content = bytes(range(256)) * 50 + b"\r\n--\r\n"
    alice.sends_document(chat, "茶.txt", content, caption="请看")
    alice.sends_photo(chat, content)
    alice.sends_voice(chat, content)
    document, photo, voice = [update.message for update in await bot.get_updates(timeout=0)]
    assert document is not None
    assert document.document is not None
    assert (document.document.file_name, document.caption) == ("茶.txt", "请看")
    assert photo is not None
    assert photo.photo
    assert voice is not None
    assert voice.voice is not None
    assert bytes(await (await document.document.get_file()).download_as_bytearray()) == content
    sent = await bot.send_document(chat.id, content, filename="out.bin", caption="给")
    assert chat.answers[0].file is not None
    assert chat.answers[0].file.content == content
    assert sent.document is not None
    again = await bot.send_document(chat.id, sent.document.file_id)
    assert again.document == sent.document


async def test_chats_and_members_describe_themselves(fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat) -> None:
    bob = fake.user("Bob")
    group = fake.group("Lab", members=[alice, bob], bot_is_admin=True)
    assert (await bot.get_chat(chat.id)).first_name == "Alice"
    assert (await bot.get_chat(group.id)).title == "Lab"
    assert (await bot.get_me()).username == "huigan_bot"
    assert await bot.get_chat_member_count(group.id) == 3
    statuses = [(await bot.get_chat_member(group.id, each)).status for each in (alice.id, bob.id, bot.id)]
    assert statuses == ["creator", "member", "administrator"]
    assert [admin.user.id for admin in await bot.get_chat_administrators(group.id)] == [alice.id, bot.id]
    assert await bot.leave_chat(group.id)
    alice.says(group, "/start")
    assert await texts(bot) == []


# Webhook


class Receiver:
    """The bot's side of a webhook: keeps what came, answers what `decide` says."""

    def __init__(self, decide: Callable[[dict[str, Any]], int]) -> None:
        self.came: list[tuple[str | None, dict[str, Any]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                update = json.loads(self.rfile.read(int(self.headers["content-length"])))
                receiver.came.append((self.headers["X-Telegram-Bot-Api-Secret-Token"], update))
                self.send_response(decide(update))
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def texts(self) -> list[str]:
        return [update["message"]["text"] for _, update in self.came]


@contextlib.contextmanager
def receiving(decide: Callable[[dict[str, Any]], int] = lambda _: 200) -> Iterator[Receiver]:
    receiver = Receiver(decide)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


async def test_a_webhook_gets_what_waited_and_what_comes_with_the_secret(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    alice.says(chat, "before")
    with receiving() as receiver:
        await bot.set_webhook(receiver.url, secret_token="s3cret_-")
        alice.says(chat, "after")
        await fake.until(lambda: len(receiver.came) == 2 and not fake.updates.pending)
        fake.deliver_again()
        await fake.until(lambda: len(receiver.came) == 3)
    assert receiver.texts() == ["before", "after", "after"]
    assert {secret for secret, _ in receiver.came} == {"s3cret_-"}
    info = await bot.get_webhook_info()
    assert (info.url, info.pending_update_count, info.last_error_message) == (receiver.url, 0, None)


async def test_a_webhook_that_fails_is_tried_again_in_order_and_holds_up_no_other_chat(
    fake: FakeTelegram, bot: Bot, alice: Person, chat: Chat
) -> None:
    bob = fake.user("Bob")
    healthy = threading.Event()

    def decide(update: dict[str, Any]) -> int:
        return 200 if healthy.is_set() or update["message"]["chat"]["id"] == bob.id else 500

    with receiving(decide) as receiver:
        await bot.set_webhook(receiver.url)
        for text in ("一", "二"):
            alice.says(chat, text)
        bob.says(fake.private(bob), "另")
        await fake.until(lambda: receiver.texts().count("一") >= 2 and "另" in receiver.texts())
        assert "二" not in receiver.texts()
        info = await bot.get_webhook_info()
        assert info.last_error_message == "Wrong response from the webhook: 500 Internal Server Error"
        assert info.pending_update_count == 2
        healthy.set()
        await fake.until(lambda: not fake.updates.pending)
    assert [text for text in receiver.texts() if text != "另"][-2:] == ["一", "二"]


async def test_deleting_a_webhook_may_drop_what_waits(bot: Bot, alice: Person, chat: Chat) -> None:
    await bot.set_webhook("http://127.0.0.1:9/nobody")
    alice.says(chat, "lost")
    await bot.delete_webhook(drop_pending_updates=True)
    alice.says(chat, "kept")
    assert await texts(bot) == ["kept"]


# The whole of it, as a bot's test will read


async def test_people_talk_with_a_bot_built_on_python_telegram_bot(
    fake: FakeTelegram, alice: Person, chat: Chat
) -> None:
    async def echo(update: Update, _: Any) -> None:
        assert update.message is not None
        await update.message.reply_text(f"回 {update.message.text}", reply_markup=MARKUP)

    async def thank(update: Update, _: Any) -> None:
        assert update.callback_query is not None
        await update.callback_query.answer("谢谢")
        await update.callback_query.edit_message_text("谢谢")

    application = Application.builder().token(TOKEN).base_url(fake.base_url).build()
    application.add_handlers([MessageHandler(filters.TEXT, echo), CallbackQueryHandler(thank)])
    async with application:
        await application.start()
        assert application.updater is not None
        await application.updater.start_polling(timeout=5)
        alice.says(chat, "你好")
        answer = await fake.until(lambda: chat.last_answer)
        press = alice.presses(answer, "👍")
        await fake.until(lambda: answer.edits)
        await application.updater.stop()
        await application.stop()
    assert answer.history == ["回 你好", "谢谢"]
    assert press.answer == "谢谢"
    assert fake.refusals == []


async def test_a_stopped_server_refuses_connections_and_comes_back_at_the_same_address(
    alice: Person, chat: Chat
) -> None:
    fake = FakeTelegram()
    with fake.running():
        url = fake.base_url
        async with ptb(fake) as bot:
            pass
    with pytest.raises(NetworkError, match="ConnectError"):
        await Bot(TOKEN, base_url=url).initialize()
    with fake.running():
        assert fake.base_url == url
        async with ptb(fake) as bot:
            assert bot.id == fake.bot["id"]


def _name(reaction: ReactionType) -> str:
    return str(next(value for key, value in reaction.to_dict().items() if key != "type"))


async def _answer(bot: Bot, chat: Chat) -> Any:
    await bot.send_message(chat.id, "答", reply_markup=MARKUP)
    return chat.answers[-1]
