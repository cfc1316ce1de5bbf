"""`huigan doctor`: whether everything that Huigan needs is there, and what to do about what is not."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from huigan import settings as environment
from huigan.commands.frame import FAILED, AsJson, now
from huigan.commands.tending import card
from huigan.health import checkup
from huigan.health.checkup import Finding, Patient
from huigan.settings import BadSettings, Settings
from huigan.shown import print_json
from huigan.terminal import locale_of_terminal
from huigan.texts import text, told

SIGNS = {"well": ("✓", "green"), "note": ("–", "yellow"), "bad": ("✗", "bold red")}


def doctor(as_json: AsJson = False) -> None:
    """Look at everything that Huigan needs, and say of what is wrong how to mend it. Changes nothing, needs no token.
    Ends with 1 where something is wrong (✗); what is only not there (–) is none of that."""
    locale = locale_of_terminal()
    try:
        found = checkup.examine(_patient(environment.load()))
    except BadSettings as error:
        found = [Finding("settings", "bad", "settings_wrong", {"problem": line}) for line in str(error).splitlines()]
    if as_json:
        print_json([_plain(each, locale) for each in found])
    else:
        _show(found, locale)
    if any(each.level == "bad" for each in found):
        raise typer.Exit(FAILED)


def _patient(chosen: Settings) -> Patient:
    token = chosen.telegram_bot_token
    return Patient(
        token=token.get_secret_value() if token else None,
        telegram_url=chosen.telegram_base_url,
        database_url=chosen.database,
        home=chosen.home,
        ollama_host=chosen.ollama_host,
        recipe=chosen.recipe,
        hub=chosen.hf_endpoint,
        backups_kept=chosen.backup_keep,
        at=now,
        card=card,
    )


def _show(found: list[Finding], locale: str) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    named: set[str] = set()
    for each in found:
        sign, style = SIGNS[each.level]
        name = "" if each.check in named else told(locale, "check", each.check)
        named.add(each.check)
        table.add_row(Text(sign, style), Text(name), Text(_words(each, locale)))
    console = Console()
    console.print(table)
    wrong = sum(each.level == "bad" for each in found)
    code = "doctor.all_well" if wrong == 0 else "doctor.wrong"
    console.print(f"\n{text(locale, code, wrong=wrong)}", markup=False, highlight=False)


def _words(finding: Finding, locale: str) -> str:
    section, _, code = finding.code.rpartition(".")
    return told(locale, section or "doctor", code, finding.params)


def _plain(finding: Finding, locale: str) -> dict[str, Any]:
    known = {"check": finding.check, "level": finding.level, "code": finding.code, "params": dict(finding.params)}
    return {**known, "words": _words(finding, locale)}
