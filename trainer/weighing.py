"""Rows that count less come up less often. Pure.

TRL's losses are means over a batch with no place for a weight of one row, and each method has its own; so a row of
weight w is trained on in a share w of the epochs, at full strength. Which epochs is settled by a hash of the row: the
same in every process, after every kill, whatever the other rows are. Where every row weighs 1, nothing is changed.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence

from storage.recipe import Train
from trainer.tokens import Row


def weight_of(row: Row) -> float:
    given = row.get("weight")
    return 1.0 if given is None else float(given)


def phase_of(row: Row) -> float:
    """From 0 to 1, of what is trained on alone."""
    said = {name: row[name] for name in ("prompt", "completion", "chosen", "rejected", "label") if name in row}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56


def comes_up(row: Row, epoch: int) -> bool:
    """In n epochs n·w times, give or take less than one."""
    weight, phase = weight_of(row), phase_of(row)
    return math.floor((epoch + 1) * weight + phase) > math.floor(epoch * weight + phase)


def are_weighed(rows: Sequence[Row]) -> bool:
    return any(weight_of(row) < 1 for row in rows)


def total(rows: Sequence[Row]) -> float:
    return sum(map(weight_of, rows))


def in_turn(rows: Sequence[Row], settings: Train, arrange: Callable[[list[int], int], list[int]]) -> list[int]:
    """Places of rows in the order in which they are trained on, epoch after epoch, to the last of the stage.

    `arrange` puts the places of one epoch, whose number it is told, into an order.
    """
    order: list[int] = []
    epoch, wanted = 0, seen(rows, settings)
    while len(order) < wanted:
        order += arrange([at for at, row in enumerate(rows) if comes_up(row, epoch)], epoch)
        epoch += 1
    return order[:wanted]


def seen(rows: Sequence[Row], settings: Train) -> int:
    """How many rows are trained on in all, counted as often as they come up."""
    if settings.max_steps is not None:
        return settings.max_steps * settings.batch * settings.accumulate
    return max(1, round(settings.epochs * total(rows)))


def shuffled(places: list[int], seed: int) -> list[int]:
    mixed = list(places)
    random.Random(seed).shuffle(mixed)
    return mixed


def grouped(order: Sequence[int], lengths: Sequence[int], batch: int, window: int, seed: int) -> list[int]:
    """Within each window of the order the rows of about one length are put into one batch, which then need little
    padding; the batches come in random order, but for the last of all, where it is not a full one."""
    rng, found = random.Random(seed), list[int]()
    window = math.ceil(window / batch) * batch
    for start in range(0, len(order), window):
        alike = sorted(order[start : start + window], key=lengths.__getitem__)
        rest = len(alike) % batch
        batches = [alike[at : at + batch] for at in range(rest, len(alike), batch)]
        rng.shuffle(batches)
        found += [at for each in [*batches, alike[:rest]] for at in each]
    return found


def spread(places: list[int], liked: Callable[[int], bool], seed: int) -> list[int]:
    """Both kinds shuffled and spread evenly among each other."""
    rng, placed = random.Random(seed), []
    for label in (True, False):
        group = [at for at in places if liked(at) is label]
        rng.shuffle(group)
        placed += [((at + 0.5) / len(group), not label, each) for at, each in enumerate(group)]
    return [each for _, _, each in sorted(placed)]
