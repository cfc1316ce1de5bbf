"""Photos, documents, albums, stickers: what people send, what the bot sends and edits, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, InputMediaDocument, InputMediaPhoto, Update
from telegram.error import BadRequest

from tests.fakes.telegram import Chat, FakeTelegram, Person, pictures, ptb

MARKUP = InlineKeyboardMarkup([[InlineKeyboardButton("👍", callback_data="up")]])
JPEG = (
    b"\xff\xd8\xff\xe0\x00\x04ab"  # an application segment, then a frame of 60 x 40
    b"\xff\xc0\x00\x0b\x08\x00\x28\x00\x3c\x01\x01\x11\x00\xff\xda\x00\x02xx\xff\xd9"
)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeTelegram]:
    with FakeTelegram(limits=None, is_local_server=False).running() as fake:
        yield fake


@pytest.fixture
async def bot(fake: FakeTelegram) -> AsyncIterator[Bot]:
    async with ptb(fake) as bot:
        earlier = await bot.get_updates(timeout=0)
        if earlier:
            await bot.get_updates(offset=earlier[-1].update_id + 1, timeout=0)
        yield bot


@pytest.fixture
def alice(fake: FakeTelegram) -> Person:
    return fake.user("Alice")


@pytest.fixture
def chat(fake: FakeTelegram, alice: Person) -> Chat:
    return fake.private(alice)


async def heard(bot: Bot) -> list[Update]:
    return list(await bot.get_updates(timeout=0))


# What is a picture


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (pictures.png(30, 20), (30, 20)),
        (JPEG, (60, 40)),
        (JPEG[:-4], None),  # cut off
        (pictures.png(30, 20)[:-12], None),  # without its end
        (pictures.png(30, 20).replace(b"IDAT", b"IDAX"), None),  # a checksum that is wrong
        (b"GIF89a", None),
        (b"", None),
        (b"\x89PNG\r\n\x1a\n", None),
    ],
)
def test_what_is_a_picture_and_how_large(content: bytes, size: tuple[int, int] | None) -> None:
    assert pictures.size(content) == size


# What people send


async def test_a_photo_comes_in_several_sizes_of_which_the_last_is_what_was_sent(
    bot: Bot, alice: Person, chat: Chat
) -> None:
    content = pictures.png(1000, 500)
    alice.sends_photo(chat, content, caption="这是什么")
    (update,) = await heard(bot)
    assert update.message is not None
    sizes = update.message.photo
    assert [(size.width, size.height) for size in sizes] == [(90, 45), (320, 160), (800, 400), (1000, 500)]
    assert update.message.caption == "这是什么"
    fetched = [bytes(await (await size.get_file()).download_as_bytearray()) for size in sizes]
    assert [pictures.size(each) for each in fetched] == [(90, 45), (320, 160), (800, 400), (1000, 500)]
    assert fetched[-1] == content
    assert [size.file_size for size in sizes] == [len(each) for each in fetched]


async def test_an_album_is_several_messages_of_one_second_with_the_caption_on_the_first(
    bot: Bot, alice: Person, chat: Chat
) -> None:
    alice.sends_album(chat, [pictures.png(shade=shade) for shade in range(3)], caption="三张")
    messages = [update.message for update in await heard(bot)]
    assert [message.caption for message in messages if message] == ["三张", None, None]
    assert len({(message.media_group_id, message.date) for message in messages if message}) == 1
    with pytest.raises(AssertionError, match="2 to 10 photos"):
        alice.sends_album(chat, [pictures.png()])


async def test_stickers_voices_and_videos_are_no_texts(bot: Bot, alice: Person, chat: Chat) -> None:
    alice.sends_sticker(chat)
    alice.sends_voice(chat, b"opus")
    alice.sends_video(chat, b"mpeg", caption="看")
    sticker, voice, video = [update.message for update in await heard(bot)]
    assert sticker is not None
    assert sticker.sticker is not None
    assert voice is not None
    assert voice.voice is not None
    assert video is not None
    assert video.video is not None
    assert [each.text for each in (sticker, voice, video)] == [None, None, None]


async def test_in_a_group_a_caption_may_mention_and_media_may_be_a_reply_in_a_topic(
    fake: FakeTelegram, bot: Bot, alice: Person
) -> None:
    forum = fake.group("Forum", members=[alice], forum=True)
    topic = fake.topic(forum, "茶")
    sent = await bot.send_message(forum.id, "答", message_thread_id=topic)
    answer = forum.find(sent.message_id)
    alice.sends_photo(forum, pictures.png(), caption="unheard", thread=topic)
    alice.sends_photo(forum, pictures.png(), caption="@huigan_bot 看", thread=topic)
    alice.sends_document(forum, "a.txt", b"a", reply_to=answer, thread=topic)
    photo, document = [update.message for update in await heard(bot)]
    assert photo is not None
    assert [entity.type for entity in photo.caption_entities] == ["mention"]
    assert document is not None
    assert document.reply_to_message is not None
    assert document.message_thread_id == topic


async def test_a_caption_is_edited_like_a_text(bot: Bot, alice: Person, chat: Chat) -> None:
    photo = alice.sends_photo(chat, pictures.png(), caption="一")
    alice.edits(photo, "二")
    _, update = await heard(bot)
    assert update.edited_message is not None
    assert (update.edited_message.caption, update.edited_message.text) == ("二", None)
    assert update.edited_message.edit_date is not None


# What the bot sends


PHOTOS = [
    (b"no picture at all", "Image_process_failed"),
    (pictures.png(60, 40)[:60], "Image_process_failed"),
    (pictures.png(9_000, 1_001), "Photo_invalid_dimensions"),
    (pictures.png(2_100, 100), "Photo_invalid_dimensions"),
    (b"", "File must be non-empty"),
    (bytes(10 * 1024 * 1024 + 1), "File of size 10485761 bytes is too big for a photo; the maximum size is 10485760"),
]


@pytest.mark.parametrize(("content", "reason"), PHOTOS, ids=[str(i) for i in range(len(PHOTOS))])
async def test_a_photo_that_is_none_is_refused(bot: Bot, chat: Chat, content: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        await bot.send_photo(chat.id, content)
    await bot.send_message(chat.id, "曲线")
    with pytest.raises(BadRequest, match=reason):
        await bot.edit_message_media(InputMediaPhoto(content), chat.id, chat.answers[-1].id)
    assert chat.answers[-1].text == "曲线"


async def test_the_largest_photo_that_fits_is_taken(bot: Bot, chat: Chat) -> None:
    sent = await bot.send_photo(chat.id, pictures.png(2_000, 100), caption="字" * 1024, reply_markup=MARKUP)
    assert (sent.photo[-1].width, sent.photo[-1].height) == (1280, 64)
    assert chat.answers[0].file is not None
    assert chat.answers[0].file.content == pictures.png(2_000, 100)
    again = await bot.send_photo(chat.id, sent.photo[0].file_id)
    assert again.photo == sent.photo


async def test_media_are_edited_together_with_their_caption_and_buttons(bot: Bot, chat: Chat) -> None:
    sent = await bot.send_photo(chat.id, pictures.png(shade=1), caption="一步", reply_markup=MARKUP)
    (shown,) = chat.answers
    await bot.edit_message_media(
        InputMediaPhoto(pictures.png(shade=2), caption="两步"), chat.id, sent.message_id, reply_markup=MARKUP
    )
    assert (shown.text, shown.buttons, shown.edits) == ("两步", ["👍"], 1)
    assert shown.file is not None
    assert shown.file.content == pictures.png(shade=2)
    await bot.edit_message_media(InputMediaDocument(b"steps", filename="steps.txt"), chat.id, sent.message_id)
    assert (shown.text, shown.buttons, shown.file_kind) == ("", [], "document")


async def test_an_edit_to_the_same_medium_caption_and_buttons_is_refused(bot: Bot, chat: Chat) -> None:
    sent = await bot.send_photo(chat.id, pictures.png(), caption="一步", reply_markup=MARKUP)
    same = InputMediaPhoto(sent.photo[-1].file_id, caption="一步")
    with pytest.raises(BadRequest, match="Message is not modified"):
        await bot.edit_message_media(same, chat.id, sent.message_id, reply_markup=MARKUP)
    with pytest.raises(BadRequest, match="Message is not modified"):
        await bot.edit_message_caption(chat.id, sent.message_id, caption="一步", reply_markup=MARKUP)
    await bot.edit_message_caption(chat.id, sent.message_id, caption="两步", reply_markup=MARKUP)
    assert chat.answers[0].history == ["一步", "两步"]


async def test_a_text_becomes_a_photo_with_a_caption_and_then_has_no_text_to_edit(bot: Bot, chat: Chat) -> None:
    sent = await bot.send_message(chat.id, "开始")
    await bot.edit_message_media(InputMediaPhoto(pictures.png(), caption="曲线"), chat.id, sent.message_id)
    with pytest.raises(BadRequest, match="There is no text in the message to edit"):
        await sent.edit_text("完")
    assert chat.answers[0].text == "曲线"


async def test_bad_edits_of_media_are_refused(bot: Bot, alice: Person, chat: Chat) -> None:
    question = alice.says(chat, "在吗")
    photo = InputMediaPhoto(pictures.png())
    sent = await bot.send_photo(chat.id, pictures.png(), caption="一步")
    with pytest.raises(BadRequest, match="Media_caption_too_long"):
        await bot.edit_message_media(InputMediaPhoto(pictures.png(), caption="字" * 1025), chat.id, sent.message_id)
    with pytest.raises(BadRequest, match="Message can't be edited"):
        await bot.edit_message_media(photo, chat.id, question.id)
    with pytest.raises(BadRequest, match="Message to edit not found"):
        await bot.edit_message_media(photo, chat.id, 999_999)
    with pytest.raises(BadRequest, match="Wrong file identifier/http url specified"):
        await bot.edit_message_media(InputMediaPhoto("no-such-file"), chat.id, sent.message_id)
    assert chat.answers[0].edits == 0


@pytest.mark.parametrize(
    ("media", "reason"),
    [
        ({}, "there is no media in the request"),
        ({"media": "1"}, "can't parse InputMedia: expected an Object"),
        ({"media": '{"type": "poll"}'}, "can't parse InputMedia: type must be one of the supported ones"),
        ({"media": '{"type": "photo"}'}, "can't parse InputMedia: media not found"),
    ],
)
def test_media_of_the_wrong_shape_are_refused(fake: FakeTelegram, media: dict[str, str], reason: str) -> None:
    answer = httpx.post(f"{fake.base_url}{fake.token}/editMessageMedia", json=media)
    assert answer.json()["description"] == f"Bad Request: {reason}"
