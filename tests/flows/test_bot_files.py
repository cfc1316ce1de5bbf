"""What people send that is no text: pictures, text files, what cannot be read, and all of it in a random order.

One bot serves the tests of this file, with a long context; each test brings its own people.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storage import deployments, users
from storage.records import Role
from tests.bot import running
from tests.bot.running import World, serve
from tests.fakes.telegram import Chat, Message, Person, pictures

SEED = 3
PNG = pictures.png(8, 6)


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.reading_much(migrated_sqlite, tmp_path_factory.mktemp("bot")) as made:
        yield made


@pytest.fixture
def here(shared: World) -> Iterator[World]:
    with running.met(shared) as made:
        yield made


@pytest.fixture
def sighted(here: World) -> Iterator[None]:
    """A release that sees."""
    live = here.db.read(deployments.live)
    assert live is not None
    if "huigan:eyes" not in here.ollama.tags:
        here.ollama.add("huigan:eyes", parameters={"num_ctx": running.MUCH_TOKENS}, sees=True)
        serve(here.db, "huigan:eyes", context_tokens=running.MUCH_TOKENS)
    else:
        deploy(here, "huigan:eyes")
    yield
    here.db.write(deployments.deploy, live.release.id, "test", "test", datetime.now(UTC))


def deploy(here: World, tag: str, share: float = 1.0) -> None:
    """Below 1, as a canary of conversations."""
    [release] = here.rows("release", tag=tag)
    here.db.write(deployments.deploy, release["id"], "test", "conversations", datetime.now(UTC), share=share)


def asked(here: World) -> list[dict[str, Any]]:
    """What the last answer was given to, without the system text."""
    return here.ollama.last("/api/chat").messages[1:]


def words(here: World) -> list[str]:
    return [each["content"] for each in asked(here)]


@pytest.mark.usefixtures("sighted")
def test_a_picture_is_seen_kept_and_still_seen_by_later_answers(here: World) -> None:
    here.alice.sends_photo(here.chat, b"a photo of tea", caption="这是什么茶？")
    first = here.answer()
    assert asked(here)[-1]["content"] == "这是什么茶？"
    assert [base64.b64decode(each) for each in asked(here)[-1]["images"]] == [b"a photo of tea"]
    here.says("几年的？")
    here.answer(after=first)
    assert [len(each.get("images", [])) for each in asked(here)] == [1, 0, 0]
    [kept] = [row for row in here.rows("attachment") if row["message_id"] == here.mine("message")[0]["id"]]
    assert Path(kept["path"]).read_bytes() == b"a photo of tea"
    assert Path(kept["path"]).is_relative_to(here.folder / "attachments")
    deploy(here, "huigan:long")  # which does not see: the words stay
    here.says("谢谢")
    here.answer(after=first)
    here.wait(lambda: words(here)[-1] == "谢谢")
    assert words(here)[0] == "这是什么茶？"
    assert not any("images" in each for each in asked(here))


@pytest.mark.usefixtures("sighted")
def test_an_album_is_one_question(here: World) -> None:
    here.alice.sends_album(here.chat, [b"one", b"two", b"three"], caption="哪个好？")
    here.answer()
    assert [base64.b64decode(each) for each in asked(here)[-1]["images"]] == [b"one", b"two", b"three"]
    assert len(here.mine("turn")) == 1


@pytest.mark.usefixtures("sighted")
def test_a_picture_without_words_and_one_sent_as_a_file_are_seen(here: World) -> None:
    here.alice.sends_photo(here.chat, b"photo")
    first = here.answer()
    assert words(here)[-1] == "请看看这张图片。"
    here.alice.sends_document(here.chat, "tea.png", PNG, mime_type="image/png", caption="这个呢")
    here.answer(after=first)
    assert base64.b64decode(asked(here)[-1]["images"][0]) == PNG


@pytest.mark.usefixtures("sighted")
def test_in_a_group_a_picture_speaks_to_us_by_a_mention_in_its_caption(here: World) -> None:
    group = here.telegram.group("茶友", members=[here.alice], bot_is_admin=True)
    here.alice.sends_photo(group, b"not for us", caption="看")
    here.alice.sends_photo(group, b"for us", caption="@huigan_bot 这是什么")
    here.answer(group)
    assert words(here) == ["这是什么"]
    assert base64.b64decode(asked(here)[-1]["images"][0]) == b"for us"


def test_a_release_that_does_not_see_says_so(here: World) -> None:
    here.alice.sends_photo(here.chat, b"photo", caption="这是什么")
    here.said("看不懂图片")
    here.alice.sends_album(here.chat, [b"one", b"two"])
    here.wait(lambda: sum("看不懂图片" in text for text in here.chat.texts) == 2)
    here.settle()
    assert sum("看不懂图片" in text for text in here.chat.texts) == 2, "an album is refused once"


@pytest.mark.usefixtures("sighted")
@pytest.mark.parametrize("sees", [True, False], ids=["the canary sees", "the live one sees"])
def test_whether_a_picture_can_be_seen_is_asked_of_the_release_that_answers_there(here: World, *, sees: bool) -> None:
    """In the canary's conversations and in the others, and for a reply into an older one."""
    first = (here.says("一"), here.answer())[1]
    with_canary = here.mine("turn")[0]["conversation_id"]
    eyes, blind = (here.rows("release", tag=tag)[0] for tag in ("huigan:eyes", "huigan:long"))
    live, tried = (blind, eyes) if sees else (eyes, blind)
    here.says("/new")
    here.said("好，我们重新开始")
    second = (here.says("二"), here.answer(after=first))[1]
    others = here.mine("turn")[-1]["conversation_id"]
    mine, theirs = (deployments.lot(tried["tag"], each) for each in (with_canary, others))
    assert mine != theirs
    is_lower = mine < theirs  # the share lies between them: the first conversation is on this side of it
    deploy(here, live["tag"])
    deploy(here, tried["tag"], (mine + theirs) / 2)
    for said, expected in ((second, tried if not is_lower else live), (first, tried if is_lower else live)):
        count = len(here.mine("turn"))
        here.alice.sends_photo(here.chat, b"photo", caption="这是什么", reply_to=said)
        if expected is eyes:
            here.wait(lambda n=count: len(here.mine("turn")) == n + 1, about="a turn")
            here.wait(lambda: here.mine("turn")[-1]["closed_at"], about="it is answered")
            assert here.mine("turn")[-1]["tag"] == "huigan:eyes"
        else:
            here.said("看不懂图片")
            assert len(here.mine("turn")) == count


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_a_text_file_is_read_as_part_of_the_question(here: World, encoding: str) -> None:
    content = "铁观音,95\n龙井,80\n```\n"
    here.alice.sends_document(here.chat, "茶温.csv", content.encode(encoding), mime_type="text/csv", caption="几度？")
    here.answer()
    assert words(here) == ["几度？\n\n茶温.csv\n````\n铁观音,95\n龙井,80\n```\n````"]


def test_of_a_long_text_file_the_beginning_is_read_and_that_is_said(here: World) -> None:
    here.alice.sends_document(here.chat, "long.txt", ("茶" * 50_000).encode())
    note = here.said("只读了前")
    here.answer(after=note)
    read = words(here)[-1].count("茶")
    assert f"前 {read} 个字符（共 50000 个）" in note.text
    assert 10_000 < read <= 32_000


def test_what_cannot_be_read_is_refused_each_with_what_to_do(here: World) -> None:
    stored = len(here.rows("message"))
    here.alice.sends_voice(here.chat, b"ogg")
    here.said("听不懂语音")
    here.alice.sends_sticker(here.chat)
    here.said("贴纸")
    here.alice.sends_video(here.chat, b"mp4")
    here.said("截一张图")
    here.alice.sends_document(here.chat, "a.pdf", b"%PDF", mime_type="application/pdf")
    here.said("这种文件我读不了")
    here.alice.sends_document(here.chat, "a.heic", b"heic", mime_type="image/heic")
    here.said("JPEG")
    here.alice.sends_document(here.chat, "a.txt", b"\x00\xff\x00")
    here.said("UTF-8")
    here.alice.sends_document(here.chat, "b.txt", b"\n")
    here.said("b.txt 是空的")
    here.alice.sends_document(here.chat, "c.txt", b"a" * 1_000_001)
    here.said("1 MB")
    group = here.telegram.group("茶友", members=[here.alice], bot_is_admin=True)
    here.alice.sends_sticker(group)
    here.settle()
    assert len(here.rows("message")) == stored
    assert group.answers == []


@pytest.mark.usefixtures("sighted")
def test_nothing_is_fetched_of_who_is_not_answered(here: World) -> None:
    here.says("你好")
    here.answer()
    here.db.write(users.set_role, here.me(), Role.BLOCKED)
    fetched = len(here.telegram.calls_to("getFile"))
    here.alice.sends_photo(here.chat, b"photo")
    here.settle()
    assert len(here.telegram.calls_to("getFile")) == fetched
    assert len(here.mine("message")) == 1


def test_a_file_that_is_fetched_at_the_second_try_is_read(here: World) -> None:
    here.telegram.drop("getFile")
    here.alice.sends_document(here.chat, "a.txt", "茶".encode())
    here.answer()
    assert "茶" in here.mine("message")[0]["text"]


@pytest.mark.usefixtures("sighted")
def test_what_could_not_be_fetched_is_fetched_again_by_a_button_and_answered_once(here: World) -> None:
    fault = here.telegram.inject("getFile", status=400, times=3, description="Bad Request: temporarily unavailable")
    here.alice.sends_album(here.chat, [b"one", b"two"], caption="哪个好？")
    lost = here.said("没有取到文件")
    here.alice.presses(lost, "🔁 重试")
    here.wait(lambda: fault.times == 1 and lost.edits == 2, about="it is lost again, and the button is back")
    forged = here.telegram.user("Bob").forges_press(lost, lost.keys[0]["callback_data"])
    here.wait(lambda: forged.answered)
    assert "提问的人" in forged.answer
    fault.times = 0
    with here.telegram.changing():
        presses = [here.alice.presses(lost, "🔁 重试") for _ in range(2)]
    here.answer()
    here.wait(lambda: all(each.answered for each in presses))
    here.settle()
    assert lost.buttons == []
    assert [base64.b64decode(each) for each in asked(here)[-1]["images"]] == [b"one", b"two"]
    assert sum("👍" in each.buttons for each in here.chat.answers) == len(here.mine("turn")) == 1


@pytest.mark.usefixtures("sighted")
def test_a_picture_that_is_gone_from_the_disk_is_asked_for_again_and_later_answers_go_without(here: World) -> None:
    here.alice.sends_photo(here.chat, b"a photo that goes", caption="这是什么？")
    first = here.answer()
    [kept] = [row for row in here.rows("attachment") if row["message_id"] == here.mine("message")[0]["id"]]
    Path(kept["path"]).unlink()
    here.alice.presses(first, "🔁")
    gone = here.said("图片找不到了")
    assert gone.buttons == ["🔁 重试"]
    here.says("几年的？")
    here.answer(after=gone)
    assert words(here) == ["这是什么？", first.text, "几年的？"]
    assert not any("images" in each for each in asked(here))


# All of it


class Crowd:
    """People who send whatever comes to their mind, and what of it was said to the bot."""

    def __init__(self, here: World, seed: int) -> None:
        self.rng = random.Random(seed)
        people = [here.alice, *(here.telegram.user(name) for name in ("Bob", "Cai", "Dan"))]
        group = here.telegram.group("茶友", members=people, bot_is_admin=True)
        forum = here.telegram.group("茶坛", members=people, forum=True)
        topics = [here.telegram.topic(forum, name) for name in ("绿茶", "红茶")]
        self.places: list[tuple[Chat, Person, int | None]] = [
            *((here.telegram.private(each), each, None) for each in people),
            *((group, each, None) for each in people),
            *((forum, each, self.rng.choice([None, *topics])) for each in people),
        ]
        self.pasted: set[tuple[Chat, Person]] = set()  # nobody says more within the two seconds that are one paste
        self.heard: list[Message] = []

    def act(self) -> None:
        chat, who, thread = self.rng.choice([each for each in self.places if each[:2] not in self.pasted])
        answers = [each for each in chat.answers if each.thread_id == thread]
        reply_to = self.rng.choice([None, None, *answers[-1:]])
        name = "@huigan_bot " if self.rng.random() < 0.6 else ""
        sent = self.rng.choice(self._ways())(chat, who, name, {"thread": thread, "reply_to": reply_to})
        if chat.is_private or reply_to is not None or sent.text.startswith("@huigan_bot"):
            self.heard.append(sent)
            if self.rng.random() < 0.2 and "茶" in sent.text:
                who.edits(sent, sent.text.replace("茶", "水"))

    def _ways(self) -> list[Callable[[Chat, Person, str, dict[str, Any]], Message]]:
        place = {"latitude": 30.2, "longitude": 120.1}
        return [
            lambda chat, who, name, how: who.says(chat, f"{name}茶", **how),
            self._paste,
            lambda chat, who, name, how: who.forwards(chat, f"{name}茶", **how),
            lambda chat, who, name, how: who.sends_photo(chat, b"photo", caption=f"{name}茶", **how),
            lambda chat, who, name, how: who.sends_photo(chat, b"photo", **how),
            lambda chat, who, name, how: who.sends_album(chat, [b"one", b"two"], caption=f"{name}茶", **how)[0],
            lambda chat, who, name, how: who.sends_document(chat, "a.txt", b"a", caption=f"{name}茶", **how),
            lambda chat, who, name, how: who.sends_document(chat, "a.pdf", b"a", mime_type="application/pdf", **how),
            lambda chat, who, name, how: who.sends_document(chat, "a.txt", b"\0", caption=name, **how),
            lambda chat, who, name, how: who.sends_video(chat, b"video", caption=f"{name}茶", **how),
            lambda chat, who, name, how: who.sends_voice(chat, b"voice", **how),
            lambda chat, who, name, how: who.sends_sticker(chat, **how),
            lambda chat, who, name, how: who.sends_other(chat, "location", place, **how),
            lambda chat, who, name, how: who.sends_other(chat, "dice", {"emoji": "🎲", "value": 3}, **how),
        ]

    def _paste(self, chat: Chat, who: Person, name: str, how: dict[str, Any]) -> Message:
        self.pasted.add((chat, who))
        return who.pastes(chat, name + "茶" * 5000, **how)[0]


@pytest.mark.usefixtures("sighted")
def test_whatever_is_sent_in_whatever_order_has_an_answer_or_a_kind_refusal_where_it_was_said_to_us(
    here: World,
) -> None:
    crowd = Crowd(here, seed=SEED)
    for _ in range(30):
        crowd.act()
    here.wait(lambda: not here.telegram.updates.pending, about="all of it is received")
    here.settle()
    for chat in {chat for chat, _, _ in crowd.places}:
        heard = [each for each in crowd.heard if each.chat is chat]
        last = [each for each in chat.answers if each.buttons or "You said" not in each.text]  # of a long answer
        own = [each for each in last if "你改了问题" not in each.text and "只改一段" not in each.text]
        if chat.is_private:
            assert len(own) == len(heard), here.telegram.transcript()
        else:
            replied = [each.reply_to.id for each in own if each.reply_to]
            assert sorted(replied) == sorted(each.id for each in heard), here.telegram.transcript()


@pytest.mark.usefixtures("sighted")
def test_files_of_a_local_server_are_read_from_its_disk(here: World, tmp_path: Path) -> None:
    here.settle()
    here.telegram.local_files = tmp_path
    here.kill()
    here.start(local_mode=True)  # a server without such a folder serves it as well
    try:
        here.alice.sends_document(here.chat, "茶温.txt", "龙井,80".encode(), caption="几度？")
        first = here.answer()
        assert words(here) == ["几度？\n\n茶温.txt\n```\n龙井,80\n```"]
        here.alice.sends_photo(here.chat, b"a photo of tea", caption="这是什么茶？")
        here.answer(after=first)
        assert [base64.b64decode(each) for each in asked(here)[-1]["images"]] == [b"a photo of tea"]
        with here.telegram.changing():
            unseen = here.alice.sends_document(here.chat, "b.txt", b"b").file
            assert unseen is not None
            Path(unseen.path).unlink()
        here.said("没有取到文件")
    finally:
        here.telegram.local_files = None
