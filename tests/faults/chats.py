"""Faults that strike the bot while three people write to it and press 👍 under what it answers: it is killed, its
database is away or full, Ollama or Telegram fails, updates come twice or in another order. Each message is kept and
answered once, each thumb counts once, and what was cut off says so.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from storage.db import Database, connect
from tests.bot import entry
from tests.bot.running import World, world
from tests.fakes import ollama as fakes
from tests.fakes.ollama import Exchange, Reply
from tests.fakes.telegram import Chat, Message, Person
from tests.faults import invariants
from tests.faults.disks import mounted
from tests.faults.forks import Fork, soon
from tests.faults.matrix import Came, Cell

SPEED = 20  # of Telegram's limits and our pace below them
SETTLED_SECONDS = 150.0
STRUCK_SECONDS = 5.0  # until something was asked while it is ill; one that is gone cannot be seen to be asked
DISK = "12m"
MOST_SECONDS = 0.25  # between two things that somebody does
ANSWER = "👍"
# A message that was sent without the bot being told is sent once more, which no bot can help: so not sendMessage.
BROKEN_METHODS = ("editMessageText", "answerCallbackQuery", "getUpdates", "sendChatAction")


class Talk:
    """People who write numbered questions; answer n holds the mark 答n毕 and no other does."""

    def __init__(self, cell: Cell, bot: World) -> None:
        self.rng, self.bot = cell.rng, bot
        self.telegram, self.ollama = bot.telegram, bot.ollama
        self.people = [self.telegram.user(f"Person {n}") for n in range(3)]
        self.asked: list[Message] = []
        self.given: dict[tuple[str, str], str] = {}
        self.ollama.answer = self._reply
        self._rated: set[int] = set()
        self._numbers = itertools.count(1)
        self.kills = 0

    def _reply(self, exchange: Exchange) -> Reply:
        number = (re.findall(r"问(\d+)完", exchange.messages[-1]["content"]) or ["0"])[-1]
        return Reply((f"答{number}毕", *"好的就是这样"), token_seconds=self.rng.choice((0.0, 0.02, 0.08)))

    # What people do

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.ask()
            self.rate()
            time.sleep(self.rng.uniform(0, MOST_SECONDS))

    def ask(self, who: Person | None = None) -> Message:
        someone = who or self.rng.choice(self.people)
        said = someone.says(self.telegram.private(someone), f"问{next(self._numbers)}完")
        self.asked.append(said)
        return said

    def rate(self) -> None:
        """One answer that stands and was not rated, if there is one."""
        with self.telegram.lock:
            standing = [
                (who, message, number)
                for who in self.people
                for message in self.telegram.private(who).answers
                if ANSWER in message.buttons and (number := _number(message)) and message.id not in self._rated
            ]
            if not standing:
                return
            who, message, number = self.rng.choice(standing)
            self._rated.add(message.id)
            who.presses(message, ANSWER)
        self.given[str(who.id), source(self.asked[number - 1])] = "up"

    def kill(self) -> None:
        assert self.bot.process is not None
        self.bot.kill()
        self.kills += self.bot.process.returncode == -9

    # What must hold

    def settled(self) -> list[str]:
        """Once nothing strikes any more, everybody asks once more, and is answered."""
        since = len(self.asked)
        for who in self.people:
            self.ask(who)
        soon(lambda: not self.telegram.updates.pending and not self._open(), SETTLED_SECONDS)
        complete = self._complete()
        unheard = [f"{source(each)} was not answered after all was well" for each in self.asked[since:]
                   if source(each) not in complete]  # fmt: skip
        numbered = {source(each): f"答{number}毕" for number, each in enumerate(self.asked, 1)}
        db, chats = self.bot.db, [self.telegram.private(who) for who in self.people]
        return [
            *unheard,
            *invariants.messages_are_kept_once(db, numbered),
            *invariants.messages_are_answered_once(db),
            *invariants.ratings_are_kept_once(db, self.given),
            *invariants.nothing_is_left_open(db),
            *invariants.answers_are_seen_once(chats, numbered.values(), {numbered[each] for each in complete}),
            *invariants.one_release_is_live(db, self.ollama.tags),
            *self._unmarked(chats),
        ]

    def _open(self) -> list[str]:
        """What is still under way, also of what was said and has not been kept yet."""
        kept = {row["source"] for row in self.bot.rows("message")}
        return [*invariants.nothing_is_left_open(self.bot.db), *({*map(source, self.asked)} - kept)]

    def _complete(self) -> set[str]:
        sources = {row["id"]: row["source"] for row in self.bot.rows("message")}
        return {sources[row["message_id"]] for row in self.bot.rows("turn") if str(row["ended"]) == "complete"}

    def _unmarked(self, chats: list[Chat]) -> list[str]:
        """Whatever was not answered whole can be tried again by a button."""
        cut = [row["id"] for row in self.bot.rows("turn") if str(row["ended"]) != "complete"]
        retries = sum("🔁 重试" in message.buttons for chat in chats for message in chat.answers)
        return [] if retries >= len(cut) else [f"{len(cut)} were not answered whole, and {retries} can be tried again"]

    def came(self) -> Came:
        broken = self.settled()
        cut = [row for row in self.bot.rows("turn") if str(row["ended"]) != "complete"]
        return Came("what was cut off says so" if cut else "all answered", broken, self.kills)


def source(message: Message) -> str:
    return f"telegram:{message.chat.id}:{message.id}"


def _number(message: Message) -> int:
    found = re.findall(r"答(\d+)毕", message.text)
    return int(found[0]) if found else 0


@contextmanager
def talking(cell: Cell, home: Path | None = None) -> Iterator[Talk]:
    where = home or cell.folder
    db: Database = connect(f"sqlite:///{shutil.copy(cell.grounds.migrated, where / 'huigan.db')}")
    try:
        with world(db, cell.folder, SPEED, overall=SPEED) as bot:
            bot.begun = lambda told: Fork(bot.log, entry.main, str(told))
            bot.start()
            yield Talk(cell, bot)
    finally:
        db.close()


Strike = Callable[..., None]


def play(cell: Cell, strikes: Sequence[tuple[Strike, dict[str, Any]]]) -> Came:
    """One after the other on one bot, and then all must be well."""
    with talking(cell) as talk:
        for strike, told in strikes:
            talk.go_on(2)
            strike(talk, **told)
        came = talk.came()
        return replace(came, strikes=sum(told.get("rounds", told.get("times", 1)) for _, told in strikes))


def killed(talk: Talk, rounds: int) -> None:
    for _ in range(rounds):
        talk.go_on(2)
        time.sleep(talk.rng.uniform(0, 1.0))
        talk.kill()
        talk.go_on(talk.rng.randint(0, 2))
        talk.bot.start()


def killed_as_it_begins(talk: Talk, rounds: int) -> None:
    """Before it has said that it is there: what it takes up from the last one is taken up by the next."""
    talk.kill()
    for _ in range(rounds):
        begun = talk.bot.spawn()
        time.sleep(talk.rng.uniform(0.2, 2.0))
        begun.kill()
        talk.kills += begun.wait() == -9
    talk.bot.start()


def database_locked(talk: Talk) -> None:
    """Somebody else writes for a while: a backup of the file, an administrator's shell."""
    with talk.bot.db.engine.begin():
        talk.go_on(3)
        time.sleep(talk.rng.uniform(0.5, 3.0))


def database_gone(talk: Talk) -> None:
    """No statement that needs this table succeeds; then it is back."""
    table = talk.rng.choice(("update", "message", "turn", "answer", "showing"))
    renamed(talk.bot.db, table, "gone")
    talk.go_on(3)
    time.sleep(talk.rng.uniform(0.2, 2.0))
    renamed(talk.bot.db, "gone", table)


def renamed(db: Database, before: str, after: str) -> None:
    db.write(lambda session: session.exec_driver_sql(f'ALTER TABLE "{before}" RENAME TO "{after}"'))


def disk_full(cell: Cell) -> Came:
    """The database's disk."""
    with mounted(cell.folder / "disk", DISK) as disk, talking(cell, disk.folder) as talk:
        talk.go_on(2)
        disk.fill()
        talk.go_on(4)
        time.sleep(cell.rng.uniform(0.5, 2.5))
        disk.clear()
        return talk.came()


def ollama_fails(talk: Talk, how: str) -> None:
    before = len(talk.ollama.of("/api/chat"))
    mended = OLLAMA[how](talk)
    talk.go_on(4)
    soon(lambda: len(talk.ollama.of("/api/chat")) > before, STRUCK_SECONDS)
    time.sleep(talk.rng.uniform(0, 1.5))
    mended()


def nothing() -> None:
    """There is nothing to mend."""


def goes(talk: Talk) -> Callable[[], None]:
    talk.ollama.stop()
    return talk.ollama.start


def is_slow(talk: Talk) -> Callable[[], None]:
    usual = talk.ollama.answer
    talk.ollama.load_seconds = 1.0
    talk.ollama.loaded.clear()
    talk.ollama.answer = lambda exchange: Reply(usual(exchange).tokens, token_seconds=0.4)

    def mend() -> None:
        talk.ollama.load_seconds, talk.ollama.answer = 0.0, usual

    return mend


def errs(error: tuple[int, str], times: int = 3) -> Callable[[Talk], Callable[[], None]]:
    def put(talk: Talk) -> Callable[[], None]:
        talk.ollama.inject("/api/chat", *error, times=times)
        return talk.ollama.forget_faults

    return put


def babbles(talk: Talk) -> Callable[[], None]:
    for garbage in fakes.GARBAGE:
        talk.ollama.babble("/api/chat", garbage)
    return talk.ollama.forget_faults


def breaks_off(how: str) -> Callable[[Talk], Callable[[], None]]:
    def put(talk: Talk) -> Callable[[], None]:
        usual = talk.ollama.answer

        def cut(exchange: Exchange) -> Reply:
            whole = usual(exchange)
            return Reply(whole.tokens, 0.02, **{how: talk.rng.randint(0, 4)})

        talk.ollama.answer = cut

        def mend() -> None:
            talk.ollama.answer = usual

        return mend

    return put


OLLAMA: dict[str, Callable[[Talk], Callable[[], None]]] = {
    "gone": goes,
    "slow": is_slow,
    "out of memory": errs(fakes.OUT_OF_MEMORY),
    "busy": errs(fakes.BUSY),
    "runner stopped": errs(fakes.RUNNER_STOPPED),
    "truncated blob": errs((500, "unable to load model: <OLLAMA_MODELS>/blobs/sha256-1")),
    "blob gone": errs((400, '"huigan:base-1" does not support chat')),
    "garbage": babbles,
    "dying mid-stream": breaks_off("dies_after"),
    "dropping mid-stream": breaks_off("drops_after"),
}


def updates_twice(talk: Talk) -> None:
    """Any update comes again, soon or late, also across a kill."""
    for _ in range(4):
        talk.go_on(2)
        delivered = talk.telegram.updates.delivered
        for update in talk.rng.sample(delivered, min(3, len(delivered))):
            talk.telegram.deliver_again(update)
    talk.kill()
    talk.bot.start()
    for update in list(talk.telegram.updates.delivered):
        talk.telegram.deliver_again(update)


def updates_out_of_order(talk: Talk) -> None:
    """A batch whose updates stand in any order."""
    for _ in range(4):
        with talk.telegram.lock:
            for who in talk.people:
                talk.ask(who)
            talk.rate()
            talk.rng.shuffle(talk.telegram.updates.pending)
        time.sleep(talk.rng.uniform(0, MOST_SECONDS))


def flood(talk: Talk, times: int) -> None:
    """429 to whatever the bot sends."""
    talk.telegram.inject("*", status=429, retry_after=1, times=times)
    talk.go_on(4)


def telegram_fails(talk: Talk, times: int) -> None:
    """Bad gateways and broken connections, before or after what was asked for took effect."""
    for _ in range(times):
        method, after = talk.rng.choice(BROKEN_METHODS), talk.rng.random() < 0.5
        if talk.rng.random() < 0.5:
            talk.telegram.inject(method, status=502, after_effect=after)
        else:
            talk.telegram.drop(method, after_effect=after)
        talk.go_on(1)


def told_to_end(talk: Talk, rounds: int) -> None:
    for _ in range(rounds):
        talk.go_on(2)
        time.sleep(talk.rng.uniform(0, 0.5))
        code = talk.bot.stop()
        assert code == 0, f"ended with {code}"
        talk.go_on(1)
        talk.bot.start()


def two_bots(talk: Talk) -> None:
    """A second process on the same file and token, begun by mistake: it says so and ends, and the first goes on."""
    second = talk.bot.spawn()
    talk.go_on(6)
    code = second.wait(timeout=30)
    assert code not in (0, -9), f"the second ended with {code}"
    talk.go_on(3)
