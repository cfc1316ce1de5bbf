"""Who may: roles, the gate, invitations, budgets; announcements, tags, health, the schedule, menus and the audit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storage import access, settings, users
from storage.db import Session
from storage.records import Role
from tests.bot import running
from tests.bot.running import World
from tests.fakes.telegram import Chat, Person


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.shared(migrated_sqlite, tmp_path_factory.mktemp("bot")) as made:
        yield made


@pytest.fixture
def here(shared: World) -> Iterator[World]:
    """Alice is an owner whom nobody has met before."""
    shared.meet_alice()
    shared.says("/help")
    shared.said("/new 开始新的对话")
    shared.db.write(_make, str(shared.alice.id), Role.OWNER)
    yield shared
    shared.db.write(access.set_mode, access.OPEN, None, now())
    shared.db.write(access.set_budget, 0, None, now())
    assert shared.refused() == []
    assert shared.errors() == []


def now() -> datetime:
    return datetime.now(UTC)


def _make(session: Session, external_id: str, role: Role) -> None:
    known = users.find(session, "telegram", external_id)
    assert known is not None
    users.set_role(session, known.id, role)


def somebody(here: World, name: str, *, met: bool = True) -> tuple[Person, Chat]:
    person = here.telegram.user(name)
    chat = here.telegram.private(person)
    if met:
        here.says("/help", who=person, chat=chat)
        here.said("/new 开始新的对话", chat)
    return person, chat


def row(here: World, person: Person) -> dict[str, Any]:
    return here.rows("user", external_id=str(person.id))[0]


def card_of(here: World, person: Person) -> Any:
    here.says(f"/users {person.id}")
    return here.said(f"Telegram 编号 {person.id}")


def test_an_admin_is_made_gets_a_menu_and_is_unmade_and_only_owners_do_so(here: World) -> None:
    bob, bobs = somebody(here, "Bob")
    card = card_of(here, bob)
    here.alice.presses(card, "设为管理员")
    here.wait(lambda: "改回用户" in card.buttons)
    here.said("你现在是管理员了", bobs)
    menu = ("chat", bob.id, "")
    here.wait(lambda: "audit" in [each["command"] for each in here.telegram.commands.get(menu, [])], about="his menu")

    here.says(f"/users {here.alice.id}", who=bob, chat=bobs)
    hers = here.said(f"Telegram 编号 {here.alice.id}", bobs)
    assert hers.buttons == ["放行", "↩️ 所有人"] or hers.buttons == ["↩️ 所有人"]
    forged = bob.forges_press(hers, f"role:{row(here, here.alice)['id']}:blocked")
    here.wait(lambda: forged.answered)
    assert "失效" in forged.answer
    assert row(here, here.alice)["role"] == "owner"

    here.alice.presses(card, "改回用户")
    here.said("你不再是管理员了", bobs)
    here.wait(lambda: menu not in here.telegram.commands, about="his menu is taken")
    here.says("/users", who=bob, chat=bobs)
    here.said("只有管理员能用", bobs)
    here.says("/audit")
    assert "改了身份" in here.said("改了身份").text


def test_who_is_blocked_is_told_once_and_then_never_again_until_unblocked(here: World) -> None:
    carl, carls = somebody(here, "Carl")
    card = card_of(here, carl)
    here.alice.presses(card, "停用")
    here.wait(lambda: "恢复" in card.buttons)
    before = len(carls.answers)
    for words in ("在吗", "/help", "还在吗"):
        here.says(words, who=carl, chat=carls)
    here.said("你目前不能在这里提问", carls)
    here.settle()
    assert len(carls.answers) == before + 1
    assert here.rows("message", user_id=row(here, carl)["id"]) == []
    here.alice.presses(card, "恢复")
    here.said("你又可以在这里聊天了", carls)
    here.says("现在呢", who=carl, chat=carls)
    here.said("You said: 现在呢", carls)


def test_by_invitation_nobody_else_is_answered_and_a_link_admits_each_person_once(here: World) -> None:
    dora, doras = somebody(here, "Dora")
    here.says("/access invited")
    here.said("凭邀请使用")
    here.says("你好", who=dora, chat=doras)
    here.said("请向管理员要一个邀请链接", doras)
    here.says("/invite 1 3")
    link = re.search(r"start=(inv_\S+)", here.said("发给要邀请的人").text)
    assert link is not None
    assert link[1].removeprefix("inv_") not in str(here.rows("invitation"))
    for _ in range(2):
        here.says(f"/start {link[1]}", who=dora, chat=doras)
    here.wait(lambda: sum("邀请已生效" in text for text in doras.texts) == 2)
    eve, eves = somebody(here, "Eve", met=False)
    here.says(f"/start {link[1]}", who=eve, chat=eves)
    here.said("邀请链接已经失效了", eves)
    here.says("现在呢", who=dora, chat=doras)
    here.said("You said: 现在呢", doras)
    here.says("/invite admin 5")
    here.said("会成为管理员")
    here.says("/invites")
    listed = here.said("还能用 5 次")
    here.alice.presses(listed, listed.buttons[0])
    here.wait(lambda: "还能用 5 次" not in listed.text)


def test_a_group_is_let_in_by_an_admin_in_it(here: World) -> None:
    fay, _ = somebody(here, "Fay")
    group = here.telegram.group("茶友", members=[here.alice, fay])
    here.db.write(access.set_mode, access.INVITED, None, now())
    here.says("@huigan_bot 一", who=fay, chat=group)
    here.said("邀请链接", group)
    here.says("/admit@huigan_bot", chat=group)
    here.said("这个群放行了", group)
    here.says("@huigan_bot 二", who=fay, chat=group)
    here.said("You said: 二", group)


def test_a_daily_budget_ends_with_words_and_not_for_admins(here: World) -> None:
    gus, his = somebody(here, "Gus")
    here.says("/access budget 2")
    here.said("每人每天 2 个回答")
    for words in ("一", "二", "三"):
        here.says(words, who=gus, chat=his)
    assert "小时" in here.said("今天的 2 个回答用完了", his).text
    here.said("You said: 二", his)
    for words in ("甲", "乙", "丙"):
        here.says(words)
    here.said("You said: 丙")


def test_an_announcement_reaches_everybody_once_across_a_kill_and_skips_who_blocked_the_bot(here: World) -> None:
    crowd = [somebody(here, f"Person of {number}") for number in range(12)]
    gone, _ = crowd[0]
    gone.blocks()
    here.says("/broadcast")
    here.said("用法：/broadcast")
    here.says("/broadcast  😀 明天换新版本", entities=[{"type": "bold", "offset": 15, "length": 2}])
    here.alice.presses(here.said("把上面这条发给"), next(iter(here.said("把上面这条发给").buttons)))
    here.wait(lambda: any(each["sent_at"] for each in here.rows("outbox", code="broadcast")), about="it has begun")
    here.kill()
    here.start()
    here.wait(
        lambda: all(each["sent_at"] for each in here.rows("outbox", code="broadcast")), about="all is sent", timeout=30
    )
    here.said("群发完成")
    for person, chat in crowd[1:]:
        [fate] = here.rows("outbox", code="broadcast", user_id=row(here, person)["id"])
        had = [each for each in chat.answers if each.text == "😀 明天换新版本"]
        assert len(had) == 1 or (had == [] and fate["undeliverable"] == "unsure")
        assert all(each.entities == [{"type": "bold", "offset": 3, "length": 2}] for each in had)
    [lost] = here.rows("outbox", code="broadcast", user_id=row(here, gone)["id"])
    assert lost["undeliverable"] == "blocked"
    for call in here.telegram.refusals:
        if "blocked by the user" in call.description:
            call.injected = True  # it was this test that blocked
    here.says("/broadcast cancel")
    here.said("现在没有群发")


def test_tags_are_listed_fetched_stopped_and_removed_unless_needed(here: World) -> None:
    here.ollama.add("old:v1")
    here.says("/models")
    listed = here.said("old:v1")
    assert not any(running.TAG in button for button in listed.buttons)
    here.alice.presses(listed, "🗑 old:v1")
    here.wait(lambda: "old:v1" not in here.ollama.tags)
    here.wait(lambda: "old:v1" not in listed.text)
    here.says("/models pull tea:v2")
    here.said("✅ tea:v2 下载好了")
    assert "tea:v2" in here.ollama.tags
    here.ollama.inject("/api/pull", 200, "pull model manifest: file does not exist")
    here.says("/models pull nothing:v1")
    assert "file does not exist" in here.said("nothing:v1 下载失败").text
    here.ollama.hang("/api/pull")
    here.says("/models pull slow:v1")
    slow = here.said("准备下载 slow:v1")
    here.alice.presses(slow, "⏹ 停止")
    here.wait(lambda: "停止下载了" in slow.text)
    acts = [each["act"] for each in here.rows("audit", user_id=here.me())]
    assert {"tag.remove", "tag.pull"} <= set(acts)


def test_health_and_schedule_are_told_and_changed_in_words(here: World) -> None:
    here.says("/health")
    told = here.said("数据库").text
    assert "✓ Ollama" in told
    assert "✗ 自动训练：从没检查过" in told
    here.says("/schedule 0 3 * *")
    here.said("用法：/schedule")
    here.says("/schedule 61 3 * * *")
    here.said("定时的写法不对")
    here.says("/schedule 0 3 * * *")
    assert "半分钟" in here.said("0 3 * * *（管理员）").text
    here.says("/schedule min 50")
    here.said("满多少条新评价就训练：50（管理员）")
    kept = here.db.read(settings.get, "schedule")
    assert kept is not None
    assert kept.value == "0 3 * * *"
    here.says("/schedule off")
    here.said("定时训练（cron）：关（管理员）")
    here.says("/settings quiet_hours 8-23")
    here.said("安静时段，不自动训练：08:00-23:00（管理员）")
    here.says("/settings quiet_hours always")
    here.said("quiet_hours 不能这样写")
    here.says("/settings quiet_hours default")
    here.said("安静时段，不自动训练：关（默认）")
    here.says("/settings")
    here.said("min_raters · 至少要有多少人评过：5（默认）")
    here.says("/settings moon full")
    here.said("没有叫 moon 的设置")


def test_everybody_is_offered_their_commands_by_scope_and_language(here: World) -> None:
    def offered(scope: str, language: str) -> list[str]:
        return [each["command"] for each in here.telegram.commands.get((scope, 0, language), [])]

    here.wait(lambda: offered("all_group_chats", "zh"))
    assert "start" in offered("all_private_chats", "zh")
    assert "audit" not in offered("all_private_chats", "")
    assert "start" not in offered("all_group_chats", "")
    english = here.telegram.commands["default", 0, ""][0]["description"]
    assert english.isascii()
