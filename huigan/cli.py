"""The command `huigan`: reads settings, calls one function of a room, and puts what it returns into words.

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 refused, nothing was changed; 4 Ollama could not do it;
75 (train) handed back to be tried again.
"""

from __future__ import annotations

import io
import os
import sys

import typer

from huigan.commands import backups, bases, canary, data, doctor, feedback, processes, pruning, releases, runs, settings

HELP = """A Telegram bot for your own Chinese LLM that gets better from being rated.

Try it: huigan demo. For real: huigan base add TAG --weights NAME, then huigan up.

Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 refused, nothing was changed; 4 Ollama could not do it;
75 (train) handed back to be tried again.
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None
)
app.add_typer(bases.app, name="base")
app.add_typer(runs.app, name="run")
app.add_typer(releases.app, name="release")
app.add_typer(canary.app, name="canary")
app.add_typer(feedback.app, name="feedback")
app.add_typer(data.app, name="data")
app.add_typer(settings.app, name="settings")
for command in (*processes.ALL, backups.backup, backups.restore, pruning.prune, doctor.doctor):
    app.command()(command)


@app.callback(help=HELP)
def whatever_is_asked() -> None:
    # What is kept is what people said: files are their owner's alone, on a machine that others use too.
    os.umask(0o077)
    # A terminal that lacks a sign shows a question mark in its place; what it was asked to do is done all the same.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
