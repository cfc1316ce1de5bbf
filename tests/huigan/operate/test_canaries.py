"""Canaries and live releases are moved by what was seen of them: once, whole, and to where admins read why."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from huigan.operate import bases, canaries, judgement, observed, releases, withdrawals
from huigan.operate.judgement import Act
from huigan.operate.refusals import Refusal
from huigan.serving import library
from huigan.serving.client import Ollama
from huigan.serving.errors import OutOfMemory
from storage import audit, deployments, holdings, outbox, users
from storage.db import Database
from storage.records import Pick, Release, RunState
from tests.fakes.ollama import OUT_OF_MEMORY, FakeOllama
from tests.huigan.operate.conftest import ARTEFACT, AT, minutes
from tests.huigan.operate.trials import DOWN, QUICK, UP, WATCHED, Trials, base_of, liked


@pytest.fixture
def trials(db: Database, fake: FakeOllama, client: Ollama, base: Release) -> Trials:
    return Trials(db, fake, client)


@pytest.fixture
def quick(sqlite_db: Database, fake: FakeOllama, client: Ollama) -> Trials:
    """On SQLite alone."""
    fake.add("llama3:8b", system="You are kind.")
    bases.register(sqlite_db, client, "llama3:8b", "/weights", by_user_id=None, at=AT)
    return Trials(sqlite_db, fake, client)


def test_a_run_that_passed_is_tried_and_waits_and_admins_hear_of_it_once(trials: Trials) -> None:
    tried = trials.tried()
    assert (trials.live(), trials.on_trial(), trials.state(tried)) == (1, tried.id, RunState.AWAITING_APPROVAL)
    [notice] = trials.db.read(outbox.unsent)
    assert (notice.code, notice.user_id, notice.params["share"]) == ("canary_of_conversations", None, 0.5)
    assert trials.settle(minutes(9)) is Act.WAIT
    assert (trials.live(), trials.on_trial(), len(trials.news())) == (1, tried.id, 1)


def test_a_canary_that_has_proven_better_is_promoted_once(trials: Trials) -> None:
    tried = trials.tried()
    liked(trials, tried, is_liked=True)
    results = together(lambda: trials.settle(minutes(10)))
    assert Act.PROMOTE in results
    assert (trials.live(), trials.on_trial(), trials.state(tried)) == (tried.id, None, RunState.RELEASED)
    assert trials.news()[1:] == ["canary_promoted"]
    assert [each.share for each in trials.db.read(deployments.history)] == [1.0, 0.5, 1.0]
    assert trials.fake.tags["huigan:live"].digest == trials.fake.tags[tried.tag].digest
    assert trials.settle(minutes(11)) is None


def together(act: Any) -> list[Any]:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(act())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_canary_that_has_proven_worse_is_withdrawn_once(trials: Trials) -> None:
    tried = trials.tried()
    liked(trials, tried, is_liked=False)
    assert Act.WITHDRAW in together(lambda: trials.settle(minutes(10)))
    assert (trials.live(), trials.on_trial(), trials.state(tried)) == (1, None, RunState.REJECTED)
    assert trials.news()[1:] == ["canary_withdrawn"]
    reasons = trials.db.read(outbox.unsent)[-1].params["reasons"]
    assert [each["code"] for each in reasons] == ["thumbs_against"]
    assert releases.promote(trials.db, trials.client, tried.id, by_user_id=None, at=minutes(11)) == Refusal(
        "release_not_open", {"release": tried.id, "run": tried.id - 1, "state": RunState.REJECTED}
    )


@pytest.mark.parametrize(("pick", "act"), [(Pick.LEFT, Act.PROMOTE), (Pick.RIGHT, Act.WITHDRAW), (Pick.TIE, Act.WAIT)])
def test_picks_between_both_answers_move_a_canary_by_comparisons(quick: Trials, pick: Pick, act: Act) -> None:
    tried = quick.tried(replace(QUICK, by="comparisons"))
    assert quick.news() == ["canary_by_comparisons"]
    quick.picked(tried, base_of(quick), [pick] * 30, minutes(5))
    assert quick.settle(minutes(10)) is act


def test_of_one_person_no_more_counts_than_the_recipe_lets(quick: Trials) -> None:
    tried = quick.tried(replace(QUICK, max_of_rater=3, min_raters=1))
    liked(quick, tried, is_liked=True)
    found = quick.db.read(canaries.standing, minutes(10))
    assert found is not None
    assert len(found.tried.trial.thumbs) == 7 * 3
    assert found.tried.trial.raters == 7


def test_what_is_undecided_when_its_time_is_over_waits_for_an_admin(quick: Trials) -> None:
    tried = quick.tried()
    assert quick.settle(AT + timedelta(days=11)) is Act.END
    assert (quick.live(), quick.on_trial(), quick.state(tried)) == (1, None, RunState.AWAITING_APPROVAL)
    assert quick.news()[1:] == ["canary_over"]
    promoted = releases.promote(quick.db, quick.client, tried.id, by_user_id=None, at=AT + timedelta(days=12))
    assert isinstance(promoted, releases.Promoted)


def test_a_canary_that_fails_is_withdrawn_whatever_is_thought_of_it(quick: Trials) -> None:
    tried = quick.tried()
    quick.rated(base_of(quick), [UP] * 40, minutes(5))
    quick.rated(tried, [UP] * 40, minutes(5), error="crashed")
    assert quick.settle(minutes(10)) is Act.WITHDRAW
    assert [each["code"] for each in quick.db.read(outbox.unsent)[-1].params["reasons"]] == ["fails_more"]


def test_what_cannot_be_loaded_is_not_promoted_and_admins_hear_why_once(quick: Trials) -> None:
    tried = quick.tried()
    liked(quick, tried, is_liked=True)
    quick.fake.inject("/api/generate", *OUT_OF_MEMORY, times=2)
    for _ in range(2):
        with pytest.raises(OutOfMemory):
            quick.settle(minutes(10))
    assert (quick.live(), quick.on_trial()) == (1, tried.id)
    assert quick.news()[1:] == ["not_loaded"]
    assert quick.settle(minutes(11)) is Act.PROMOTE


def test_an_admin_who_decides_first_is_not_overruled(quick: Trials, fake: FakeOllama) -> None:
    tried = quick.tried()
    liked(quick, tried, is_liked=True)
    fake.hang("/api/generate")
    calls = len(fake.of("/api/generate"))
    results: list[Act | None] = []
    thread = threading.Thread(target=lambda: results.append(quick.settle(minutes(10))))
    thread.start()
    fake.wait_for(lambda each: len(each.of("/api/generate")) > calls)
    assert not isinstance(releases.reject(quick.db, tried.id, by_user_id=None, why="no", at=minutes(10)), Refusal)
    fake.resume()
    thread.join()
    assert results == [None]
    assert (quick.live(), quick.on_trial(), quick.state(tried)) == (1, None, RunState.REJECTED)


def test_an_admin_stops_shares_and_tries_again(quick: Trials) -> None:
    tried = quick.tried()
    by = quick.db.write(users.meet, "telegram", "1", "Ann", None, AT).id
    shared = quick.db.write(canaries.set_share, 0.8, by, minutes(1))
    assert not isinstance(shared, Refusal)
    assert (shared.share, shared.why) == (0.8, deployments.CONVERSATIONS)
    assert quick.db.write(canaries.set_share, 1.0, by, minutes(1)) == Refusal("canary_share")
    assert quick.db.write(canaries.stop, by, minutes(2), number=99) == Refusal("no_canary"), "another one's card"
    assert not isinstance(quick.db.write(canaries.stop, by, minutes(2)), Refusal)
    assert (quick.on_trial(), quick.state(tried)) == (None, RunState.AWAITING_APPROVAL)
    assert quick.db.write(canaries.stop, by, minutes(3)) == Refusal("no_canary")
    begun = canaries.begin(quick.db, quick.client, tried.id, by_user_id=by, at=minutes(4))
    assert not isinstance(begun, Refusal)
    assert (quick.on_trial(), begun.share) == (tried.id, 0.5)
    found = quick.db.read(canaries.standing, minutes(5))
    assert found is not None
    assert found.tried.trial.since_at == minutes(4)
    assert canaries.begin(quick.db, quick.client, 1, by_user_id=by, at=minutes(6)) == Refusal(
        "already_live", {"release": 1}
    )
    acts = [(each.act, each.params.get("refused")) for each in quick.db.read(audit.newest) if each.user_id == by]
    assert acts == [
        ("canary.begin", "already_live"),
        ("canary.begin", None),
        ("canary.stop", "no_canary"),
        ("canary.stop", None),
        ("canary.stop", "no_canary"),
        ("canary.share", "canary_share"),
        ("canary.share", None),
    ]


def test_what_an_admin_says_twice_is_done_once(quick: Trials) -> None:
    """As a bot takes up a command that it was killed over."""
    tried = quick.tried()
    shared = [quick.db.write(canaries.set_share, 0.8, None, minutes(at)) for at in (1, 2)]
    assert shared[0] == shared[1]
    assert canaries.begin(quick.db, quick.client, tried.id, by_user_id=None, at=minutes(3)) == shared[0]
    quick.db.write(canaries.stop, None, minutes(4))
    begun = [canaries.begin(quick.db, quick.client, tried.id, by_user_id=None, at=minutes(at)) for at in (5, 6)]
    assert begun[0] == begun[1]
    assert quick.news() == ["canary_of_conversations", "canary_stopped", "canary_begun"]
    assert [each.share for each in quick.db.read(deployments.history)] == [0.5, 0.0, 0.8, 0.5, 1.0]


def test_an_alias_that_was_left_behind_follows_and_one_that_nobody_has_is_not_made(quick: Trials) -> None:
    made = quick.published()
    tags = quick.fake.tags
    assert tags["huigan:live"].digest == tags[base_of(quick).tag].digest
    assert canaries.keep_alias(quick.db, quick.client, minutes(1))
    assert tags["huigan:live"].digest == tags[made.tag].digest
    assert not canaries.keep_alias(quick.db, quick.client, minutes(2))
    del tags["huigan:live"]
    assert not canaries.keep_alias(quick.db, quick.client, minutes(3))
    assert "huigan:live" not in tags


def test_a_newer_proposal_of_the_lane_ends_the_canary_and_of_another_lane_does_not(quick: Trials, fake: Any) -> None:
    tried = quick.tried()
    for lane, still in (("experiments", tried.id), ("default", None)):
        run = quick.running(lane=lane)
        tag = fake.add(f"huigan:run{run.id}-0123456789ab").name
        quick.db.write(releases.propose, run.id, run.attempt, ARTEFACT, tag, minutes(5))
        assert quick.on_trial() == still
    assert (quick.live(), quick.state(tried)) == (1, RunState.SUPERSEDED)


def test_the_share_that_held_when_it_was_answered_is_what_a_thumb_counts_by(quick: Trials) -> None:
    tried = quick.tried()
    quick.rated(tried, [UP], minutes(1))
    quick.db.write(canaries.set_share, 0.8, None, minutes(2))
    quick.rated(tried, [UP], minutes(3))
    found = quick.db.read(observed.canary, minutes(4))
    assert found is not None
    assert [each.share for each in found.trial.thumbs] == [0.5, 0.8]


def test_a_canary_that_holds_what_somebody_took_back_ends_before_its_tag_is_gone(quick: Trials) -> None:
    tried = quick.tried()
    liked(quick, tried, is_liked=True)
    quick.db.write(holdings.mark, [tried.id - 1], minutes(6))
    assert quick.settle(minutes(7)) is None, "better, but not to be promoted"
    quick.fake.inject("/api/delete", 500, "away")
    assert withdrawals.withdraw(quick.db, quick.client, minutes(8)) == []
    assert (quick.on_trial(), quick.live()) == (None, 1)
    assert withdrawals.withdraw(quick.db, quick.client, minutes(9)) == [tried]
    assert quick.state(tried) is RunState.REJECTED


# --- the release that answers


def test_a_live_release_that_is_liked_less_gives_way_once_and_not_back_again(trials: Trials) -> None:
    first = trials.published(at=AT + timedelta(hours=1))
    trials.rated(first, [UP] * 40, AT + timedelta(hours=2))
    second = trials.published(at=AT + timedelta(hours=3))
    at = AT + timedelta(hours=5)
    trials.rated(second, [UP] * 20, AT + timedelta(hours=4))
    assert trials.watch(at) is Act.WAIT
    trials.rated(second, [DOWN] * 40, AT + timedelta(hours=4))
    assert Act.ROLL_BACK in together(lambda: trials.watch(at))
    assert trials.live() == first.id
    assert trials.news().count("rolled_back_by_itself") == 1
    newest = trials.db.read(deployments.history)[0]
    assert (newest.by, newest.why) == (canaries.BY_WATCH, releases.ROLLBACK)
    trials.rated(first, [DOWN] * 60, AT + timedelta(hours=6))
    assert trials.watch(AT + timedelta(hours=7)) is None
    assert trials.live() == first.id
    assert [each.act for each in trials.db.read(audit.newest, 1)] == ["release.rollback"]


def test_the_base_is_not_watched_nor_a_release_whose_recipe_does_not_wish_it(quick: Trials) -> None:
    assert quick.watch(minutes(1)) is None
    quick.rated(base_of(quick), [UP] * 40, minutes(2))
    made = quick.published(replace(WATCHED, automatic=False), at=minutes(3))
    quick.rated(made, [DOWN] * 60, minutes(4))
    assert quick.watch(minutes(5)) is Act.WAIT


def test_a_rollback_ends_the_canary_which_then_awaits_an_admin(quick: Trials) -> None:
    quick.rated(base_of(quick), [UP] * 40, minutes(1))
    made = quick.published(at=minutes(2))
    tried = quick.tried()
    quick.rated(made, [DOWN] * 40, minutes(3))
    assert quick.watch(minutes(4)) is Act.ROLL_BACK
    assert (quick.live(), quick.on_trial(), quick.state(tried)) == (1, None, RunState.AWAITING_APPROVAL)


# --- the one before stays warm


def warmed(quick: Trials) -> list[tuple[str, Any]]:
    asked = [each.json or {} for each in quick.fake.of("/api/generate")]
    return [(each.get("model"), each.get("keep_alive")) for each in asked]


def test_the_release_before_stays_loaded_for_its_time(quick: Trials) -> None:
    quick.published(replace(WATCHED, warm_hours=1.0))
    assert canaries.keep_warm(quick.db, quick.client, minutes(20)) == base_of(quick).tag
    assert warmed(quick)[-1] == (base_of(quick).tag, 40 * 60)
    assert canaries.keep_warm(quick.db, quick.client, minutes(60)) is None


def test_nothing_is_kept_warm_where_there_is_nothing_before_or_no_time_is_set(quick: Trials) -> None:
    assert canaries.keep_warm(quick.db, quick.client, minutes(1)) is None
    quick.published(replace(WATCHED, warm_hours=0.0))
    calls = len(warmed(quick))
    assert canaries.keep_warm(quick.db, quick.client, minutes(1)) is None
    assert len(warmed(quick)) == calls


def test_where_memory_holds_but_one_the_live_release_is_loaded_again_and_that_is_that(quick: Trials) -> None:
    made = quick.published()
    quick.fake.loaded.clear()
    quick.fake.holds_one = True
    library.warm(quick.client, made.tag)
    assert canaries.keep_warm(quick.db, quick.client, minutes(1)) is None
    assert [*quick.fake.loaded] == [made.tag]
    calls = len(warmed(quick))
    assert canaries.keep_warm(quick.db, quick.client, minutes(2)) is None
    assert len(warmed(quick)) == calls


def test_reasons_survive_as_json_in_audit_and_outbox(quick: Trials) -> None:
    tried = quick.tried()
    liked(quick, tried, is_liked=False)
    quick.settle(minutes(10))
    kept = quick.db.read(audit.newest, 1)[0]
    assert kept.act == "canary.withdraw"
    assert judgement.Reason(**kept.params["reasons"][0]).params["live_ups"] == 40
