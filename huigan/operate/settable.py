"""What admins may set, by name, and what holds: an admin's word beats the environment, that the recipe, that the
default.

Each process tells the database what its own environment and recipe say, for the bot may run on another machine than
schedules and the trainer. It does not know what the values are used for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from huigan.operate import cron, quiet, recipes
from huigan.operate.refusals import Refusal
from storage import audit, gpu, release_policy, settings
from storage.complaints import BadRecipe
from storage.db import Session
from storage.records import Setting

Origin = Literal["admin", "environment", "recipe", "default"]
Said = Mapping[str, Mapping[str, Any]]  # by origin, by name: what is not said is not there

OFF = "off"
MOST_RATINGS = 1_000_000
MOST_HOURS = 24 * 365
MOST_MINUTES = 7 * 24 * 60
APPROVAL = "approval"
TOLD = "said:"  # of setting keys: what a process was told where it runs
ROOMS = ("schedules", "trainer")


class BadValue(ValueError):
    """What somebody wrote cannot be used; the text says what would do."""


@dataclass(frozen=True)
class Settable:
    """One thing that may be set. `read` raises BadValue, BadCron, BadHours or BadZone."""

    name: str
    read: Callable[[str], Any]
    default: Any = None
    variable: str = ""  # of the environment
    key: str = ""  # of the setting's row, where it is not the name


@dataclass(frozen=True)
class Held:
    name: str
    value: Any
    origin: Origin
    beaten: Mapping[str, Any] = field(default_factory=dict)  # what others say, by origin
    by_user_id: int | None = None
    set_at: datetime | None = None


def cron_fields(written: str) -> str:
    if written != OFF:
        cron.firings(written)
    return "" if written == OFF else written


def count(written: str) -> int:
    number = int(written) if written.isascii() and written.isdigit() and len(written) <= 9 else 0
    if not 1 <= number <= MOST_RATINGS:
        raise BadValue(f"write a whole number from 1 to {MOST_RATINGS}")
    return number


def count_or_off(written: str) -> int | None:
    return None if written == OFF else count(written)


def hours_of_the_day(written: str) -> str:
    return "" if written == OFF else quiet.written(quiet.parse(written))


def amount(most: float) -> Callable[[str], float]:
    def read(written: str) -> float:
        try:
            number = 0.0 if written == OFF else float(written)
        except ValueError:
            number = math.nan
        if not 0 <= number <= most:
            raise BadValue(f"write a number from 0 to {most:g}, or off")
        return number

    return read


def zone_name(written: str) -> str:
    cron.zone_of(written)
    return written


def one_of(*choices: str) -> Callable[[str], str]:
    def read(written: str) -> str:
        if written not in choices:
            raise BadValue(f"write {', '.join(choices[:-1])} or {choices[-1]}")
        return written

    return read


def yes_or_no(written: str) -> bool:
    return one_of("yes", "no")(written) == "yes"


def recipe_name(written: str) -> str:
    try:
        recipes.find(written)
    except (recipes.NoSuchRecipe, BadRecipe) as error:
        raise BadValue(str(error)) from None
    return written


ALL = (
    Settable("schedule", cron_fields, "", "HUIGAN_SCHEDULE"),
    Settable("min_ratings", count_or_off, None, "HUIGAN_MIN_RATINGS"),
    Settable("quiet_hours", hours_of_the_day, "", "HUIGAN_QUIET_HOURS"),
    Settable("cool_down_hours", amount(MOST_HOURS), 0.0, "HUIGAN_COOL_DOWN_HOURS"),
    Settable("zone", zone_name, None, "HUIGAN_ZONE"),
    Settable("recipe", recipe_name, recipes.DEFAULT, "HUIGAN_RECIPE", recipes.SETTING),
    Settable(APPROVAL, one_of(*release_policy.APPROVALS), "approve"),
    Settable("min_total_ratings", count, 200),
    Settable("min_raters", count, 5),
    Settable("min_answers", count, 50),
    Settable("min_pairs", count, 100),
    Settable("min_thumbs", count, 200),
    Settable("while_training", one_of(*gpu.CHOICES), "share", "", gpu.SETTING),
    Settable("unload_idle", yes_or_no, True, "HUIGAN_UNLOAD_IDLE"),
    Settable("card_wait_minutes", amount(MOST_MINUTES), 60.0, "HUIGAN_CARD_WAIT_MINUTES"),
)
NAMED = {each.name: each for each in ALL}


def values(session: Session, names: Iterable[str], said: Said) -> dict[str, Any]:
    """What holds of each, to somebody who knows what environment and recipe say."""
    return {each.name: each.value for each in _all_held(session, names, said)}


def held(session: Session, name: str, said: Said) -> Held:
    return _all_held(session, [name], said)[0]


def _all_held(session: Session, names: Iterable[str], said: Said) -> list[Held]:
    wanted = [NAMED[name] for name in names]
    rows = settings.many(session, (one.key or one.name for one in wanted))
    return [_held(one, rows.get(one.key or one.name), said) for one in wanted]


def _held(one: Settable, row: Setting | None, said: Said) -> Held:
    name = one.name
    words: dict[str, Any] = {} if row is None or _says_nothing(one, row.value) else {"admin": row.value}
    words |= {
        origin: said[origin][name] for origin in ("environment", "recipe", "default") if name in said.get(origin, {})
    }
    words.setdefault("default", one.default)
    origin, value = next(iter(words.items()))
    beaten = {each: word for each, word in words.items() if each != origin and each != "default"}
    by = row if row is not None and origin == "admin" else None
    return Held(name, value, origin, beaten, by and by.by_user_id, by and by.set_at)  # type: ignore[arg-type]


def every(session: Session) -> list[Held]:
    """What holds of everything, by what the processes told."""
    said = told(session)
    return _all_held(session, NAMED, said)


def tell(session: Session, room: str, said: Said, at: datetime) -> None:
    """What environment and recipe say where `room` runs, for whoever asks elsewhere."""
    kept = settings.get(session, TOLD + room)
    plain = {origin: dict(words) for origin, words in said.items()}
    if kept is None or kept.value != plain:
        settings.put(session, TOLD + room, plain, None, at)


def told(session: Session) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    rows = settings.many(session, (TOLD + room for room in ROOMS))
    for kept in (rows[TOLD + room] for room in ROOMS if TOLD + room in rows):
        for origin, words in kept.value.items():
            found[origin] = {**found.get(origin, {}), **words}
    return found


def choose(session: Session, name: str, written: str, by_user_id: int | None, at: datetime) -> Refusal | Held:
    """Refused: `unknown_setting`, `bad_setting`."""
    one = NAMED.get(name)
    if one is None:
        return Refusal("unknown_setting", {"name": name[:40], "names": ", ".join(NAMED)})
    try:
        value = one.read(written.strip())
    except (BadValue, cron.BadCron, cron.BadZone, quiet.BadHours) as error:
        return Refusal("bad_setting", {"name": name, "problem": str(error)})
    audit.record(session, by_user_id, "setting.set", at, name=name, value=value)
    settings.put(session, one.key or name, value, by_user_id, at)
    return held(session, name, told(session))


def take_back(session: Session, name: str, by_user_id: int | None, at: datetime) -> Refusal | Held:
    """From now on the environment's, the recipe's or the default holds again. Refused: `unknown_setting`."""
    one = NAMED.get(name)
    if one is None:
        return Refusal("unknown_setting", {"name": name[:40], "names": ", ".join(NAMED)})
    audit.record(session, by_user_id, "setting.unset", at, name=name)
    settings.drop(session, one.key or name)
    return held(session, name, told(session))


def _says_nothing(one: Settable, value: Any) -> bool:
    """None is a word of an admin's only where it stands for `off`."""
    return value is None and one.name != "min_ratings"
