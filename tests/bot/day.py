"""A day of many people with the bot, in a few minutes: they write, paste, edit, press, react, stop, at random and by a
seed, while Telegram and Ollama fail now and then and the bot is killed once and told to end once. `Day.live` does all
that, and `Day.troubles` says afterwards what is not as it must be. What people write has no part in the bot's log."""

from __future__ import annotations

import itertools
import random
import re
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text as sql

from tests.bot.running import World
from tests.fakes import ollama
from tests.fakes.ollama import Exchange, Reply
from tests.fakes.telegram import Call, Chat, Message, Person, pictures

SPEED = 20  # how many times faster than real the limits of Telegram are, and our pace below them
MOST_UNDER_WAY = 40  # turns: more than half the queue is one day's rush, and no fault
SETTLING_SECONDS = 120
# What Telegram says to a call that does once more what took effect.
OF_REPEATS = ("message is not modified", "query is too old", "message to delete not found")
COMMANDS = ("/help", "/id", "/new", "/start", "/why", "/feedback", "/lang", "/privacy", "/export", "/nonsense")
PARTS = (
    "**粗** 与 `代码`,List<String> 也在。",
    "| 甲 | 乙 |\n|---|---|\n| 1 | 2 |",
    "```\nprint(1)\n```",
    "- 一\n- 二",
    "$E=mc^2$ 😀",
    "<b>不是标签</b>",
)


@dataclass
class Asked:
    """A question that must be answered, or marked."""

    message: Message
    text: str


@dataclass
class Day:
    world: World
    users: int = 20
    messages: int = 200
    seed: int = 7
    people: list[Person] = field(default_factory=list)
    rooms: list[tuple[Chat, int | None]] = field(default_factory=list)  # groups, or topics of one
    asked: list[Asked] = field(default_factory=list)
    lives: list[float] = field(default_factory=list)  # when each process began, by the fake's clock
    done: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    raters: set[tuple[int, int]] = field(default_factory=set)  # person and answer
    reacted: set[int] = field(default_factory=set)  # people

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.telegram, self.ollama = self.world.telegram, self.world.ollama
        self.ollama.answer = self._reply
        self.people = [self.telegram.user(f"Person {n}", username=f"person_{n}") for n in range(self.users)]
        for number in range(max(2, self.users // 20)):
            members = self.rng.sample(self.people, min(8, self.users))
            is_forum = number % 2 == 1
            group = self.telegram.group(f"Group {number}", members=members, bot_is_admin=number % 3 > 0, forum=is_forum)
            topics = [self.telegram.topic(group, f"Topic {each}") for each in range(2)] if is_forum else [None]
            self.rooms += [(group, topic) for topic in topics]

    # What the served release says: one of these by what was asked, so that a repeated question is answered the same way

    def _reply(self, exchange: Exchange) -> Reply:
        words = exchange.messages[-1]["content"]
        number = (re.findall(r"问(\d+)完", words) or ["0"])[-1]
        rng = random.Random(f"{self.seed}:{number}:{len(self.ollama.exchanges)}")
        lines = [f"答{number}", *(rng.choice(PARTS) for _ in range(rng.choice((1, 1, 2, 3, 8)))), f"毕{number}"]
        if rng.random() < 0.03:
            lines[1:1] = [f"很长的一行,第{n}行。" + "字" * 60 for n in range(90)]  # more than one message
        how: dict[str, Any] = {"token_seconds": rng.choice((0.0, 0.01, 0.05))}
        if rng.random() < 0.02:
            how["dies_after"] = 3
        text = "\n\n".join(lines)
        size = max(4, len(text) // 20)  # so that a long one does not stream for a minute
        return Reply(tuple(text[at : at + size] for at in range(0, len(text), size)), **how)

    # The day

    def live(self) -> None:
        self._begin()
        ends = {self.messages // 3: self._killed, 2 * self.messages // 3: self._told_to_end}
        for number in range(self.messages):
            self._say(number)
            for act in self._acts():
                act()
                self.done[act.__name__.lstrip("_")] += 1
            if number % 9 == 0:
                self._break_something()
            if number in ends:
                ends[number](number)
            self._breathe()
        self._settle()

    def _begin(self) -> None:
        self.world.start()
        self.lives.append(self.telegram.clock.now())

    def _acts(self) -> list[Callable[[], None]]:
        odds: list[tuple[float, Callable[[], None]]] = [
            (0.5, self._press), (0.1, self._press_twice), (0.08, self._press_late), (0.08, self._forge),
            (0.15, self._react), (0.08, self._edit), (0.1, self._stop), (0.15, self._command), (0.2, self._correct),
            (0.05, self._send_media), (0.05, self._repeat_update),
        ]  # fmt: skip
        return [act for odd, act in odds if self.rng.random() < odd]

    def _say(self, number: int) -> None:
        who = self.rng.choice(self.people)
        if self.rng.random() < 0.3 and (places := [each for each in self.rooms if who in each[0].members]):
            chat, topic = self.rng.choice(places)
            text = f"@{self.telegram.bot['username']} 秘密的问{number}完"
            replied = self.rng.choice(chat.answers[-5:]) if chat.answers and self.rng.random() < 0.3 else None
            if replied is not None and (replied.thread_id != topic or replied.asks_for_reply):
                replied = None
            self.asked.append(Asked(who.says(chat, text, thread=topic, reply_to=replied), f"秘密的问{number}完"))
            return
        chat = self.telegram.private(who)
        if self.rng.random() < 0.03:
            pieces = who.pastes(chat, "秘密的" + "长" * 4500 + f"问{number}完")
            self.asked.append(Asked(pieces[0], pieces[-1].text))
            return
        self.asked.append(Asked(who.says(chat, f"秘密的问{number}完"), f"秘密的问{number}完"))

    def _shown(self, *, of_bot: bool = True) -> tuple[Person, Message] | None:
        """One of the newest messages with buttons somewhere, and who is there."""
        who = self.rng.choice(self.people)
        chats = [self.telegram.private(who), *(chat for chat, _ in self.rooms if who in chat.members)]
        chat = self.rng.choice(chats)
        with self.telegram.lock:
            found = [each for each in chat.messages[-12:] if each.from_bot is of_bot and (each.keys or not of_bot)]
        return (who, self.rng.choice(found)) if found else None

    def _press(self) -> None:
        if shown := self._shown():
            self._press_one(*shown)

    def _press_one(self, who: Person, message: Message) -> str | None:
        with self.telegram.lock:
            keys = [key["callback_data"] for key in message.keys if "callback_data" in key]
            data = self.rng.choice(keys) if keys else None
            if data is not None:
                self._note(who, data)
                who.presses(message, data)
        return data

    def _note(self, who: Person, data: str) -> None:
        if data.partition(":")[0] in {"up", "down", "why", "fix", "undo"}:
            self.raters.add((who.id, int(data.split(":")[1])))

    def _press_twice(self) -> None:
        if (shown := self._shown()) and (data := self._press_one(*shown)):
            self._note(shown[0], data)
            shown[0].forges_press(shown[1], data)

    def _press_late(self) -> None:
        """A button that stood there before, on a screen that is out of date."""
        if not (shown := self._shown()):
            return
        who, message = shown
        rows = [row for version in message.versions for row in (version.markup or {}).get("inline_keyboard", [])]
        keys = [key["callback_data"] for row in rows for key in row if "callback_data" in key]
        data = self.rng.choice(keys)
        self._note(who, data)
        who.forges_press(message, data)

    def _forge(self) -> None:
        if shown := self._shown():
            data = self.rng.choice(
                ("up:999999", "promote:1", "stop:1", "why:1:nonsense", "pick:1:2:left", "字", "x" * 64)
            )
            self.rng.choice(self.people).forges_press(shown[1], data)

    def _react(self) -> None:
        if shown := self._shown():
            who, message = shown
            self.reacted.add(who.id)
            who.reacts(message, *self.rng.choice((("👍",), ("👎",), (), ("❤",))))

    def _edit(self) -> None:
        if (shown := self._shown(of_bot=False)) and shown[1].sender is shown[0] and "问" in shown[1].text:
            shown[0].edits(shown[1], shown[1].text.replace("秘密的", "秘密地再"))

    def _stop(self) -> None:
        """Beside a draft, or under a message that grows: whoever's is first found."""
        for who in self.rng.sample(self.people, len(self.people)):
            chat = self.telegram.private(who)
            with self.telegram.lock:
                if any(each.can_stop and not each.is_stopped for each in chat.drafts):
                    who.stops_draft(chat)
                    return
                keys = [(m, key.get("callback_data", "")) for m in chat.answers[-3:] for key in m.keys]
                if growing := [(message, data) for message, data in keys if data.startswith("stop")]:
                    who.presses(*growing[-1])
                    return

    def _command(self) -> None:
        who = self.rng.choice(self.people)
        who.says(self.telegram.private(who), self.rng.choice(COMMANDS))

    def _correct(self) -> None:
        """Write what was asked for under ✏️, where that was pressed."""
        for who in self.people:
            chat = self.telegram.private(who)
            with self.telegram.lock:
                replied = {message.reply_to for message in chat.messages if message.reply_to}
                open_prompts = [each for each in chat.answers[-6:] if each.asks_for_reply and each not in replied]
            if open_prompts:
                who.says(chat, "秘密的更正", reply_to=open_prompts[-1])
                return

    def _send_media(self) -> None:
        who = self.rng.choice(self.people)
        chat = self.telegram.private(who)
        self.rng.choice(
            (
                lambda: who.sends_photo(chat, pictures.png(64, 48)),
                lambda: who.sends_voice(chat, b"opus"),
                lambda: who.sends_sticker(chat),
                lambda: who.sends_document(chat, "a.bin", b"\0\1", mime_type="application/octet-stream"),
            )
        )()

    def _repeat_update(self) -> None:
        with self.telegram.lock:
            delivered = self.telegram.updates.delivered
        if delivered:
            self.telegram.deliver_again(self.rng.choice(delivered[-20:]))

    # What breaks

    def _break_something(self) -> None:
        method = self.rng.choice(("sendMessage", "editMessageText", "sendMessageDraft", "answerCallbackQuery"))
        after = self.rng.random() < 0.5
        self.rng.choice(
            (
                lambda: self.telegram.inject(method, status=429, retry_after=1),
                lambda: self.telegram.inject(method, status=502, after_effect=after),
                lambda: self.telegram.drop(method, after_effect=after),
                lambda: self.telegram.drop("getUpdates"),
                lambda: self.telegram.delay(method, seconds=1 / SPEED),
                lambda: self.ollama.inject("/api/chat", *ollama.RUNNER_STOPPED),
                lambda: self.ollama.inject("/api/chat", *ollama.BUSY),
            )
        )()

    def _killed(self, number: int) -> None:
        self.world.kill()
        self._while_it_is_gone(number)

    def _told_to_end(self, number: int) -> None:
        assert self.world.stop() == 0
        self._while_it_is_gone(number)

    def _while_it_is_gone(self, number: int) -> None:
        for extra in range(3):
            self._say(1_000_000 + number * 10 + extra)
        self._press()
        self._begin()

    def _breathe(self) -> None:
        """Wait while more is under way than a rush would bring."""

        def room() -> bool:
            return self._under_way() < MOST_UNDER_WAY

        if len(self.asked) % 10 == 0:
            self._wait(room, "the rush is over")

    def _under_way(self) -> int:
        return self._count("showing", "finished_at") + len(self.telegram.updates.pending)

    def _count(self, table: str, missing: str) -> int:
        with self.world.db.engine.connect() as connection:
            found = connection.execute(sql(f'SELECT count(*) FROM "{table}" WHERE {missing} IS NULL'))
            return int(found.scalar_one())

    def _wait(self, predicate: Callable[[], bool], about: str) -> None:
        """Without the fake's lock, which a look into the database would hold for long."""
        ends_at = time.monotonic() + SETTLING_SECONDS
        while not predicate():
            assert time.monotonic() < ends_at, f"in vain: {about}\n{self.world.logged()[-4000:]}"
            time.sleep(0.1)

    def _settle(self) -> None:
        def done() -> bool:
            return self._under_way() == 0 and self._count("update", "handled_at") == 0

        self._wait(lambda: not self.telegram.updates.pending, "all is fetched")
        self._wait(done, "all is handled and shown")

    # What must hold

    def troubles(self) -> list[str]:
        checks = (self._unanswered, self._unfinished, self._incomplete, self._out_of_order, self._rated_too_often)
        return [each for check in checks for each in check()] + self._avoidable() + self._told_in_the_log()

    def _unanswered(self) -> list[str]:
        rows = self.world.rows("message")
        by_source: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            by_source[":".join(row["source"].split(":")[:3])].append(row["id"])
        turns = {row["message_id"] for row in self.world.rows("turn")}
        found = []
        for asked in self.asked:
            source = f"telegram:{asked.message.chat.id}:{asked.message.id}"
            if not by_source[source]:
                found.append(f"no message was kept for {source}: {asked.text[:40]!r}")
            elif not turns & set(by_source[source]):
                found.append(f"nobody answered {source}: {asked.text[:40]!r}")
        return found

    def _unfinished(self) -> list[str]:
        turns = [f"turn {row['id']} is {row['state']}" for row in self.world.rows("turn") if row["state"] != "closed"]
        shown = {row["turn_id"]: row for row in self.world.rows("showing")}
        return turns + [f"turn {each} has not been shown" for each, row in shown.items() if not row["finished_at"]]

    def _incomplete(self) -> list[str]:
        """Every answer's letters, digits and Chinese stand on the screen in their order, and whatever shows a turn says
        something: an answer, or why there is none."""
        found = [
            f"turn {row['turn_id']} shows nothing"
            for row in self.world.rows("showing")
            if row["message"] and not self._on_screen(self._chat_of(row["turn_id"]), row["message"]).strip()
        ]
        parts = defaultdict(list)
        for row in self.world.rows("delivery"):
            parts[row["answer_id"]].append(row)
        for answer in self.world.rows("answer"):
            if not answer["text"].strip():
                continue
            rows = sorted(parts[answer["id"]], key=lambda row: row["part"])
            seen = "".join(self._on_screen(row["chat"], row["message"]) for row in rows)
            if _letters(answer["text"]) not in _letters(seen):
                found.append(f"answer {answer['id']} is not whole: {answer['text'][:60]!r} … {seen[-60:]!r}")
        return found

    def _chat_of(self, turn_id: int) -> str:
        found = self.world.rows("turn", id=turn_id)[0]["conversation_id"]
        chat_id = self.world.rows("conversation", id=found)[0]["chat_id"]
        return str(self.world.rows("chat", id=chat_id)[0]["external_id"])

    def _on_screen(self, chat: str, message: str) -> str:
        """`message` may be several, as a showing keeps them."""
        ids = [int(each) for each in message.rpartition(":")[2].split(",") if each]
        found = (self.telegram.chats[int(chat)].find(each) for each in ids)
        return "".join(each.text for each in found if each)

    def _out_of_order(self) -> list[str]:
        """Within a conversation questions are answered in the order in which they were asked."""
        asked = {row["id"]: row for row in self.world.rows("message") if row["source"].count(":") == 2}  # not edited
        first: dict[int, dict[str, Any]] = {}
        for turn in self.world.rows("turn"):
            if turn["message_id"] in asked:
                first.setdefault(turn["message_id"], turn)
        found, last = [], dict[int, tuple[int, Any]]()
        for _, turn in sorted(first.items(), key=lambda item: _asked_at(asked[item[0]])):
            if turn["opened_at"] is None:
                continue
            before = last.get(turn["conversation_id"])
            if before is not None and before[1] > turn["opened_at"]:
                found.append(f"turn {turn['id']} was answered before turn {before[0]}, which was asked earlier")
            last[turn["conversation_id"]] = (turn["id"], turn["opened_at"])
        return found

    def _rated_too_often(self) -> list[str]:
        """A rating is what one person said of one answer: no row without an act, and the same is not said twice."""
        rows: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        for row in self.world.rows("rating"):
            rows[row["user_id"], row["answer_id"]].append(row)
        found = []
        for (user, answer), each in rows.items():
            said = [(row["thumb"], row["reason"], row["correction"]) for row in each]
            if any(one == other for one, other in itertools.pairwise(said)):
                found.append(f"user {user} said the same of answer {answer} twice: {said}")
        known = {row["id"]: int(row["external_id"]) for row in self.world.rows("user")}
        counted = {(known[user], answer) for user, answer in rows}
        ghosts = [each for each in counted - self.raters if each[0] not in self.reacted]
        return found + [f"nobody rated answer {answer} as {user}" for user, answer in ghosts]

    def _avoidable(self) -> list[str]:
        """Refused calls, but those that repeat what took effect without the bot having been told."""
        found, told = [], list[Call]()
        for call in self.telegram.calls:
            if call.is_refusal and not self._is_repeat(call, told):
                found.append(f"{call.method}: {call.description}{self._press_of(call)} {str(call.params)[:200]}")
            told.append(call)
        return found

    def _press_of(self, call: Call) -> str:
        query = str(call.params.get("callback_query_id"))
        press = next((each for each in self.telegram.presses if each.id == query), None)
        if press is None:
            return ""
        age, updates = call.at - press.at, [each.get("callback_query", {}) for each in self.telegram.updates.delivered]
        count = sum(each.get("id") == query for each in updates)
        return f" ({press.data!r} {age:.1f} s old, answered: {press.answered}, delivered {count}x)"

    def _is_repeat(self, call: Call, before: list[Call]) -> bool:
        """Of what the last call about the same thing did: by a process that is gone, or without being told."""
        same = [each for each in before if each.took_effect and _about(each) == _about(call)]
        if not same or not any(words in call.description for words in OF_REPEATS):
            return False
        was_another_life = any(same[-1].at < life <= call.at for life in self.lives)
        return same[-1].injected or same[-1].status is None or was_another_life

    def _told_in_the_log(self) -> list[str]:
        log = self.world.logged()
        secrets = [word for word in ("秘密", "更正", self.telegram.token) if word in log]
        return [f"the log tells {each!r}" for each in secrets] + self.world.errors()

    def summary(self) -> str:
        acts = ", ".join(f"{name} {number}" for name, number in sorted(self.done.items()))
        calls = len(self.telegram.calls)
        ended: dict[str, int] = defaultdict(int)
        for row in self.world.rows("turn"):
            ended[str(row["ended"])] += 1
        rated, picked = len(self.world.rows("rating")), len(self.world.rows("comparison"))
        return (
            f"{len(self.asked)} questions of {self.users} people; {acts}\n{calls} calls of Telegram, "
            f"{sum(call.injected for call in self.telegram.calls)} of them broken; turns {dict(ended)}; "
            f"{rated} ratings, {picked} comparisons"
        )


def _letters(text: str) -> str:
    """`NFKC`: a power of two may be shown as one."""
    return "".join(each for each in unicodedata.normalize("NFKC", text) if each.isalnum())


def _about(call: Call) -> tuple[Any, ...]:
    """The press that is answered, or the message that is sent or changed."""
    if "callback_query_id" in call.params:
        return (call.params["callback_query_id"],)
    sent = call.result.get("message_id") if isinstance(call.result, dict) else None
    return call.params.get("chat_id"), call.params.get("message_id", sent)


def _asked_at(message: dict[str, Any]) -> tuple[int, int]:
    number = int(message["source"].split(":")[2])
    return number, message["id"]
