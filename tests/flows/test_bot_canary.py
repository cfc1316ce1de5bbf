"""Admins try a proposal on people from its card or by command, see how it does, promote it or end the trial; whoever is
no admin does nothing of it. In each language, by what the catalogue says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from huigan.operate import releases as operate_releases
from huigan.operate import settable
from huigan.texts import catalogue, locale_of, text
from storage import deployments, runs, settings, users
from storage.db import Database
from storage.records import Release, Role, RunState
from tests.bot import running
from tests.bot.running import TAG, World
from tests.fakes.ollama import CHATML, OUT_OF_MEMORY
from tests.fakes.telegram import Chat, Message, Person

SHARE = 0.5
LANGUAGES = ("zh-hans", "zh-hant", "en")


@pytest.fixture(scope="module")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running.shared(migrated_sqlite, tmp_path_factory.mktemp("bot")) as made:
        yield made


@dataclass
class Admin:
    here: World
    who: Person
    chat: Chat
    locale: str

    def says(self, words: str) -> None:
        self.here.says(words, who=self.who, chat=self.chat)

    def reads(self, code: str, **params: Any) -> Message:
        return self.here.said(text(self.locale, code, **params), self.chat)

    def presses(self, message: Message, code: str) -> Any:
        return self.who.presses(message, text(self.locale, code))

    def sees(self, message: Message, code: str, button: str = "", **params: Any) -> None:
        """The card says so, under it this button, or none."""
        words = text(self.locale, code, **params)
        wanted = text(self.locale, button) if button else ""
        self.here.wait(
            lambda: words in message.text and (wanted in message.buttons if wanted else not message.buttons),
            about=words,
        )


@pytest.fixture(params=LANGUAGES)
def admin(shared: World, request: pytest.FixtureRequest) -> Iterator[Admin]:
    """The only one; the base is live, and nothing awaits a decision."""
    shared.meet_alice()
    for row in shared.rows("user"):
        shared.db.write(users.set_role, row["id"], Role.USER)
    base = shared.rows("release")[0]["id"]
    shared.db.write(deployments.deploy, base, "test", "test", now())
    for run in shared.db.read(runs.newest, states=frozenset({RunState.AWAITING_APPROVAL})):
        shared.db.write(runs.move, run.id, run.attempt, run.state, RunState.REJECTED, now())
    yield an_admin(shared, request.param)
    shared.settle()
    assert shared.refused() == []
    assert shared.errors() == []


def now() -> datetime:
    return datetime.now(UTC)


def somebody(here: World, language: str = "zh-hans") -> tuple[Person, Chat]:
    who = here.telegram.user(f"Reader of {language}", language_code=language)
    chat = here.telegram.private(who)
    here.says("/canary", who=who, chat=chat)
    here.said(text(locale_of(language), "refusal.not_admin"), chat)
    return who, chat


def an_admin(here: World, language: str) -> Admin:
    who, chat = somebody(here, language)
    known = here.db.read(users.find, "telegram", str(who.id))
    assert known is not None
    here.db.write(users.set_role, known.id, Role.ADMIN)
    return Admin(here, who, chat, locale_of(language))


def proposed(here: World) -> Release:
    """A run that passed, where an admin is to decide."""
    recipe = {"name": "test", "method": "auto", "canary": {"share": SHARE}}
    here.db.write(runs.enqueue, "default", recipe, "test", now())
    run = here.db.write(runs.claim, "trainer", now())
    assert run is not None
    tag = here.ollama.add(f"huigan:run{run.id}-0123456789ab").name
    fields = {"quantisation": "Q4_K_M", "weights": "/weights", "template": CHATML, "system": "", "parameters": {}}
    made = here.db.write(operate_releases.propose, run.id, run.attempt, fields, tag, now())
    assert made is not None
    return made


def answering(db: Database) -> tuple[str, str | None]:
    """What is live, and what is tried."""
    live, tried = db.read(deployments.live), db.read(deployments.canary)
    assert live is not None
    return live.release.tag, tried.release.tag if tried else None


def asked(here: World, who: Person, chat: Chat, words: str) -> tuple[str, int]:
    """The tag that answered, and the conversation."""
    here.says(words, who=who, chat=chat)
    here.said(f"You said: {words}", chat)
    [message] = here.rows("message", text=words)
    here.wait(lambda: here.rows("answer", message_id=message["id"]), about="what was shown is kept")
    return here.rows("answer", message_id=message["id"])[0]["tag"], message["conversation_id"]


def test_a_proposal_is_tried_from_its_card_told_of_shared_and_promoted(admin: Admin) -> None:
    here, other = admin.here, an_admin(admin.here, "en")
    release = proposed(here)
    card, hers = (
        admin.reads("admin.card_awaits", release=release.id),
        other.reads("admin.card_awaits", release=release.id),
    )

    here.ollama.inject("/api/generate", *OUT_OF_MEMORY)
    admin.presses(card, "button.trial")
    not_swapped = catalogue(admin.locale)["admin.not_swapped"].partition("{")[0]
    here.wait(lambda: not_swapped in card.text and card.buttons, about="why it is not tried")
    assert answering(here.db) == (TAG, None)

    admin.presses(card, "button.trial")
    for whose, shown in ((admin, card), (other, hers)):
        whose.sees(shown, "admin.card_tried", "button.end_trial", release=release.id, share=SHARE)
    assert answering(here.db) == (TAG, release.tag)
    other.reads("notice.canary_begun", release=release.id, share=SHARE)

    admin.says("/canary")
    shown = admin.reads("canary.how", release=release.id).text
    assert release.tag in shown
    assert text(admin.locale, "canary.too_few_raters", have=0, need=5) in shown
    admin.says("/canary share 0.9")
    admin.reads("canary.shared", release=release.id, share=0.9)
    who, chat = somebody(here)
    tags = set()
    for number in range(6):
        here.says("/new", who=who, chat=chat)
        tag, talk = asked(here, who, chat, f"第 {number} 问 {release.id}")
        assert tag == (release.tag if deployments.lot(release.tag, talk) < 0.9 else TAG)
        tags.add(tag)
    assert release.tag in tags

    other.presses(hers, "button.promote")
    for whose, shown_to in ((admin, card), (other, hers)):
        whose.sees(shown_to, "admin.card_promoted", release=release.id, name=other.who.first_name)
    assert answering(here.db) == (release.tag, None)
    admin.says("/canary")
    admin.reads("canary.none")
    begun = [row for row in here.rows("outbox", code="canary_begun") if f'"release": {release.id},' in row["params"]]
    assert len(begun) == 1


def test_a_trial_is_ended_begun_anew_by_command_and_rejected(admin: Admin) -> None:
    here, release = admin.here, proposed(admin.here)
    card = admin.reads("admin.card_awaits", release=release.id)
    admin.presses(card, "button.trial")
    admin.sees(card, "admin.card_tried", "button.end_trial", release=release.id, share=SHARE)
    admin.presses(card, "button.end_trial")
    admin.sees(card, "admin.card_awaits", "button.trial", release=release.id)
    assert answering(here.db) == (TAG, None)
    admin.says("/canary stop")
    admin.reads("refusal.no_canary")
    admin.says("/canary try")
    admin.reads("refusal.canary_usage")

    admin.says(f"/canary try {release.id}")
    admin.reads("canary.begun", release=release.id, share=SHARE)
    admin.sees(card, "admin.card_tried", "button.end_trial", release=release.id, share=SHARE)
    admin.says("/canary share 2")
    admin.reads("refusal.canary_usage")
    admin.says("/canary share 0.95")
    admin.reads("refusal.canary_share")
    admin.presses(card, "button.reject")
    admin.sees(card, "admin.card_rejected", release=release.id, name=admin.who.first_name)
    assert answering(here.db) == (TAG, None)
    acts = [row["act"] for row in here.rows("audit") if row["user_id"] == me(admin)]
    assert [each for each in acts if each.startswith("canary")] == [
        *("canary.begin", "canary.stop", "canary.stop", "canary.begin", "canary.share"),
    ]


def test_who_is_no_admin_any_more_or_never_was_tries_promotes_and_ends_nothing(admin: Admin) -> None:
    here, release = admin.here, proposed(admin.here)
    card = admin.reads("admin.card_awaits", release=release.id)
    mallory, chat = somebody(here, "en")
    run_id = release.id - 1
    for act in ("trial", "promote", "reject", "endtrial"):
        press = mallory.forges_press(card, f"{act}:{run_id}")
        here.wait(lambda press=press: press.answered, about="it is answered")
        assert text("en", "refusal.not_admin") in press.answer
    for words in ("/canary", "/canary stop", f"/canary try {release.id}", "/canary share 0.3"):
        here.says(words, who=mallory, chat=chat)
    refusal = text("en", "refusal.not_admin")
    here.wait(lambda: sum(refusal in each for each in chat.texts) == 5, about="each is refused")

    here.db.write(users.set_role, me(admin), Role.USER)
    late = admin.presses(card, "button.trial")
    here.wait(lambda: late.answered, about="it is answered")
    assert text(admin.locale, "refusal.not_admin") in late.answer
    assert answering(here.db) == (TAG, None)
    assert here.db.read(runs.get, run_id).state is RunState.AWAITING_APPROVAL


def test_settings_are_changed_by_buttons_by_admins_alone(admin: Admin) -> None:
    here = admin.here
    admin.says("/settings schedule off")
    admin.says("/settings approval approve")
    admin.says("/settings")
    panel = admin.reads("adjusting.how", names=", ".join(settable.NAMED))
    here.wait(lambda: panel.buttons, about="its buttons")
    chosen = f"{text(admin.locale, 'approval.canary')} ✓"
    assert chosen not in panel.buttons
    mallory, _ = somebody(here, "en")
    press = mallory.forges_press(panel, "approval:auto")
    here.wait(lambda: press.answered, about="it is answered")
    assert text("en", "refusal.not_admin") in press.answer
    admin.presses(panel, "approval.canary")
    here.wait(lambda: chosen in panel.buttons, about="the button is marked")
    admin.presses(panel, "adjusting.cron_on")
    here.wait(lambda: text(admin.locale, "adjusting.cron_off") in panel.buttons, about="it can be turned off again")
    assert "0 3 * * *" in panel.text
    admin.presses(panel, "adjusting.cron_off")
    here.wait(lambda: text(admin.locale, "adjusting.cron_on") in panel.buttons, about="it is off")
    kept = {name: here.db.read(settings.get, name).value for name in ("approval", "schedule")}  # type: ignore[union-attr]
    assert kept == {"approval": "canary", "schedule": ""}
    assert [row["act"] for row in here.rows("audit", user_id=me(admin))] == ["setting.set"] * 5


def me(admin: Admin) -> int:
    return int(admin.here.rows("user", external_id=str(admin.who.id))[0]["id"])
