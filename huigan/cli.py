"""The command `huigan`: reads settings, calls one function of a room, and puts what it returns into words.

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 refused, nothing was changed; 4 Ollama could not do it;
75 (train) handed back to be tried again.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from sqlalchemy.exc import DatabaseError, OperationalError

from huigan import settings as environment
from huigan.operate import bases, recipes, releases, runs, tags
from huigan.operate.refusals import Refusal
from huigan.serving.client import AsyncOllama, Ollama
from huigan.serving.errors import ServingError
from huigan.settings import BadSettings, Settings
from huigan.shown import show, show_one
from huigan.terminal import locale_of_terminal
from huigan.texts import told
from storage import artefacts, deployments, ratings, users
from storage import releases as release_rows
from storage import runs as run_rows
from storage.db import BadDatabaseUrl, Database, connect
from storage.migrations import NewerSchema, is_current, upgrade
from storage.recipe import BadRecipe, Recipe
from storage.records import Artefact, Run

T = TypeVar("T")

FAILED, USAGE, REFUSED, SERVING = 1, 2, 3, 4
MAX_ID = 2**63 - 1  # what a database counts to

HELP = """A Telegram bot for your own Chinese LLM that gets better from being rated.

Try it: huigan demo. For real: huigan base add TAG --weights NAME, then huigan up.

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 refused, nothing was changed; 4 Ollama could not do it;
75 (train) handed back to be tried again.
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None
)
base_app = typer.Typer(help="Bases: what is served today, and the 16-bit weights it came from.", no_args_is_help=True)
run_app = typer.Typer(help="Runs: from feedback to a release.", no_args_is_help=True)
release_app = typer.Typer(help="Releases: what answers, what could, what did.", no_args_is_help=True)
feedback_app = typer.Typer(help="Feedback: what raters said.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets that runs train on.", no_args_is_help=True)
app.add_typer(base_app, name="base")
app.add_typer(run_app, name="run")
app.add_typer(release_app, name="release")
app.add_typer(feedback_app, name="feedback")
app.add_typer(data_app, name="data")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, whole records, instead of a table.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=MAX_ID, help="How many, the newest first.")]
RunNumber = Annotated[int, typer.Argument(metavar="RUN", min=1, max=MAX_ID, help="Its number, from `huigan run list`.")]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", help="A TOML file or a packaged recipe; by default HUIGAN_RECIPE or what an admin set."),
]
errors = Console(stderr=True, highlight=False, markup=False)


def now() -> datetime:
    return datetime.now(UTC)


def give_up(message: str, code: int) -> NoReturn:
    errors.print(message, style="red", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def opened(*, migrated: bool = True) -> Iterator[tuple[Settings, Database]]:
    """Settings and the database; what can go wrong with either, or with Ollama, ends the command with its fix."""
    locale = locale_of_terminal()
    try:
        chosen = environment.load()
        db = connect(chosen.database)
    except (BadSettings, BadDatabaseUrl) as error:
        give_up(str(error), USAGE)
    try:
        if migrated and not is_current(db):
            give_up("The database is new, or of another version: run `huigan migrate` first.", USAGE)
        yield chosen, db
    except (BadRecipe, recipes.NoSuchRecipe) as error:
        give_up(str(error), USAGE)
    except NewerSchema as error:
        give_up(str(error), FAILED)
    except DatabaseError as error:
        if type(error) not in {DatabaseError, OperationalError}:  # the others are bugs of ours
            raise
        at = db.engine.url.render_as_string(hide_password=True)
        give_up(f"The database {at} cannot be used: {error.orig}\nCorrect DATABASE_URL, or start the server.", FAILED)
    except ServingError as error:
        give_up(f"{told(locale, 'error', error.code, error.params)}\n{error}", SERVING)
    finally:
        db.close()


def agreed(result: T | Refusal) -> T:
    """What was done; a refusal ends the command."""
    if isinstance(result, Refusal):
        give_up(told(locale_of_terminal(), "refusal", result.code, result.params), REFUSED)
    return result


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "apscheduler", "alembic"):  # httpx would write the bot token: it is in its URLs
        logging.getLogger(noisy).setLevel(logging.WARNING)


@app.callback(help=HELP)
def whatever_is_asked() -> None:
    # A terminal that lacks a sign shows a question mark in its place; what it was asked to do is done all the same.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


# Processes


@app.command()
def up() -> None:
    """Run everything that is configured: migrate, an engine if no Ollama answers, the bot if there is a token,
    schedules and the trainer. One Ctrl-C stops all in order."""
    from huigan.up import run_all

    log_to_stderr()
    with opened(migrated=False) as (chosen, db):
        upgrade(db)
        raise typer.Exit(run_all(chosen, db))


@app.command()
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


@app.command()
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


@app.command()
def engine(
    host: Annotated[
        str, typer.Option(help="Loopback unless you say otherwise: whoever reaches it may use and delete.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Ollama's own is 11434.")] = 11434,
    models: Annotated[
        Path | None, typer.Option(help="Where tags and blobs are kept; by default HUIGAN_HOME/engine.")
    ] = None,
) -> None:
    """Serve GGUF files over Ollama's protocol, for machines without Ollama. Needs `pip install huigan[engine]`."""
    try:
        from huigan.engine.server import serve
    except ImportError as error:
        give_up(f"The engine is not installed ({error.name} is missing): pip install 'huigan[engine]'", USAGE)
    log_to_stderr()
    try:
        serve(host, port, models or environment.load().home / "engine")
    except (BadSettings, OSError) as error:
        give_up(str(error), USAGE)


@app.command()
def bot() -> None:
    """Run the Telegram bot: polling, or a webhook where TELEGRAM_WEBHOOK_URL is set."""
    from bot import claim
    from bot.main import BadToken, Webhook, run

    log_to_stderr()
    with opened() as (chosen, db):
        if chosen.telegram_bot_token is None:
            give_up("TELEGRAM_BOT_TOKEN is missing: get one from @BotFather and put it into .env", USAGE)
        if not chosen.admins and (code := db.write(claim.issue, now())):
            errors.print(f"Nobody owns this bot yet. In a private chat with it, send: /claim {code}", style="bold")
        webhook = None
        if chosen.telegram_webhook_url and chosen.telegram_webhook_secret:
            secret = chosen.telegram_webhook_secret.get_secret_value()
            webhook = Webhook(chosen.telegram_webhook_url, secret, chosen.telegram_webhook_listen)
        try:
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
            )
        except BadToken as error:
            give_up(str(error), USAGE)


@app.command()
def schedules() -> None:
    """Enqueue runs when they are due (HUIGAN_SCHEDULE, HUIGAN_MIN_RATINGS), and put back what lost its worker."""
    from huigan.operate.cron import BadCron
    from schedules.loop import Plan, forget_updates, main

    log_to_stderr()
    with opened() as (chosen, db):
        plan = Plan(lambda: recipe_for(chosen, db, ""), chosen.schedule, chosen.min_ratings)
        plan.recipe()  # a wrong one is named before anything starts
        try:
            main(db, plan, chores={"updates": functools.partial(forget_updates, db)})
        except BadCron as error:
            give_up(f"HUIGAN_SCHEDULE: {error}", USAGE)


@app.command()
def trainer() -> None:
    """Claim queued runs and train them, each in a child process. Needs `pip install huigan[train]`."""
    from trainer import supervisor

    if importlib.util.find_spec("trl") is None:
        give_up("The trainer is not installed (trl is missing): pip install 'huigan[train]'", USAGE)

    def command(run: Run) -> list[str]:
        return [sys.executable, "-m", "huigan", "train", str(run.id), "--attempt", str(run.attempt)]

    log_to_stderr()
    with opened() as (chosen, db):
        supervisor.main(db, command, chosen.home / "logs")


@app.command()
def train(
    number: RunNumber,
    attempt: Annotated[
        int | None, typer.Option(help="Given by the supervisor; without it, the run is claimed here.")
    ] = None,
) -> None:
    """Train one run in this process, and show how it goes. What a kill left behind is taken up."""
    from trainer import alone, child

    log_to_stderr()
    with opened() as (chosen, db):

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
                report_to=chosen.report_to,
            )

        raise typer.Exit(alone.run(db, number, walk) if attempt is None else walk(db, number, attempt))


@app.command()
def migrate() -> None:
    """Bring the database up to date."""
    with opened(migrated=False) as (_, db):
        upgrade(db)
        errors.print(f"The database is up to date: {db.engine.url.render_as_string(hide_password=True)}")


# Bases


@base_app.command("add")
def base_add(
    source: Annotated[str, typer.Argument(metavar="TAG|FILE.gguf", help="What Ollama serves now, or a GGUF file.")],
    weights: Annotated[str, typer.Option(help="The 16-bit weights it came from: a hub name, a folder or a GGUF.")],
    system: Annotated[str | None, typer.Option(help="The system message; by default the tag's own.")] = None,
    template: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file with the Go template; by default the tag's own."),
    ] = None,
    num_ctx: Annotated[int | None, typer.Option(min=128, help="Context length in tokens.")] = None,
    num_predict: Annotated[int, typer.Option(min=1, help="The longest answer in tokens.")] = 1024,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch the weights now, not when a run first needs them.")
    ] = False,
) -> None:
    """Register what is served now as a release, with the 16-bit weights it came from, and let it answer."""
    path = Path(source).expanduser()
    is_file = path.suffix == ".gguf" or path.is_file()
    local = Path(weights).expanduser()
    parameters: dict[str, Any] = {"num_predict": num_predict} | ({"num_ctx": num_ctx} if num_ctx else {})
    serving = bases.Serving(template.read_text(encoding="utf-8") if template else None, system, parameters)
    with opened() as (chosen, db):
        kept = str(local.resolve()) if local.exists() else weights
        with errors.status("…") as status:
            registered = agreed(
                bases.register(
                    db,
                    Ollama(chosen.ollama_host),
                    path if is_file else source,
                    kept,
                    by_user_id=None,
                    at=now(),
                    serving=serving,
                    progress=status.update,
                )
            )
        known = "" if registered.is_new else " (it was registered already)"
        errors.print(f"Release {registered.release.id} answers as {registered.release.tag}{known}")
        if fetch:
            from trainer.weights import WeightsUnavailable, local_weights

            try:
                folder = local_weights(kept, chosen.home / "weights", endpoint=chosen.hf_endpoint)
            except WeightsUnavailable as error:
                give_up(f"The release answers; its weights are not here yet: {error}", FAILED)
            errors.print(f"Weights: {folder}")


# Runs


def recipe_for(chosen: Settings, db: Database, name: str) -> Recipe:
    return recipes.find(name or db.read(recipes.chosen, chosen.recipe))


@run_app.command("start")
def run_start(
    recipe: RecipeName = "", dataset_only: Annotated[bool, typer.Option(help="End with the data set.")] = False
) -> None:
    """Queue a run, as /retrain does. The trainer takes it up."""
    with opened() as (chosen, db):
        wanted = recipe_for(chosen, db, recipe)
        queued = agreed(runs.enqueue(db, wanted, why="command", by_user_id=None, at=now(), dataset_only=dataset_only))
        errors.print(f"Run {queued.run.id} is queued.")
        if not queued.trainer_lives:
            errors.print("No trainer is running: start `huigan trainer` on the training machine.", style="yellow")


@run_app.command("list")
def run_list(limit: Limit = 20, as_json: AsJson = False) -> None:
    """The newest runs."""
    with opened() as (_, db):
        columns = {
            "run": lambda run: run.id,
            "state": lambda run: run.state,
            "stage": lambda run: run.stage,
            "recipe": lambda run: run.recipe.get("name"),
            "why": lambda run: run.why,
            "attempt": lambda run: run.attempt,
            "queued": lambda run: run.queued_at,
            "ended": lambda run: run.ended_at,
            "error": lambda run: (run.error or {}).get("code"),
        }
        show(db.read(run_rows.newest, limit), columns, as_json=as_json)


@run_app.command("show")
def run_show(number: RunNumber, as_json: AsJson = False) -> None:
    """One run: its recipe as used, its moves, its scorecard and verdict."""
    with opened() as (_, db):
        try:
            run = db.read(run_rows.get, number)
        except LookupError:
            agreed(Refusal("unknown_run", {"run": number}))
        artefact = db.read(artefacts.of_run, number)
        whole = {"run": run, "events": db.read(run_rows.events, number), "artefact": artefact}
        show_one(whole if as_json or artefact is None else whole | in_words(artefact), as_json=as_json)


def in_words(artefact: Artefact) -> dict[str, Any]:
    """What was found of it, as the bot's cards tell it; the figures behind it are in the JSON, and in the report."""
    from bot import scorecards

    locale, card = locale_of_terminal(), artefact.scorecard or {}
    told = {
        "verdict": "\n".join(scorecards.reasons(artefact.verdict or {}, locale)),
        "measured": "\n".join(scorecards.measured(card, locale)),
        "samples": "\n\n".join(scorecards.samples(card, locale)),
    }
    return {"artefact": replace(artefact, scorecard=None, verdict=None), **told}


@run_app.command("quantisations")
def run_quantisations(
    number: RunNumber,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="One of them, for example Q4_K_M; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every quantisation of what a run has trained: size, perplexity, divergence, tokens a second.

    On the run's held-out answers, on this machine's CPU; a recipe's `quantisation` chooses one for the next run.
    """
    from trainer import quantisations

    if unknown := [each for each in only or () if each not in {way.name for way in quantisations.WAYS}]:
        known = ", ".join(way.name for way in quantisations.WAYS)
        give_up(f"{', '.join(unknown)} is none of {known}", USAGE)
    with opened() as (chosen, db):
        try:
            run = db.read(run_rows.get, number)
        except LookupError:
            agreed(Refusal("unknown_run", {"run": number}))
        found = []
        try:
            for each in quantisations.of_run(chosen.home, run, only or (), lambda *_: None):
                errors.print(f"{each.name}: {each.size_bytes / 2**20:,.0f} MiB, KL {each.divergence.mean:.4f}")
                found.append(each)
        except quantisations.NothingToMeasure as error:
            give_up(str(error), REFUSED)
    show(found, quantisations.COLUMNS, as_json=as_json)


@run_app.command("cancel")
def run_cancel(number: RunNumber) -> None:
    """Cancel a queued run, or ask a running one to stop."""
    with opened() as (_, db):
        cancelled = agreed(runs.cancel(db, number, by_user_id=None, at=now()))
        errors.print(f"Run {number} is {'asked to stop' if cancelled.run.ended_at is None else 'cancelled'}.")


# Releases

ReleaseNumber = Annotated[
    int, typer.Argument(metavar="RELEASE", min=1, max=MAX_ID, help="Its number, from `huigan release list`.")
]


@release_app.command("list")
def release_list(limit: Limit = 50, as_json: AsJson = False) -> None:
    """All releases; the live one is marked."""
    with opened() as (_, db):
        live = db.read(deployments.live)
        columns = {
            "": lambda release: "●" if live and live.release.id == release.id else "",
            "release": lambda release: release.id,
            "tag": lambda release: release.tag,
            "since": lambda release: release.created_at,
        }
        show(db.read(release_rows.newest, limit), columns, as_json=as_json)


@release_app.command("show")
def release_show(number: ReleaseNumber, as_json: AsJson = False) -> None:
    """One release: how it is served, its scorecard and verdict, and when it answered."""
    with opened() as (_, db):
        try:
            release = db.read(release_rows.get, number)
        except LookupError:
            agreed(Refusal("unknown_release", {"release": number}))
        deployed = [each for each in db.read(deployments.history) if each.release_id == number]
        whole = {"release": release, "artefact": db.read(artefacts.get, release.artefact_id), "deployments": deployed}
        show_one(whole, as_json=as_json)


@release_app.command("promote")
def release_promote(number: ReleaseNumber) -> None:
    """Let a release answer. It is loaded first: if that fails, the live one stays."""
    with opened() as (chosen, db):
        done = agreed(releases.promote(db, Ollama(chosen.ollama_host), number, by_user_id=None, at=now()))
        errors.print(f"Release {done.release.id} answers now.")


@release_app.command("reject")
def release_reject(number: ReleaseNumber, why: Annotated[str, typer.Option(help="For the audit table.")] = "") -> None:
    """Turn a proposed release down."""
    with opened() as (_, db):
        agreed(releases.reject(db, number, by_user_id=None, why=why, at=now()))
        errors.print(f"Release {number} is rejected.")


@release_app.command("rollback")
def release_rollback(
    to: Annotated[
        int | None, typer.Option(min=1, max=MAX_ID, help="A release's number; by default the one before.")
    ] = None,
) -> None:
    """Let the release that answered before answer again."""
    with opened() as (chosen, db):
        done = agreed(releases.rollback(db, Ollama(chosen.ollama_host), by_user_id=None, at=now(), to=to))
        errors.print(f"Release {done.release.id} answers again.")


# Feedback and data


@feedback_app.command("list")
def feedback_list(limit: Limit = 50, as_json: AsJson = False) -> None:
    """The newest ratings that count."""
    with opened() as (_, db):
        newest = db.read(ratings.counting)[::-1][:limit]
        people = {each: db.read(users.get, each).name for each in {rating.user_id for rating in newest}}
        columns = {
            "rating": lambda rating: rating.id,
            "answer": lambda rating: rating.answer_id,
            "by": lambda rating: people[rating.user_id],
            "thumb": lambda rating: rating.thumb,
            "reason": lambda rating: rating.reason,
            "correction": lambda rating: rating.correction,
            "when": lambda rating: rating.rated_at,
        }
        show(newest, columns, as_json=as_json)


@data_app.command("build")
def data_build(
    out: Annotated[Path, typer.Option(help="The folder to write it to.")] = Path("dataset"),
    recipe: RecipeName = "",
    as_json: AsJson = False,
) -> None:
    """Write the data set that a run would train on now, without training; say what training on it would need."""
    from trainer import dataset, stages
    from trainer.replay import BadReplay

    with opened() as (chosen, db):
        wanted = recipe_for(chosen, db, recipe)
        try:
            built = dataset.build(db, wanted, out, now(), run_id=None)
        except (BadReplay, dataset.FolderTaken) as error:
            give_up(str(error), USAGE)
        live = db.read(deployments.live)
        weights = live.artefact.weights if live else None
        fit = stages.preflight_of(wanted, built, weights, chosen.home, endpoint=chosen.hf_endpoint) if weights else None
        show_one({"dataset": built, "preflight": fit.to_dict() if fit else None}, as_json=as_json)
