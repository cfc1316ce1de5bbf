"""The commands that run something until it ends: the whole, a part of it, a chat, the demo; and the migrations."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from huigan import settings as environment
from huigan.commands import backups
from huigan.commands.frame import REFUSED, USAGE, RunNumber, errors, give_up, log_to_stderr, now, opened, recipe_for
from huigan.commands.pruning import limits_of
from huigan.commands.tending import Act, tended
from huigan.operate import library, retention, settable, tags
from huigan.serving.client import AsyncOllama, Ollama
from huigan.settings import BadSettings, Settings
from huigan.terminal import locale_of_terminal
from storage.db import Database
from storage.migrations import upgrade
from storage.records import Run
from trainer.supervisor import worker_name

CLEAR_SECONDS, PUT_BACK_SECONDS, WITHDRAW_SECONDS, PRUNE_SECONDS = 120.0, 60.0, 600.0, 3600.0


def up() -> None:
    """Run everything that is configured: migrate, an engine if no Ollama answers, the bot if there is a token,
    schedules and the trainer. One Ctrl-C stops all in order."""
    from huigan.up import run_all

    with opened(migrated=False) as (chosen, db):
        log_to_stderr(chosen)
        upgrade(db)
        raise typer.Exit(run_all(chosen, db))


def demo(
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the old answers afterwards, and show them.")
    ] = False,
    chat_after: Annotated[
        bool, typer.Option("--chat/--no-chat", help="On a terminal, chat with the new release.")
    ] = True,
    folder: Annotated[Path, typer.Option("--home", help="Where the demo keeps its own database and files.")] = Path(
        ".huigan/demo"
    ),
    report: Annotated[Path, typer.Option("--report", help="Where the HTML report goes.")] = Path("demo-report.html"),
) -> None:
    """The whole loop on a small real model: chat, rate, retrain, gate, swap, chat again. Needs nothing but a CPU."""
    needed = {"xllamacpp": "engine", "trl": "train"}
    lacking = [extra for module, extra in needed.items() if importlib.util.find_spec(module) is None]
    if lacking:
        give_up(f"The demo needs more than is installed here: pip install 'huigan[{','.join(lacking)}]'", USAGE)
    from huigan.demo.loop import run

    raise typer.Exit(run(folder, report, rollback=rollback, chat_after=chat_after))


def chat(
    name: Annotated[str, typer.Option("--as", help="Who speaks; by default your user name.")] = "",
) -> None:
    """Chat in this terminal, rate with keys (F2 👍, F3 👎, F4 ✏️, F5 🔁) or commands (/up, /down, /fix, /again)."""
    from huigan import terminal
    from huigan.turns.desk import Desk

    async def talk(chosen: Settings, db: Database) -> None:
        async with Desk(db, AsyncOllama(chosen.ollama_host)) as desk:
            await terminal.run(db, desk, locale_of_terminal(), who=name or None)

    with opened() as (chosen, db):
        asyncio.run(talk(chosen, db))


def engine(
    host: Annotated[
        str, typer.Option(help="Loopback unless you say otherwise: whoever reaches it may use and delete.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Ollama's own is 11434.")] = 11434,
    models: Annotated[
        Path | None, typer.Option(help="Where tags and blobs are kept; by default HUIGAN_HOME/engine.")
    ] = None,
) -> None:
    """Serve GGUF files over Ollama's protocol, for machines without Ollama. Needs `pip install huigan[engine]`."""
    try:
        from huigan.engine.server import serve
    except ImportError as error:
        give_up(f"The engine is not installed ({error.name} is missing): pip install 'huigan[engine]'", USAGE)
    try:
        chosen = environment.load()
        log_to_stderr(chosen)
        serve(host, port, models or chosen.home / "engine")
    except (BadSettings, OSError) as error:
        give_up(str(error), USAGE)


def bot() -> None:
    """Run the Telegram bot: polling, or a webhook where TELEGRAM_WEBHOOK_URL is set."""
    from bot import claim
    from bot.alone import AnotherBot
    from bot.main import BadToken, Webhook, run

    with opened() as (chosen, db):
        log_to_stderr(chosen)
        if chosen.telegram_bot_token is None:
            give_up("TELEGRAM_BOT_TOKEN is missing: get one from @BotFather and put it into .env", USAGE)
        if not chosen.admins and (code := db.write(claim.issue, now())):
            errors.print(f"Nobody owns this bot yet. In a private chat with it, send: /claim {code}", style="bold")
        webhook = None
        if chosen.telegram_webhook_url and chosen.telegram_webhook_secret:
            secret = chosen.telegram_webhook_secret.get_secret_value()
            webhook = Webhook(chosen.telegram_webhook_url, secret, chosen.telegram_webhook_listen)
        try:
            expire = functools.partial(retention.expire, db, chosen.keep_messages_days)
            with tended(chosen, db, "bot", (PRUNE_SECONDS, lambda: expire(now()))) as signs:
                run(
                    chosen.telegram_bot_token.get_secret_value(),
                    base_url=chosen.telegram_base_url,
                    base_file_url=chosen.telegram_base_file_url,
                    local_mode=chosen.telegram_local_mode,
                    webhook=webhook,
                    db=db,
                    ollama_host=chosen.ollama_host,
                    recipe=lambda: recipe_for(chosen, db, ""),
                    home=chosen.home,
                    admins=chosen.admins,
                    signs=signs,
                )
        except BadToken as error:
            give_up(str(error), USAGE)
        except AnotherBot as error:
            give_up(str(error), REFUSED)


def schedules() -> None:
    """Enqueue runs when they are due (HUIGAN_SCHEDULE, HUIGAN_MIN_RATINGS), and put back what lost its worker."""
    from huigan.operate import withdrawals
    from huigan.operate.cron import BadCron, zone_of
    from schedules import release_watch
    from schedules.loop import Plan, forget_updates, main

    with opened() as (chosen, db):
        log_to_stderr(chosen)
        plan = Plan(
            lambda: recipe_for(chosen, db, ""),
            chosen.schedule,
            chosen.min_ratings,
            zone_of(chosen.zone) if chosen.zone else None,
            chosen.quiet_hours,
            chosen.cool_down_hours,
            chosen.recipe,
        )
        plan.recipe()  # a wrong one is named before anything starts
        looks = {"releases": functools.partial(release_watch.look, db, Ollama(chosen.ollama_host))}
        try:
            withdraw = functools.partial(withdrawals.withdraw, db, Ollama(chosen.ollama_host))
            days = timedelta(days=chosen.keep_updates_days)
            kept = functools.partial(library.look, db, Ollama(chosen.ollama_host), chosen.keep_releases)
            acts: list[Act] = [
                *_nightly(chosen, db),
                (WITHDRAW_SECONDS, lambda: withdraw(now())),
                (PRUNE_SECONDS, lambda: kept(now())),
            ]
            with tended(chosen, db, "schedules", *acts) as signs:
                daily = {"updates": functools.partial(forget_updates, db, keep=days)}
                main(db, plan, chores=daily, looks=looks, beat=signs.beat)
        except BadCron as error:
            give_up(f"HUIGAN_SCHEDULE: {error}", USAGE)


def _nightly(chosen: Settings, db: Database) -> list[Act]:
    from huigan.operate.cron import zone_of
    from schedules import nightly

    if not chosen.backup_keep:
        return []
    worker, make = worker_name(), functools.partial(backups.make, db, chosen)
    zone = zone_of(chosen.zone) if chosen.zone else None
    return [(nightly.LOOK_SECONDS, lambda: nightly.look(db, worker, make, now(), zone))]


def trainer() -> None:
    """Claim queued runs and train them, each in a child process. Needs `pip install huigan[train]`."""
    from trainer import card, clearing, keeper, stores, supervisor

    if importlib.util.find_spec("trl") is None:
        give_up("The trainer is not installed (trl is missing): pip install 'huigan[train]'", USAGE)

    def command(run: Run) -> list[str]:
        return [sys.executable, "-m", "huigan", "train", str(run.id), "--attempt", str(run.attempt)]

    with opened() as (chosen, db):
        log_to_stderr(chosen)
        said = {"unload_idle": chosen.unload_idle, "card_wait_minutes": chosen.card_wait_minutes}
        environment = {name: value for name, value in said.items() if value is not None}
        db.write(settable.tell, "trainer", {"environment": environment}, now())
        client = Ollama(chosen.ollama_host)
        acts: list[Act] = [
            (CLEAR_SECONDS, lambda: clearing.upkeep(db, chosen.home, now())),
            (PRUNE_SECONDS, lambda: stores.prune(db, chosen.home, limits_of(chosen), now())),
            (PUT_BACK_SECONDS, lambda: keeper.put_back(db, client, now())),
            (PUT_BACK_SECONDS, lambda: card.give_back_late(db, client, now())),
        ]
        with tended(chosen, db, "trainer", *acts) as signs:
            supervisor.main(db, command, chosen.home / "logs", beat=signs.beat)


def train(
    number: RunNumber,
    attempt: Annotated[
        int | None, typer.Option(help="Given by the supervisor; without it, the run is claimed here.")
    ] = None,
) -> None:
    """Train one run in this process, and show how it goes. What a kill left behind is taken up."""
    from trainer import alone, child

    with opened() as (chosen, db):
        log_to_stderr(chosen)

        def walk(db: Database, run: int, attempt: int) -> int:
            return child.main(
                db,
                run,
                attempt,
                chosen.home,
                Ollama(chosen.ollama_host),
                locale=locale_of_terminal(),
                endpoint=chosen.hf_endpoint,
                llama_cpp=chosen.llama_cpp_dir,
                alias=tags.ALIAS,
                ollama_is_here=chosen.ollama_is_here,
                unload_idle=chosen.unload_idle,
                card_wait_minutes=chosen.card_wait_minutes,
                report_to=chosen.report_to,
            )

        if attempt is not None:
            raise typer.Exit(walk(db, number, attempt))
        code = alone.run(db, number, walk)
        if code == child.NOT_OURS:
            errors.print(f"Run {number} does not wait to be trained, or another is trained now: see `huigan run list`.")
        raise typer.Exit(code)


def migrate() -> None:
    """Bring the database up to date."""
    with opened(migrated=False) as (_, db):
        upgrade(db)
        errors.print(f"The database is up to date: {db.engine.url.render_as_string(hide_password=True)}")


ALL = (up, demo, chat, engine, bot, schedules, trainer, train, migrate)
