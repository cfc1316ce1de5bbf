"""Promotion cards: every admin is asked about a proposal, with what was found of it and buttons to promote it, reject
it, put it on trial; one decides.

Cards are found by looking for runs that await a decision, so a restart forgets none. Whoever decides, by whatever
means, all cards say so, as they do of a trial that begins or ends. A late or doubled press meets a run that awaits
nothing any more and changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from typing import Any

from telegram import CallbackQuery, InlineKeyboardMarkup, Update
from telegram.error import TelegramError
from telegram.ext import BaseHandler, CallbackQueryHandler, ContextTypes

from bot import CHANNEL, keyboards, progress, scorecards
from bot.admin import refused
from bot.locales import Locales
from bot.notices import can_be_written_to
from bot.panels import tell
from bot.places import Spot
from bot.progress import Account, account
from bot.render import Piece, clipped
from bot.rights import is_admin
from bot.screen import Screen, is_passing
from huigan.operate import canaries
from huigan.operate import releases as operate
from huigan.operate.refusals import Refusal
from huigan.serving.client import Ollama
from huigan.serving.errors import ServingError
from huigan.texts import locale_of, text, told
from storage import deployments, run_cards, runs, users
from storage.db import Database, Session
from storage.records import CardKind, RunCard, RunState, User

logger = logging.getLogger(__name__)

PATTERN = r"^(promote|reject|trial|endtrial):\d{1,18}$"
LISTED = 20
CARD_UNITS = 4000
NEVER_TOLD = -1.0

Act = Callable[..., object | Refusal]  # promotes or tries a release: (db, client, number, *, by_user_id, at)


class Cards:
    def __init__(
        self, db: Database, library: Ollama, screen: Screen, locales: Locales, replayed: Container[int] = ()
    ) -> None:
        """`replayed`: ids of updates of an earlier life, whose presses Telegram has forgotten."""
        self._db = db
        self._library = library
        self._screen = screen
        self._locales = locales
        self._replayed = replayed
        self._looking = asyncio.Lock()
        self._warming: set[int] = set()  # runs whose release is being loaded
        self._given_up: set[tuple[int, int]] = set()  # (run, user) who cannot be written to
        self._tried_on: dict[int, float | None] = {}  # by run, the share that its cards tell

    def handlers(self) -> list[BaseHandler[Any, Any, Any]]:
        return [CallbackQueryHandler(self._pressed, pattern=PATTERN)]

    async def look(self) -> None:
        """Send what is missing and bring the others up to date. Call every few seconds."""
        async with self._looking:
            at = datetime.now(UTC)
            for user, known in await self._db.aread(_missing, at):
                if (known.run.id, user.id) not in self._given_up:
                    await self._send(user, known)
            for known, cards in await self._db.aread(_untold, dict(self._tried_on), at):
                await self._tell_of_trial(known, cards)
            for card, user, known in await self._db.aread(_decided, at):
                await self._conclude(card, user, known)

    async def _send(self, user: User, known: Account) -> None:
        locale = locale_of(user.reads)
        spot = Spot(int(user.external_id))
        try:
            message_id = await self._screen.send(spot, card_of(known, locale), _buttons(known, locale))
        except TelegramError as error:
            logger.warning("user %d has no card of run %d: %s", user.id, known.run.id, error)
            if not is_passing(error):
                self._given_up.add((known.run.id, user.id))
            return
        where = (CHANNEL, user.external_id, str(message_id))
        at = datetime.now(UTC)
        await self._db.awrite(run_cards.add, known.run.id, user.id, CardKind.PROMOTION, *where, at)

    async def _tell_of_trial(self, known: Account, cards: list[tuple[RunCard, User]]) -> None:
        number = known.run.id
        if number in self._warming:
            return
        self._tried_on[number] = known.tried_on
        for card, user in cards:
            locale = locale_of(user.reads)
            try:
                await self._screen.edit(
                    Spot(int(card.chat)), int(card.message), card_of(known, locale), _buttons(known, locale)
                )
            except TelegramError as error:
                logger.warning("card %d of run %d does not tell of its trial: %s", card.id, number, error)

    async def _conclude(self, card: RunCard, user: User, known: Account) -> None:
        try:
            await self._screen.edit(Spot(int(card.chat)), int(card.message), card_of(known, locale_of(user.reads)))
        except TelegramError as error:
            logger.warning("card %d of run %d is not up to date: %s", card.id, card.run_id, error)
            if is_passing(error):
                return
        await self._db.awrite(run_cards.finish, card.id, datetime.now(UTC))

    async def _pressed(self, update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
        query, locale = update.callback_query, await self._locales.of(update)
        assert query is not None
        press = keyboards.parse(query.data)
        assert press is not None
        found = await self._db.aread(_pressed_card, query, press.ids[0], datetime.now(UTC))
        if isinstance(found, Refusal):
            await self._toast(update, refused(found, locale))
            return
        user, known = found
        if known.run.state is not RunState.AWAITING_APPROVAL or known.release is None:
            await self._toast(update, progress.outcome(known, locale))
        elif press.act == "reject":
            await self._reject(update, user, known.release.id, locale)
        elif press.act == "endtrial":
            await self._end_trial(update, user, known.release.id, locale)
        elif known.run.id in self._warming:
            await self._toast(update, text(locale, "admin.working"))
        else:
            self._warming.add(known.run.id)  # before anything is waited for: another's press may be next
            try:
                await self._toast(update, text(locale, "admin.working"))
                await self._load(
                    query, user, known, locale, operate.promote if press.act == "promote" else canaries.begin
                )
            finally:
                self._warming.discard(known.run.id)
        await self.look()

    async def _reject(self, update: Update, user: User, number: int, locale: str) -> None:
        how: dict[str, Any] = {"by_user_id": user.id, "why": "card", "at": datetime.now(UTC)}
        result = await asyncio.to_thread(operate.reject, self._db, number, **how)
        if isinstance(result, Refusal):
            await self._toast(update, refused(result, locale))
        else:
            await self._toast(update, text(locale, "admin.rejected", release=number))

    async def _end_trial(self, update: Update, user: User, number: int, locale: str) -> None:
        result = await self._db.awrite(canaries.stop, user.id, datetime.now(UTC), number=number)
        if isinstance(result, Refusal):
            await self._toast(update, refused(result, locale))
        else:
            await self._toast(update, text(locale, "canary.stopped", release=number))

    async def _load(self, query: CallbackQuery, user: User, known: Account, locale: str, act: Act) -> None:
        """Loading takes a while, so the card says so meanwhile; it gets its buttons back while nothing is decided."""
        assert query.message is not None
        assert known.release is not None
        spot, message_id = Spot(query.message.chat.id), query.message.message_id
        await self._screen.edit(spot, message_id, card_of(known, locale, text(locale, "admin.working")))
        failed = await self._warmed_up(user, known.release.id, locale, act)
        after = await self._db.aread(account, known.run.id, datetime.now(UTC))
        if after.run.state is RunState.AWAITING_APPROVAL:
            await self._screen.edit(spot, message_id, card_of(after, locale, failed), _buttons(after, locale))

    async def _warmed_up(self, user: User, number: int, locale: str, act: Act) -> str:
        """Nothing once it answers, all or a share; else why it does not."""
        how: dict[str, Any] = {"by_user_id": user.id, "at": datetime.now(UTC)}
        try:
            result = await asyncio.to_thread(act, self._db, self._library, number, **how)
        except ServingError as error:
            return text(locale, "admin.not_swapped", reason=told(locale, "error", error.code, error.params))
        return refused(result, locale) if isinstance(result, Refusal) else ""

    async def _toast(self, update: Update, words: str) -> None:
        assert update.callback_query is not None
        if update.update_id not in self._replayed:
            await tell(self._screen, update.callback_query, words)


def card_of(known: Account, locale: str, note: str = "") -> Piece:
    """What was found, and how it stands. It holds what people wrote: for admins' private chats."""
    artefact = known.artefact
    found = artefact.scorecard or {} if artefact else {}
    verdict = artefact.verdict or {} if artefact else {}
    blocks = [
        f"{progress.head(known.run, locale)}\n{progress.outcome(known, locale)}",
        "\n".join(scorecards.measured(found, locale)),
        "\n".join(scorecards.reasons(verdict, locale)),
        *scorecards.samples(found, locale),
    ]
    body = clipped("\n\n".join(filter(None, blocks)), CARD_UNITS - len(note) - 2)
    return Piece(f"{body}\n\n{note}" if note else body)


def _buttons(known: Account, locale: str) -> InlineKeyboardMarkup:
    return keyboards.of_proposal(known.run.id, locale, is_tried=known.tried_on is not None)


def _missing(session: Session, at: datetime) -> list[tuple[User, Account]]:
    """Admins who have no card of a run that awaits a decision, and can be written to."""
    waiting = runs.newest(session, LISTED, states=frozenset({RunState.AWAITING_APPROVAL}))
    found = []
    for run in waiting:
        asked = {card.user_id for card in run_cards.of_run(session, run.id, CardKind.PROMOTION)}
        lacking = [each for each in users.admins(session) if each.id not in asked and can_be_written_to(session, each)]
        known = account(session, run.id, at) if lacking else None
        found += [(each, known) for each in lacking if known is not None]
    return found


def _untold(
    session: Session, told_on: Mapping[int, float | None], at: datetime
) -> list[tuple[Account, list[tuple[RunCard, User]]]]:
    """Runs that await a decision, with their cards, where these tell of another trial than there is."""
    waiting = runs.newest(session, LISTED, states=frozenset({RunState.AWAITING_APPROVAL}))
    tried = deployments.canary(session)
    shares = {tried.artefact.run_id: tried.deployment.share} if tried is not None else {}
    changed = [each.id for each in waiting if told_on.get(each.id, NEVER_TOLD) != shares.get(each.id)]
    cards = {run_id: run_cards.of_run(session, run_id, CardKind.PROMOTION) for run_id in changed}
    return [
        (account(session, run_id, at), [(card, users.get(session, card.user_id)) for card in found])
        for run_id, found in cards.items()
        if found
    ]


def _decided(session: Session, at: datetime) -> list[tuple[RunCard, User, Account]]:
    cards = run_cards.unfinished(session, CHANNEL, CardKind.PROMOTION)
    over = [card for card in cards if runs.get(session, card.run_id).state is not RunState.AWAITING_APPROVAL]
    return [(card, users.get(session, card.user_id), account(session, card.run_id, at)) for card in over]


def _pressed_card(session: Session, query: CallbackQuery, run_id: int, at: datetime) -> tuple[User, Account] | Refusal:
    """Who pressed, and the run of the card; data may be forged, so the message must be that run's card."""
    user = users.find(session, CHANNEL, str(query.from_user.id))
    if user is None or not is_admin(user):
        return Refusal("not_admin")
    message = query.message
    place = (str(message.chat.id), str(message.message_id)) if message else None
    cards = run_cards.of_run(session, run_id, CardKind.PROMOTION)
    if place not in {(card.chat, card.message) for card in cards}:
        return Refusal("stale_button")
    return user, account(session, run_id, at)
