"""Turns from the question to the recorded answer, whatever happens on the way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from huigan.serving.client import AsyncOllama
from huigan.turns import answering
from huigan.turns.answering import Phase, View
from huigan.turns.desk import Desk, Watched
from huigan.turns.history import lines_for, prompt_of
from huigan.turns.opening import Refusal, answer_again
from storage import answers, deliveries, gpu, outbox, ratings, runs, turns
from storage.db import Database
from storage.records import Ended, Thumb, TurnState
from tests.fakes.ollama import BUSY, FakeOllama
from tests.huigan.turns.conftest import AT, SYSTEM, deploy, says


async def waits_for(fake: FakeOllama, tokens: int, nth: int = -1) -> None:
    def sent(f: FakeOllama) -> bool:
        return len(f.of("/api/chat")) > (max(nth, 0)) and f.of("/api/chat")[nth].tokens_sent >= tokens

    await asyncio.to_thread(fake.wait_for, sent)


async def test_an_answer_is_streamed_and_recorded_with_what_it_was_given_to(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("春天来了。")
    turn = says(sqlite_db, "写一句诗")
    views = [view async for view in desk.hand_in(turn).watch()]
    last = views[-1]
    assert (last.phase, last.ended, last.text) == (answering.Phase.CLOSED, Ended.COMPLETE, "春天来了。")
    assert last.answer is not None
    kept = sqlite_db.read(answers.get, last.answer.id)
    assert (kept.text, kept.tag, kept.release_id) == ("春天来了。", "base:v1", 1)
    assert kept.prompt_tokens
    assert kept.seen.options == {"num_predict": 256}
    assert sqlite_db.read(prompt_of, kept) == fake.last("/api/chat").messages
    assert fake.last("/api/chat").messages == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "写一句诗"},
    ]
    assert sqlite_db.read(turns.get, turn.id).state is TurnState.CLOSED


async def test_the_second_question_is_asked_with_the_first_and_its_answer(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("Paris.")
    await desk.hand_in(says(sqlite_db, "Capital of France?")).closed()
    await desk.hand_in(says(sqlite_db, "And of Italy?")).closed()
    assert [line["content"] for line in fake.last("/api/chat").messages] == [
        SYSTEM,
        "Capital of France?",
        "Paris.",
        "And of Italy?",
    ]


async def test_a_correction_replaces_the_answer_in_what_comes_after_and_only_there(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("London.")
    first = (await desk.hand_in(says(sqlite_db, "Capital of France?")).closed()).answer
    assert first is not None
    sqlite_db.write(ratings.add, first.id, 1, Thumb.DOWN, AT, correction="Paris.")
    second = (await desk.hand_in(says(sqlite_db, "And of Italy?")).closed()).answer
    assert second is not None
    assert "Paris." in [line["content"] for line in fake.last("/api/chat").messages]
    sqlite_db.write(ratings.add, first.id, 1, Thumb.DOWN, AT, correction="Lutetia.")
    assert "Paris." in [line["content"] for line in sqlite_db.read(prompt_of, second)]


async def test_messages_of_one_conversation_are_answered_one_after_the_other_in_their_order(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("one two", stalls_after=1)
    first = desk.hand_in(says(sqlite_db, "first"))
    second = desk.hand_in(says(sqlite_db, "second"))
    await waits_for(fake, 1)
    await asyncio.sleep(0.05)
    assert len(fake.of("/api/chat")) == 1
    assert second.view.position == 1
    fake.resume()
    await asyncio.gather(first.closed(), second.closed())
    assert fake.last("/api/chat").messages[-1]["content"] == "second"
    assert "one two" in [line["content"] for line in fake.last("/api/chat").messages]


async def test_turns_of_a_conversation_that_are_handed_in_the_wrong_way_round_are_answered_in_their_order(
    sqlite_db: Database, fake: FakeOllama
) -> None:
    """As at a restart, where a new message may be quicker than what is left from before."""
    deploy(sqlite_db, "base:v1")
    older, newer = says(sqlite_db, "one"), says(sqlite_db, "two")
    async with Desk(sqlite_db, AsyncOllama(fake.host), streams=1) as desk:
        second = desk.hand_in(newer)
        await asyncio.sleep(0.1)
        first = desk.hand_in(older)
        await asyncio.wait_for(asyncio.gather(first.closed(), second.closed()), 10)
    assert [exchange.messages[-1]["content"] for exchange in fake.of("/api/chat")] == ["one", "two"]


async def test_one_users_many_questions_do_not_keep_others_waiting(sqlite_db: Database, fake: FakeOllama) -> None:
    deploy(sqlite_db, "base:v1")
    fake.reply("one two", stalls_after=1)
    async with Desk(sqlite_db, AsyncOllama(fake.host), streams=1) as desk:
        many = [desk.hand_in(says(sqlite_db, f"a{n}", "ann", chat=f"room {n}")) for n in range(4)]
        other = desk.hand_in(says(sqlite_db, "b", "bo"))
        await waits_for(fake, 1)
        assert other.view.position == 1
        fake.resume()
        await asyncio.gather(*(each.closed() for each in [*many, other]))
    assert [each.messages[-1]["content"] for each in fake.of("/api/chat")] == ["a0", "b", "a1", "a2", "a3"]


async def test_a_full_queue_refuses_and_the_message_is_kept(sqlite_db: Database, fake: FakeOllama) -> None:
    deploy(sqlite_db, "base:v1")
    fake.reply("one two", stalls_after=1)
    async with Desk(sqlite_db, AsyncOllama(fake.host), streams=1, waiting=1) as desk:
        streaming = desk.hand_in(says(sqlite_db, "a", "ann"))
        await waits_for(fake, 1)
        waiting = desk.hand_in(says(sqlite_db, "b", "bo"))
        refused = await desk.hand_in(says(sqlite_db, "c", "cy")).closed()
        assert (refused.ended, refused.error) == (Ended.FAILED, "queue_full")
        fake.resume()
        await asyncio.gather(streaming.closed(), waiting.closed())
        again = sqlite_db.write(answer_again, 3, 3, AT)
        assert not isinstance(again, Refusal)
        assert (await desk.hand_in(again).closed()).ended is Ended.COMPLETE


async def test_stop_ends_ollamas_generation_and_keeps_what_was_shown(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("one two three", stalls_after=2)
    watched = desk.hand_in(says(sqlite_db, "count"))
    await waits_for(fake, 2)
    while watched.view.text != "one two":
        await asyncio.sleep(0.01)
    watched.stop()
    closed = await watched.closed()
    assert (closed.ended, closed.answer.text if closed.answer else "") == (Ended.STOPPED, "one two")
    await asyncio.to_thread(fake.wait_for, lambda f: f.last("/api/chat").ended == "disconnected")


async def test_a_waiting_turn_can_be_stopped_and_is_never_asked(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("one two", stalls_after=1)
    first, second = desk.hand_in(says(sqlite_db, "first")), desk.hand_in(says(sqlite_db, "second"))
    await waits_for(fake, 1)
    second.stop()
    assert (await second.closed()).ended is Ended.WITHDRAWN
    fake.resume()
    await first.closed()
    assert len(fake.of("/api/chat")) == 1


@pytest.mark.parametrize("how", ["dies_after", "drops_after"])
async def test_a_stream_that_breaks_keeps_what_was_shown_and_can_be_tried_again(
    sqlite_db: Database, desk: Desk, fake: FakeOllama, how: str
) -> None:
    fake.reply("one two three", **{how: 2})
    broken = await desk.hand_in(says(sqlite_db, "count")).closed()
    assert (broken.ended, broken.error, broken.text) == (Ended.BROKEN, "crashed", "one two")
    assert broken.answer is not None
    fake.reply("one two three")
    again = sqlite_db.write(answer_again, broken.answer.message_id, 1, AT)
    assert not isinstance(again, Refusal)
    whole = await desk.hand_in(again).closed()
    assert (whole.ended, whole.text) == (Ended.COMPLETE, "one two three")
    assert whole.answer is not None
    assert "temperature" not in whole.answer.seen.options


async def test_another_answer_is_sampled_even_from_a_greedy_release(sqlite_db: Database, fake: FakeOllama) -> None:
    deploy(sqlite_db, "base:v1", temperature=0.0, seed=1)
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
        first = await desk.hand_in(says(sqlite_db, "hi")).closed()
        assert first.answer is not None
        assert "temperature" not in first.answer.seen.options
        again = sqlite_db.write(answer_again, first.answer.message_id, 1, AT)
        assert not isinstance(again, Refusal)
        second = await desk.hand_in(again).closed()
    assert second.answer is not None
    assert second.answer.seen.options == {"num_predict": 256, "temperature": 0.8, "seed": again.id}


async def test_an_error_before_the_first_word_leaves_no_answer_and_admins_are_told_once_an_hour(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.inject("/api/chat", 404, "model 'base:v1' not found", times=2)
    for text in ("a", "b"):
        failed = await desk.hand_in(says(sqlite_db, text)).closed()
        assert (failed.ended, failed.error, failed.answer) == (Ended.FAILED, "unknown_tag", None)
    assert [notice.code for notice in sqlite_db.read(outbox.unsent)] == ["serving_trouble"]


async def test_without_a_release_the_user_is_told(sqlite_db: Database, fake: FakeOllama) -> None:
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
        assert (await desk.hand_in(says(sqlite_db, "hi")).closed()).error == "no_release"


async def test_a_busy_ollama_is_asked_again(
    sqlite_db: Database, desk: Desk, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "RETRY_SECONDS", (0.01, 0.01))
    fake.inject("/api/chat", *BUSY, times=2)
    assert (await desk.hand_in(says(sqlite_db, "hi")).closed()).ended is Ended.COMPLETE
    fake.inject("/api/chat", *BUSY, times=3)
    assert (await desk.hand_in(says(sqlite_db, "ho")).closed()).error == "busy"


async def test_a_history_over_the_context_loses_its_oldest_messages_whole_and_says_how_many(
    sqlite_db: Database, fake: FakeOllama
) -> None:
    fake.add("small:v1", parameters={"num_ctx": 200})
    deploy(sqlite_db, "small:v1", num_ctx=200, num_predict=20)
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
        for number in range(6):
            fake.reply("ok")
            last = await desk.hand_in(says(sqlite_db, f"{number} " + "word " * 10)).closed()
            assert last.ended is Ended.COMPLETE
    assert last.answer is not None
    told = fake.last("/api/chat").messages
    assert last.answer.seen.dropped == 10 - (len(told) - 2) > 0
    assert (told[0]["role"], told[1]["role"], told[-1]["content"][:1]) == ("system", "user", "5")


async def test_a_question_over_the_context_is_told_as_such(sqlite_db: Database, fake: FakeOllama) -> None:
    fake.add("small:v1", parameters={"num_ctx": 100})
    deploy(sqlite_db, "small:v1", num_ctx=100, num_predict=20)
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
        refused = await desk.hand_in(says(sqlite_db, "word " * 200)).closed()
    assert (refused.ended, refused.error) == (Ended.FAILED, "over_context")
    assert refused.params["prompt_tokens"] > 100


async def test_an_answer_ends_on_the_tag_it_began_with_and_the_next_uses_the_new_one(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("one two", stalls_after=1)
    streaming = desk.hand_in(says(sqlite_db, "a", "ann"))
    await waits_for(fake, 1)
    fake.add("better:v2")
    deploy(sqlite_db, "better:v2")
    after = await desk.hand_in(says(sqlite_db, "b", "bo")).closed()
    fake.resume()
    before = await streaming.closed()
    assert before.answer is not None
    assert after.answer is not None
    assert (before.answer.tag, after.answer.tag) == ("base:v1", "better:v2")
    assert before.text == "one two"


async def test_a_process_that_ends_records_what_streams_and_leaves_what_waits(
    sqlite_db: Database, fake: FakeOllama
) -> None:
    deploy(sqlite_db, "base:v1")
    fake.reply("one two three", stalls_after=2)
    desk = Desk(sqlite_db, AsyncOllama(fake.host))
    streaming, waiting = desk.hand_in(says(sqlite_db, "a")), desk.hand_in(says(sqlite_db, "b"))
    while streaming.view.text != "one two":
        await asyncio.sleep(0.01)
    await desk.close()
    closed = await streaming.closed()
    assert closed.ended is Ended.INTERRUPTED
    kept = sqlite_db.read(answers.of_turn, streaming.turn.id)
    assert kept is not None
    assert (kept.text, kept.ended) == ("one two", Ended.INTERRUPTED)
    fake.resume()
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as restarted:
        interrupted, left = await restarted.recover()
        assert (interrupted, [turn.id for turn in left]) == ([], [waiting.turn.id])
        assert (await restarted.hand_in(left[0]).closed()).ended is Ended.COMPLETE


async def test_what_a_killed_process_had_shown_is_kept_and_marked(sqlite_db: Database, desk: Desk) -> None:
    turn = says(sqlite_db, "a")
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    sqlite_db.write(turns.open_next, turn.id, "killed:1", long_ago)
    sqlite_db.write(turns.checkpoint, turn.id, "killed:1", "one tw", "base:v1", long_ago)
    interrupted, waiting = await desk.recover()
    assert waiting == []
    [(closed, answer)] = interrupted
    assert (closed.id, answer.text if answer else "", answer.ended if answer else None) == (
        turn.id,
        "one tw",
        Ended.INTERRUPTED,
    )
    assert await desk.recover() == ([], [])


async def test_two_processes_answer_a_turn_once(sqlite_db: Database, desk: Desk, fake: FakeOllama) -> None:
    turn = says(sqlite_db, "a")
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as other:
        await asyncio.gather(desk.hand_in(turn).closed(), other.hand_in(turn).closed())
    assert len(fake.of("/api/chat")) == 1
    assert len(sqlite_db.read(answers.of_message, turn.message_id)) == 1


async def test_a_reply_to_an_older_answer_continues_from_there(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    fake.reply("Paris.")
    first = (await desk.hand_in(says(sqlite_db, "Capital of France?")).closed()).answer
    assert first is not None
    sqlite_db.write(deliveries.add, first.id, "terminal", "ann", ["77"], AT)
    await desk.hand_in(says(sqlite_db, "Tell me a joke.")).closed()
    reply = says(sqlite_db, "How many people live there?", reply_to="77")
    lines, _ = sqlite_db.read(lines_for, reply.message_id)
    assert [line.text for line in lines] == ["Capital of France?", "Paris.", "How many people live there?"]


async def test_a_message_said_twice_is_one_message(sqlite_db: Database, desk: Desk) -> None:
    turn = says(sqlite_db, "hi", source="telegram:1:1")
    assert says(sqlite_db, "hi", source="telegram:1:1").id == turn.id
    await desk.hand_in(turn).closed()
    from huigan.turns.opening import Place, Speaker, open_turn
    from storage.records import ChatKind

    place = Place("terminal", "ann", ChatKind.PRIVATE)
    assert sqlite_db.write(open_turn, place, Speaker("ann"), "hi", "telegram:1:1", AT) is None


async def test_a_turn_that_fails_for_a_reason_nobody_foresaw_is_closed_and_the_next_is_answered(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    deploy(sqlite_db, "odd:v1", num_ctx="many")
    failed = await desk.hand_in(says(sqlite_db, "a")).closed()
    assert (failed.ended, failed.error) == (Ended.FAILED, "internal")
    fake.add("better:v2")
    deploy(sqlite_db, "better:v2")
    assert (await asyncio.wait_for(desk.hand_in(says(sqlite_db, "b")).closed(), 5)).ended is Ended.COMPLETE


@pytest.mark.parametrize("limit", [-1, 0])
async def test_a_release_without_a_limit_on_answers_gets_one(
    sqlite_db: Database, desk: Desk, fake: FakeOllama, limit: int
) -> None:
    """-1 is Ollama's own way to say: for ever."""
    fake.add("endless:v1")
    deploy(sqlite_db, "endless:v1", num_predict=limit)
    assert (await desk.hand_in(says(sqlite_db, "a")).closed()).ended is Ended.COMPLETE
    options = (fake.last("/api/chat").json or {})["options"]
    assert options["num_predict"] == answering.DEFAULT_ANSWER_TOKENS


async def test_an_answer_of_white_space_is_no_answer(sqlite_db: Database, desk: Desk, fake: FakeOllama) -> None:
    fake.reply("\n \n")
    turn = says(sqlite_db, "a")
    closed = await desk.hand_in(turn).closed()
    assert (closed.ended, closed.error, closed.answer) == (Ended.FAILED, "empty_answer", None)
    assert sqlite_db.read(answers.of_message, turn.message_id) == []


async def test_a_turn_that_streams_here_is_never_taken_for_abandoned(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    """After a suspension this process looks dead to its own recovery."""
    fake.reply("one two", stalls_after=1)
    watched = desk.hand_in(says(sqlite_db, "a"))
    await waits_for(fake, 1)
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    sqlite_db.write(turns.checkpoint, watched.turn.id, desk.worker, "one", "base:v1", long_ago)
    assert await desk.recover() == ([], [])
    fake.resume()
    closed = await watched.closed()
    assert (closed.ended, closed.answer.text if closed.answer else "") == (Ended.COMPLETE, "one two")


class Flaky(Database):
    """Away for the first checkpoint, as a database is while somebody else holds it for too long."""

    failed = 0

    async def awrite(self, fn, *args, **kwargs):  # type: ignore[no-untyped-def, override]
        if fn is turns.checkpoint and not self.failed:
            self.failed += 1
            raise OSError("the database is away")
        return await super().awrite(fn, *args, **kwargs)


async def test_a_checkpoint_that_fails_is_tried_again(
    sqlite_db: Database, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "CHECKPOINT_SECONDS", 0.02)
    deploy(sqlite_db, "base:v1")
    fake.reply("one two", stalls_after=1)
    flaky = Flaky(sqlite_db.engine)
    async with Desk(flaky, AsyncOllama(fake.host)) as desk:
        watched = desk.hand_in(says(sqlite_db, "a"))
        async with asyncio.timeout(10):
            while sqlite_db.read(turns.get, watched.turn.id).text != "one":
                await asyncio.sleep(0.02)
        fake.resume()
        await watched.closed()
    assert flaky.failed == 1


async def test_a_turn_that_had_no_time_to_begin_before_the_end_is_told_so_and_left_for_the_next_start(
    sqlite_db: Database, fake: FakeOllama
) -> None:
    deploy(sqlite_db, "base:v1")
    desk = Desk(sqlite_db, AsyncOllama(fake.host))
    before = desk.hand_in(says(sqlite_db, "a"))
    await desk.close()
    after = desk.hand_in(says(sqlite_db, "b"))
    for watched in (before, after):
        closed = await asyncio.wait_for(watched.closed(), 5)
        assert (closed.ended, closed.error) == (Ended.INTERRUPTED, "interrupted")
        assert sqlite_db.read(turns.get, watched.turn.id).state is TurnState.WAITING
    assert (desk.find(before.turn.id), fake.of("/api/chat")) == (None, [])


async def test_the_grace_at_the_end_is_for_what_streams_and_starts_nothing_new(
    sqlite_db: Database, fake: FakeOllama
) -> None:
    deploy(sqlite_db, "base:v1")
    fake.reply("one two", stalls_after=1)
    desk = Desk(sqlite_db, AsyncOllama(fake.host), streams=1)
    streaming, waiting = desk.hand_in(says(sqlite_db, "a", "ann")), desk.hand_in(says(sqlite_db, "b", "bo"))
    await waits_for(fake, 1)
    closing = asyncio.create_task(desk.close(grace_seconds=10))
    await asyncio.sleep(0.05)
    fake.resume()
    await closing
    assert (await streaming.closed()).ended is Ended.COMPLETE
    assert (await waiting.closed()).ended is Ended.INTERRUPTED
    assert sqlite_db.read(turns.get, waiting.turn.id).state is TurnState.WAITING
    assert len(fake.of("/api/chat")) == 1


class Slow(Database):
    """Commits an opening, and takes its time to say so."""

    opened = False

    async def awrite(self, fn, *args, **kwargs):  # type: ignore[no-untyped-def, override]
        result = await super().awrite(fn, *args, **kwargs)
        if fn is turns.open_next:
            self.opened = True
            await asyncio.sleep(0.2)
        return result


async def test_a_turn_that_is_being_opened_at_the_end_waits_again(sqlite_db: Database, fake: FakeOllama) -> None:
    deploy(sqlite_db, "base:v1")
    slow = Slow(sqlite_db.engine)
    desk = Desk(slow, AsyncOllama(fake.host))
    watched = desk.hand_in(says(sqlite_db, "a"))
    while not slow.opened:
        await asyncio.sleep(0.01)
    await desk.close()
    kept = sqlite_db.read(turns.get, watched.turn.id)
    assert (kept.state, kept.worker) == (TurnState.WAITING, None)


async def test_a_slow_watcher_never_misses_the_closing_view(sqlite_db: Database) -> None:
    watched = Watched(says(sqlite_db, "a"))
    watched.show(View(Phase.ANSWERING, text="one"))
    seen = []
    async for view in watched.watch():
        seen.append(view.text)
        if view.phase is Phase.ANSWERING:
            watched.show(View(Phase.CLOSED, text="one two"))
    assert seen == ["one", "one two"]


def takes_the_card(db: Database, way: str) -> None:
    """A run that trains where Ollama serves from."""
    at = answering.now()
    db.write(runs.enqueue, "default", {"serving": {"while_training": way}}, "test", at)
    run = db.write(runs.claim, "trainer", at)
    assert run is not None
    left = {"train": 120, "run": 300, "at": at.isoformat()}
    db.write(runs.report, run.id, run.attempt, "train", {gpu.NOTE: True, gpu.LEFT: left}, at)


async def card_minutes(watched: Watched) -> int | None:
    async for view in watched.watch():
        if "card_minutes" in view.params:
            return int(view.params["card_minutes"])
    return None


async def test_while_a_run_has_the_card_a_turn_waits_unopened_can_be_stopped_and_outlives_a_restart(
    sqlite_db: Database, fake: FakeOllama
) -> None:
    deploy(sqlite_db, fake.add("base:v1").name)
    takes_the_card(sqlite_db, "wait")
    stopped, left = says(sqlite_db, "one"), says(sqlite_db, "two", who="bob")
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
        first, second = desk.hand_in(stopped), desk.hand_in(left)
        assert await card_minutes(first) == await card_minutes(second) == 2
        first.stop()
        assert (await first.closed()).ended is Ended.WITHDRAWN
    assert sqlite_db.read(turns.get, left.id).state is TurnState.WAITING
    assert fake.of("/api/chat") == []
    [run] = sqlite_db.read(runs.newest, 1)
    sqlite_db.write(runs.report, run.id, run.attempt, "merge", {gpu.NOTE: False}, answering.now())
    async with Desk(sqlite_db, AsyncOllama(fake.host)) as desk:
        assert (await desk.hand_in(left).closed()).ended is Ended.COMPLETE


async def test_while_a_run_has_the_card_an_answer_may_go_by_the_cpu(
    sqlite_db: Database, desk: Desk, fake: FakeOllama
) -> None:
    takes_the_card(sqlite_db, "cpu")
    closed = await desk.hand_in(says(sqlite_db, "one")).closed()
    assert closed.answer is not None
    assert (fake.last("/api/chat").json or {})["options"]["num_gpu"] == 0
    assert closed.answer.seen.options["num_gpu"] == 0, "what it was given is kept"
