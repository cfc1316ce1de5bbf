"""Releases on trial, proposed, published and rated in one line each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from huigan.operate import canaries, releases
from huigan.operate.judgement import Act
from huigan.serving.client import Ollama
from storage import answers, chats, comparisons, deployments, messages, outbox, ratings, runs, turns, users
from storage import releases as release_rows
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import ChatKind, Ended, Pick, Release, Run, RunState, Seen, Thumb
from storage.release_policy import Canary, Rollback
from tests.fakes.ollama import FakeOllama
from tests.huigan.operate.conftest import ARTEFACT, AT, minutes

QUICK = Canary(share=0.5, min_ratings=5, min_raters=2, max_days=10)
WATCHED = Rollback(min_ratings=5, min_raters=2)


class Trials:
    """Releases tried and rated in one line each."""

    def __init__(self, db: Database, fake: FakeOllama, client: Ollama) -> None:
        self.db, self.fake, self.client, self.numbers = db, fake, client, itertools.count(1)

    def running(self, rules: Canary = QUICK, bars: Rollback = WATCHED, lane: str = "default") -> Run:
        recipe = replace(Recipe(name="test", lane=lane), canary=rules, rollback=bars)
        self.db.write(runs.enqueue, lane, recipe.to_dict(), "test", AT)
        claimed = self.db.write(runs.claim, "worker", AT)
        assert claimed is not None
        return claimed

    def tried(self, rules: Canary = QUICK, lane: str = "default") -> Release:
        run = self.running(rules, lane=lane)
        tag = self.fake.add(f"huigan:run{run.id}-0123456789ab").name
        made = self.db.write(releases.put_on_trial, run.id, run.attempt, ARTEFACT, tag, AT)
        assert made is not None
        return made

    def published(self, bars: Rollback = WATCHED, at: datetime = AT) -> Release:
        run = self.running(bars=bars)
        tag = self.fake.add(f"huigan:run{run.id}-0123456789ab").name
        done = self.db.write(releases.publish, run.id, run.attempt, ARTEFACT, tag, at)
        assert done is not None
        return done.release

    def rated(self, release: Release, thumbs: Iterable[Thumb], at: datetime, error: str | None = None) -> None:
        self.given([(release, thumb) for thumb in thumbs], at, error)

    def given(self, thumbs: Iterable[tuple[Release, Thumb]], at: datetime, error: str | None = None) -> None:
        """In this order, each in a conversation of its own."""

        def give(session: Session) -> None:
            for release, thumb in thumbs:
                number = next(self.numbers)
                answer_id = self._answer(session, number, release, at, error)
                ratings.add(session, answer_id, self._rater(session, number), thumb, at)

        self.db.write(give)

    def picked(self, release: Release, other: Release, picks: Iterable[Pick], at: datetime) -> None:
        """LEFT is for `release`."""

        def give(session: Session) -> None:
            for pick in picks:
                number = next(self.numbers)
                left, right = (self._answer(session, number, each, at) for each in (release, other))
                message_id = answers.get(session, left).message_id
                comparisons.add(session, message_id, left, right, self._rater(session, number), pick, at)

        self.db.write(give)

    def _rater(self, session: Session, number: int) -> int:
        return users.meet(session, "telegram", f"u{number % 7}", "", None, AT).id

    def _answer(self, session: Session, number: int, release: Release, at: datetime, error: str | None = None) -> int:
        user_id = self._rater(session, number)
        chat = chats.meet(session, "telegram", f"c{number}", ChatKind.PRIVATE, "", AT)
        talk = chats.begin(session, chat.id, "", user_id, AT)
        said = messages.by_source(session, f"t:{number}") or messages.add(
            session, talk.id, user_id, "?", f"t:{number}", AT
        )
        assert said is not None
        turn = turns.wait(session, talk.id, said.id, user_id, at)
        ended = Ended.BROKEN if error else Ended.COMPLETE
        turns.close(session, turn.id, ended, at, text="!", error=error, tag=release.tag)
        seen = Seen("s", [], 0, "0", {})
        return answers.add(session, turn, "!", seen, ended, at, tag=release.tag, release_id=release.id).id

    def live(self) -> int:
        found = self.db.read(deployments.live)
        assert found is not None
        return found.release.id

    def on_trial(self) -> int | None:
        found = self.db.read(deployments.canary)
        return found.release.id if found else None

    def state(self, release: Release) -> RunState:
        return self.db.read(runs.get, release.id - 1).state  # each run made one release, after the base

    def news(self) -> list[str]:
        return [each.code for each in self.db.read(outbox.unsent)]

    def settle(self, at: datetime) -> Act | None:
        found = canaries.settle(self.db, self.client, at)
        return found.act if found else None

    def watch(self, at: datetime) -> Act | None:
        found = canaries.watch(self.db, self.client, at)
        return found.act if found else None


UP, DOWN = Thumb.UP, Thumb.DOWN


def base_of(trials: Trials) -> Release:
    return trials.db.read(release_rows.get, 1)


def liked(trials: Trials, release: Release, *, is_liked: bool, count: int = 40) -> None:
    """`release` and the base are rated in turns, always so and always the other way."""
    thumbs = (UP, DOWN) if is_liked else (DOWN, UP)
    trials.given([*zip((release, base_of(trials)), thumbs, strict=True)] * count, minutes(5))
