"""Going back one by one, and past what cannot answer again, which is said; by an admin's word, and by itself."""

from __future__ import annotations

import pytest

from bot.notices import words
from huigan.operate import library, rollbacks
from huigan.operate.judgement import Act
from huigan.operate.refusals import Refusal
from huigan.operate.releases import PassedOver, Promoted
from huigan.serving.client import Ollama
from huigan.texts import LOCALES, text
from storage import audit, deployments, holdings, outbox
from storage.db import Database
from storage.records import Release
from tests.fakes.ollama import FakeOllama
from tests.huigan.operate.conftest import Desk, minutes
from tests.huigan.operate.trials import DOWN, UP, Trials

TAKEN_BACK, GONE = "data_withdrawn", rollbacks.FILES_GONE


def live(db: Database) -> int:
    found = db.read(deployments.live)
    assert found is not None
    return found.release.id


def back(db: Database, client: Ollama, at: float = 5) -> Promoted | Refusal:
    return rollbacks.rollback(db, client, by_user_id=None, at=minutes(at))


def take_back(db: Database, release: Release) -> None:
    """Each run made one release, after the base."""
    db.write(holdings.mark, [release.id - 1], minutes(1))


def test_rolling_back_goes_back_one_by_one_and_says_when_there_is_no_more(
    db: Database, desk: Desk, client: Ollama
) -> None:
    second, third = desk.published(), desk.published()
    back = rollbacks.rollback(db, client, by_user_id=None, at=minutes(1))
    assert isinstance(back, Promoted)
    assert (back.release.id, live(db)) == (second.id, second.id)
    rollbacks.rollback(db, client, by_user_id=None, at=minutes(2))
    assert live(db) == 1
    assert rollbacks.rollback(db, client, by_user_id=None, at=minutes(3)) == Refusal("nothing_before")
    assert isinstance(rollbacks.rollback(db, client, by_user_id=None, at=minutes(4), to=third.id), Promoted)
    assert live(db) == third.id


@pytest.mark.parametrize(
    ("history", "ways"),
    [
        ("", ""),
        ("1", ""),
        ("1 1", ""),
        ("1 2", "1"),
        ("1 2 3", "2 1"),
        ("1 2 3 r2", "1"),
        ("1 2 3 r1", ""),
        ("1 2 3 r2 r1", ""),
        ("1 2 3 r2 3", "2 1"),
        ("1 2 3 r2 4", "2 1"),
        ("1 2 3 1", "3 2"),
        ("1 2 r1 r2", "1"),
        ("1 2 3 2 4", "2 3 1"),
    ],
)
def test_the_ways_back_from_the_live_release(history: str, ways: str) -> None:
    log = [(int(each.strip("r")), "rollback" if "r" in each else "promote") for each in history.split()]
    assert " ".join(map(str, rollbacks.ways_back(log[::-1]))) == ways


def test_a_share_of_the_traffic_is_not_what_was_live(db: Database, desk: Desk) -> None:
    published = desk.published()
    trial = desk.proposed()
    db.write(deployments.deploy, trial.id, "user 1", "trial", minutes(1), share=0.1)
    assert live(db) == published.id
    assert db.read(rollbacks.way_back) == 1


def test_what_holds_taken_back_words_and_what_is_gone_are_passed_over_and_said(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    whole, gone, held, _ = (desk.published() for _ in range(4))
    take_back(db, held)
    del fake.tags[gone.tag]
    done = back(db, client)
    assert isinstance(done, Promoted)
    passed_over = (PassedOver(held.id, TAKEN_BACK), PassedOver(gone.id, GONE))
    assert (live(db), done.passed_over) == (whole.id, passed_over)
    assert fake.tags["huigan:live"].digest == fake.tags[whole.tag].digest
    [notice] = db.read(outbox.unsent, only="release_rollback")
    for locale in LOCALES:
        assert words(notice, locale).split("\n") == [
            text(locale, "notice.release_rollback", release=whole.id),
            text(locale, "passed_over.data_withdrawn", release=held.id),
            text(locale, "passed_over.files_gone", release=gone.id),
        ]
    acts = [(each.params.get("release"), each.params.get("refused")) for each in db.read(audit.newest, 3)]
    assert acts == [(whole.id, None), (gone.id, None), (held.id, TAKEN_BACK)]
    again = back(db, client, 6)
    assert isinstance(again, Promoted)
    assert (live(db), again.passed_over) == (1, ()), "what was passed over is no way back from here"


def test_where_everything_before_is_unfit_it_is_refused_and_nothing_changes(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama, base: Release
) -> None:
    held, newest = desk.published(), desk.published()
    take_back(db, held)
    del fake.tags[base.tag]
    assert back(db, client) == Refusal("nothing_fit_before")
    assert live(db) == newest.id
    assert all(text(locale, "refusal.nothing_fit_before") for locale in LOCALES)


def test_an_ollama_that_is_away_is_no_reason_to_go_further_back(
    db: Database, desk: Desk, fake: FakeOllama, client: Ollama
) -> None:
    _, newest = desk.published(), desk.published()
    fake.inject("/api/generate", 503, "server busy, please try again.  maximum pending requests exceeded")
    with pytest.raises(Exception, match="busy"):
        back(db, client)
    assert live(db) == newest.id


def test_the_one_that_a_rollback_would_take_is_what_stays_in_ollama(db: Database, desk: Desk) -> None:
    whole, held, newest = (desk.published() for _ in range(3))
    take_back(db, held)
    assert db.read(rollbacks.way_back) == whole.id
    needed = {each.id: why for each, why in db.read(library.needed)}
    assert needed == {whole.id: library.ROLLBACK, newest.id: library.LIVE}


@pytest.fixture
def trials(db: Database, fake: FakeOllama, client: Ollama, base: Release) -> Trials:
    return Trials(db, fake, client)


def worse(trials: Trials) -> tuple[Release, Release, Release]:
    """Three that were live one after the other; the last is liked less than the second."""
    first, second = trials.published(at=minutes(1)), trials.published(at=minutes(2))
    trials.rated(second, [UP] * 40, minutes(3))
    third = trials.published(at=minutes(4))
    trials.rated(third, [DOWN] * 40, minutes(5))
    return first, second, third


def test_what_goes_back_by_itself_passes_over_what_is_unfit_and_says_so(trials: Trials) -> None:
    first, second, _ = worse(trials)
    take_back(trials.db, second)
    assert trials.watch(minutes(6)) is Act.ROLL_BACK
    assert trials.live() == first.id
    [notice] = trials.db.read(outbox.unsent, only="rolled_back_by_itself")
    assert notice.params["passed_over"] == [{"release": second.id, "code": TAKEN_BACK}]
    assert text("en", "passed_over.data_withdrawn", release=second.id) in words(notice, "en")
    assert trials.watch(minutes(7)) is None


def test_where_nothing_can_be_gone_back_to_admins_hear_of_it_once_and_it_goes_on(trials: Trials) -> None:
    first, second, third = worse(trials)
    take_back(trials.db, second)
    trials.fake.tags = {third.tag: trials.fake.tags[third.tag]}
    for at in (6, 7):
        assert trials.watch(minutes(at)) is None
    assert trials.live() == third.id
    [notice] = trials.db.read(outbox.unsent, only="no_way_back")
    told = [(each["release"], each["code"]) for each in notice.params["passed_over"]]
    assert told == [(second.id, TAKEN_BACK), (first.id, GONE), (1, GONE)]
    assert "not_loaded" not in trials.news()
    for locale in LOCALES:
        assert text(locale, "notice.no_way_back", release=third.id) in words(notice, locale)
