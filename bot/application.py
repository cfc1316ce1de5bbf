"""The bot put together, pointed wherever the builder points it. The one place that knows every part."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from telegram import Update
from telegram.error import NetworkError, TelegramError
from telegram.ext import Application, ApplicationBuilder, ContextTypes, ExtBot

from bot import claim, menu
from bot.access import AccessPart
from bot.adjusting import Adjusting
from bot.admin import Admin, guarded
from bot.broadcast import Broadcasts
from bot.canary import CanaryPart
from bot.cards import Cards
from bot.commands import Commands
from bot.corrections import Corrections
from bot.edits import Edits
from bot.effects import EffectsPart
from bot.files import Files
from bot.health import Health
from bot.library import Library
from bot.locales import Locales, told_by_telegram
from bot.messages import Messages
from bot.notices import Notices
from bot.pace import TELEGRAMS, Limits, Pace
from bot.pastes import Pastes
from bot.people import People
from bot.personal import Personal
from bot.personas import Personas
from bot.places import spot_of
from bot.presses import Presses
from bot.reactions import Reactions
from bot.runs import Runs
from bot.schedule import Schedule
from bot.screen import Screen
from bot.showing import Shows
from bot.stats import Stats
from bot.stopping import Stopping
from bot.toasts import LOOK_SECONDS, Toasts
from bot.updates import STOPPED, InOrder, StoredQueue
from huigan.health.outage import Outage
from huigan.health.signs import Signs
from huigan.serving.client import AsyncOllama, Ollama
from huigan.texts import text
from huigan.turns.desk import LOST_SECONDS, Desk
from storage import leases
from storage.db import Database
from storage.recipe import Recipe

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
Beside = Sequence[tuple[float, Callable[[], Awaitable[None]]]]  # what is done again and again, so many seconds apart

ALLOWED_UPDATES = [Update.MESSAGE, Update.EDITED_MESSAGE, Update.CALLBACK_QUERY, Update.MESSAGE_REACTION, STOPPED]

Bot = Application[Any, Any, Any, Any, Any, Any]


@dataclass(frozen=True)
class Intervals:
    recover_seconds: float = 3.0  # between looks for what a killed process left
    lost_seconds: float = LOST_SECONDS
    drain_seconds: float = 2.0  # between looks into the outbox
    cards_seconds: float = 5.0  # between edits of a message that shows how a run goes
    paste_seconds: float = 1.2  # to wait for what may belong to a long message, or to a picture of an album
    grace_seconds: float = 20.0  # for streams, once the process is told to end


USUAL = Intervals()


def build_application(
    builder: ApplicationBuilder[Any, Any, Any, Any, Any, Any],
    *,
    db: Database,
    chat: AsyncOllama,
    library: Ollama,
    recipe: Callable[[], Recipe],
    home: Path,
    admins: Sequence[int] = (),
    intervals: Intervals = USUAL,
    limits: Limits = TELEGRAMS,
    drafts: bool = True,
    rng: random.Random | None = None,
    signs: Signs | None = None,
) -> Bot:
    """`builder` knows the token and the addresses; what people send is kept under `home`; answers grow in `drafts`
    where the server takes these. Run the result with `allowed_updates=ALLOWED_UPDATES`."""
    desk = Desk(db, chat, lost_seconds=intervals.lost_seconds)
    signs = signs or Signs()
    pace, toasts = Pace(limits, throttled=signs.throttled), Toasts()
    queue = StoredQueue(db, desk.worker, intervals.lost_seconds, toasts)
    in_order = InOrder(db, desk.worker, queue)
    application = builder.job_queue(None).rate_limiter(pace).update_queue(queue).concurrent_updates(in_order).build()
    screen = Screen(application.bot, pace, toasts, drafts=drafts)
    shows = Shows(db, desk, screen, rng or random.Random())
    locales = Locales(db)
    files = Files(db, chat, home.absolute() / "attachments")
    edits = Edits(db, shows, screen, locales, files)
    commands = Commands(db, screen, locales)
    reactions = Reactions(db, screen, locales, queue.kept)
    parts = (
        commands,
        Stopping(db, desk, screen, locales),
        Corrections(db, screen, locales),
        reactions,
        Personal(db, screen, locales),
        Personas(db, screen, locales),
        Messages(db, shows, screen, locales, Pastes(db, intervals.paste_seconds, queue.replayed), files),
        Presses(db, desk, shows, screen, locales),
    )
    application.add_handler(edits.presses())
    application.add_handler(edits.edits(), group=1)
    runs, cards = Runs(db, recipe, screen), Cards(db, library, screen, locales, queue.replayed)
    application.add_handlers(cards.handlers())
    panels = (db, screen, locales, queue.replayed)
    access, broadcasts = AccessPart(*panels), Broadcasts(*panels, limits.overall_per_second / 3)
    models = Library(db, library, chat, screen, locales, queue.replayed, intervals.cards_seconds)
    application.add_handler(access.gate(), group=-1)
    effects, adjusting = EffectsPart(db, screen, locales), Adjusting(*panels)
    for panels_part in (access, People(*panels), broadcasts, models, adjusting, effects):
        application.add_handlers([*panels_part.handlers(), *guarded(db, screen, locales, panels_part.acts())])
    simple = (
        Admin(db, library),
        runs,
        Stats(db, screen),
        Schedule(db),
        Health(db, library, home),
        CanaryPart(db, library),
    )
    for admins_part in simple:
        application.add_handlers(guarded(db, screen, locales, admins_part.acts()))
    for part in parts:
        application.add_handlers(part.handlers())
    application.add_handler(commands.unknown())
    application.add_error_handler(_told_of_failure(screen, queue))
    beside: Beside = [
        (intervals.recover_seconds, _beating(signs)),
        (intervals.recover_seconds, lambda: queue.keep(application.bot)),
        (intervals.recover_seconds, _sharing(db, desk.worker, pace)),
        (intervals.recover_seconds, shows.recover),
        (LOOK_SECONDS, toasts.look),
        (intervals.drain_seconds, reactions.look),
        (intervals.drain_seconds, _alone(db, "notices", desk.worker, Notices(db, screen).drain)),
        (intervals.drain_seconds, _alone(db, "broadcast", desk.worker, broadcasts.drain)),
        (intervals.recover_seconds, _alone(db, "menus", desk.worker, menu.AdminMenus(db, application.bot).look)),
        (intervals.drain_seconds, _alone(db, "cards", desk.worker, cards.look)),
        (intervals.cards_seconds, _alone(db, "progress", desk.worker, runs.look)),
    ]
    life = _Life(db, queue, shows, admins, beside, intervals.grace_seconds, models.close)
    application.post_init = life.begin
    application.post_stop = life.end
    return application


class _Life:
    """What runs beside the updates, from the start of the process to its end."""

    def __init__(
        self,
        db: Database,
        queue: StoredQueue,
        shows: Shows,
        admins: Sequence[int],
        beside: Beside,
        grace_seconds: float,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._db = db
        self._queue = queue
        self._shows = shows
        self._admins = admins
        self._beside = beside
        self._grace_seconds = grace_seconds
        self._close = close
        self._loops: list[asyncio.Task[None]] = []

    async def begin(self, application: Bot) -> None:
        await self._db.awrite(claim.appoint, [str(each) for each in self._admins], datetime.now(UTC))
        replayed = await self._queue.replay(application.bot)
        logger.info("the bot @%s begins; %d updates are replayed", application.bot.username, replayed)
        self._loops = [
            *(asyncio.create_task(_every(seconds, act)) for seconds, act in self._beside),
            asyncio.create_task(menu.show(cast("ExtBot[Any]", application.bot))),
        ]

    async def end(self, application: Bot) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._close()
        await self._shows.close(self._grace_seconds)
        logger.info("the bot has ended")


def _alone(db: Database, name: str, worker: str, act: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """`act` in one of the processes that share the database, as long as that one lives."""

    async def when_ours() -> None:
        if not db.is_shared or await db.awrite(leases.take, name, worker, LEASE, datetime.now(UTC)):
            await act()

    return when_ours


def _beating(signs: Signs) -> Callable[[], Awaitable[None]]:
    async def beat() -> None:
        signs.beat()

    return beat


def _sharing(db: Database, worker: str, pace: Pace) -> Callable[[], Awaitable[None]]:
    """Telegram counts what all bots of one token do."""

    async def look() -> None:
        if db.is_shared:
            pace.share(await db.awrite(leases.alive, "bots", worker, LEASE, datetime.now(UTC)))

    return look


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    outage = Outage("a round", logger)
    while True:
        with outage:  # the edge of one round: the database may be back at the next
            await act()
        await asyncio.sleep(seconds)


def _told_of_failure(
    screen: Screen, queue: StoredQueue
) -> Callable[[object, ContextTypes.DEFAULT_TYPE], Coroutine[Any, Any, None]]:
    """The edge of one update: what is unforeseen is recorded and told, and ends nothing else."""

    async def handle(update: object, context: ContextTypes.DEFAULT_TYPE) -> None:
        error = context.error
        if not isinstance(update, Update):
            if isinstance(error, NetworkError):
                logger.warning("no updates come from Telegram: %s", error)
            else:
                logger.error("receiving updates failed", exc_info=error)
            return
        if queue.failed(update, error):
            return
        logger.error("update %d failed", update.update_id, exc_info=error)
        if update.effective_message is None or isinstance(error, TelegramError):
            return
        words = text(told_by_telegram(update), "bot.unforeseen")
        try:
            await screen.say(spot_of(update.effective_message), words)
        except TelegramError as failure:
            logger.warning("a failure could not be told: %s", failure)

    return handle
