"""One snapshot of the feedback, written as a data set: Parquet files, a manifest, a card, and its row in the database.

    README.md  manifest.json  controls.json  answers/train.parquet  answers/held_out.parquet  pairs/…  thumbs/…

Readable without Huigan: `load_dataset("parquet", data_files=…)`, or by the card `load_dataset(FOLDER, "pairs")`.
This module does not know what the examples are for: neither weights nor training.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from huigan.turns import history
from storage import (
    answers,
    chats,
    comparisons,
    dataset_copies,
    dataset_people,
    datasets,
    messages,
    ratings,
    releases,
    turns,
    users,
)
from storage.db import Database, Session
from storage.recipe import Recipe, Stage
from storage.records import Answer, Comparison, Dataset, Lineage, Message, Rating
from trainer import examples, replay, statistics
from trainer.examples import Selection
from trainer.feedback import SPLITS, TASK_OF, TASKS, Exchange, Feedback, Regeneration, Split, Task, digest
from trainer.replay import Control

FORMAT = 2  # of the folder: its columns and its manifest; 1 had no weights, times and statistics
IDS_A_QUERY = 10_000  # SQLite and PostgreSQL bind some 32,000 at most
TRIES = 10  # each is lost only where somebody takes something back within the seconds it takes


class FolderTaken(ValueError):
    """There is something of somebody else's where the data set is to be written."""


class Unsettled(ValueError):
    """Each time it was gathered, some of it was taken back before it could be written down."""

    code = "unsettled"


@dataclass(frozen=True)
class Built:
    """A data set on disk, and what can be trained on it in which order."""

    dataset_id: int
    folder: Path
    sha256: str
    stages: tuple[Stage, ...]
    counts: dict[str, Any]


def build(db: Database, recipe: Recipe, folder: Path, at: datetime, *, disk: str, run_id: int | None = None) -> Built:
    """Write what a run of `recipe` would be trained on to `folder`, which is on `disk`. Raises BadReplay, FolderTaken
    and Unsettled.

    Its rows come before its files: no word is on the disk that what somebody takes back would not lead to, whenever
    this is killed. What is taken back before is not in it: it is gathered anew.
    """
    refuse_others(folder)
    mixed_in = replay.read(recipe.data.replays, recipe.system.text)
    with locked(folder):
        return _settled(db, recipe, mixed_in, folder, at, disk, run_id)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """What somebody takes back meanwhile is cleared once all is written: before, nothing of theirs would be found."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _settled(
    db: Database, recipe: Recipe, mixed_in: replay.Replay, folder: Path, at: datetime, disk: str, run_id: int | None
) -> Built:
    share, near = recipe.data.replay_share, recipe.data.near_duplicate
    for _ in range(TRIES):
        watermarks, feedback = db.read(gather, recipe)
        selection = examples.select(feedback, recipe.data, recipe.seed)
        selection = examples.with_replay(selection, mixed_in.rows, share, recipe.seed, near)
        stages = examples.choose_stages(selection, recipe)
        registered = db.write(
            register,
            selection,
            disk,
            at,
            run_id=run_id,
            method="+".join(stages) or "none",
            watermarks=watermarks,
            filters=filters(recipe),
            path=str(folder.absolute()),
        )
        if registered is None:
            continue
        write(folder, selection, mixed_in.controls, manifest(selection, recipe, stages, watermarks))
        # A run's is cleared once the run has ended; one without may lie where nobody clears.
        if run_id is not None or db.write(hold, selection):
            return Built(registered.id, folder, selection.sha256, stages, dict(selection.counts))
    clear(folder)
    raise Unsettled("people take back what they said faster than it is written down: try again in a while")


def register(
    session: Session,
    selection: Selection,
    disk: str,
    at: datetime,
    *,
    run_id: int | None,
    method: str,
    watermarks: tuple[int, int],
    filters: Mapping[str, Any],
    path: str,
) -> Dataset | None:
    """Its row, whose words are in it, and where it lies. None where some of it was taken back since it was gathered."""
    if not hold(session, selection):
        return None
    known = datasets.add(
        session, run_id, method, watermarks, selection.counts, filters, selection.sha256, path, lineage(selection), at
    )
    dataset_copies.add(session, known.id, disk, path, at)
    whose = ((each.sha256, person) for each in selection.examples for person in sorted(each.person_ids))
    dataset_people.add(session, known.id, whose)
    return known


def hold(session: Session, selection: Selection) -> bool:
    """Whether everybody in it agrees still and every judgement is there; that stays so until this transaction ends."""
    found = selection.examples
    if users.lock_unwilling(session, {person for each in found for person in each.person_ids}):
        return False
    rated = {row for each in found for row in each.rating_ids}
    compared = {row for each in found for row in each.comparison_ids}
    return datasets.hold_judgements(session, rated, compared)


def gather(session: Session, recipe: Recipe) -> tuple[tuple[int, int], Feedback]:
    """Everything that counts now, with the watermarks that say what `now` was. Simulated raters have nothing to consent
    to."""
    watermarks = (ratings.watermark(session), comparisons.watermark(session))
    rated = ratings.counting(session, up_to=watermarks[0])
    compared = comparisons.counting(session, up_to=watermarks[1])
    again = regenerations(session) if recipe.data.regenerate_weight > 0 else []
    exchanges = exchanges_of(session, answer_ids(rated, compared, again), recipe)
    raters = {*(each.user_id for each in rated), *(each.user_id for each in compared)}
    raters |= {each.user_id for each in again}
    people = raters.union(*(each.author_ids for each in exchanges.values()))
    known = [users.get(session, each) for each in sorted(people)]
    simulated = frozenset(each.id for each in known if each.channel == users.SIMULATED)
    allowed = simulated | {each.id for each in known if each.consented_at is not None}
    return watermarks, Feedback(rated, compared, exchanges, allowed, again, simulated, recipe.system.text)


def answer_ids(
    rated: Iterable[Rating], compared: Iterable[Comparison], again: Iterable[Regeneration] = ()
) -> list[int]:
    both = (each for one in compared for each in (one.left_answer_id, one.right_answer_id))
    all_of_again = (each for one in again for each in (one.first_answer_id, one.second_answer_id))
    return sorted({*(each.answer_id for each in rated), *both, *all_of_again})


def regenerations(session: Session) -> list[Regeneration]:
    """Of each answer that somebody asked for again: the one before it, and when they went on from it with a message of
    theirs. An edited message takes its place anew and goes on from nothing."""
    asked = turns.asked_again(session)
    given: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers.of_messages(session, {each.message_id for each in asked}):
        given[answer.message_id].append(answer)
    said: dict[tuple[int, int], list[Message]] = defaultdict(list)
    for message in messages.of_conversations(session, {each.conversation_id for each in asked}):
        said[message.conversation_id, message.user_id].append(message)
    found = []
    for turn in asked:
        second = next((each for each in given[turn.message_id] if each.turn_id == turn.id), None)
        before = [each for each in given[turn.message_id] if second is not None and each.id < second.id]
        if second is not None and before:
            later = (each for each in said[turn.conversation_id, turn.user_id] if each.sent_at > second.answered_at)
            went_on = next((each.sent_at for each in later if each.replaces_id is None), None)
            found.append(Regeneration(turn.id, turn.user_id, before[-1].id, second.id, went_on))
    return found


def exchanges_of(session: Session, wanted: Sequence[int], recipe: Recipe) -> dict[int, Exchange]:
    """By answer id, a batch at a time; without answers whose prompts are not whole any more."""
    found: dict[int, Exchange] = {}
    for first in range(0, len(wanted), IDS_A_QUERY):
        given = answers.many(session, wanted[first : first + IDS_A_QUERY])
        prompts = history.prompts_of(session, list(given.values()))
        authors = authors_of(session, list(given.values()))
        questions = messages.many(session, {each.message_id for each in given.values()})
        owners = chats.owners(session, {each.conversation_id for each in given.values()})
        own_systems = releases.systems(session, {each.release_id for each in given.values() if each.release_id})
        with_images = given_images(session, list(given.values()))
        for answer in (each for each in given.values() if each.id in prompts):
            spoken = [(each["role"], each["content"]) for each in prompts[answer.id][1:]]
            system = system_of(answer, own_systems.get(answer.release_id or 0), recipe)
            found[answer.id] = Exchange(
                answer,
                (("system", system), *spoken),
                authors[answer.id],
                answer.id in with_images,
                questions[answer.message_id].user_id,
                owners.get(answer.conversation_id),
            )
    return found


def system_of(answer: Answer, own_system: str | None, recipe: Recipe) -> str:
    """What is trained must be what is served: where the release's own system text was shown, the recipe's, which the
    next release is served with; where a chat has its own, that one."""
    shown = answer.seen.system
    return recipe.system.text if not shown.strip() or shown == own_system else shown


def authors_of(session: Session, given: Sequence[Answer]) -> dict[int, frozenset[int]]:
    """Who wrote the messages and corrections that each answer was given to."""
    rows = {
        answer.id: {("message", answer.message_id), *((str(kind), int(row_id)) for kind, row_id in answer.seen.row_ids)}
        for answer in given
    }
    wanted: set[tuple[str, int]] = set().union(*rows.values())
    said = messages.many(session, {row_id for kind, row_id in wanted if kind == "message"})
    corrected = ratings.many(session, {row_id for kind, row_id in wanted if kind == "correction"})
    writers = {("message", each.id): each.user_id for each in said.values()}
    writers |= {("correction", each.id): each.user_id for each in corrected.values()}
    return {answer_id: frozenset(writers[row] for row in each & writers.keys()) for answer_id, each in rows.items()}


def given_images(session: Session, given: Sequence[Answer]) -> frozenset[int]:
    """The answers whose prompts have messages that images came with."""
    rows = {
        answer.id: {answer.message_id, *(int(row_id) for kind, row_id in answer.seen.row_ids if kind == "message")}
        for answer in given
    }
    seen = history.images_of(session, set().union(*rows.values()))
    return frozenset(answer_id for answer_id, said in rows.items() if said & seen.keys())


def filters(recipe: Recipe) -> dict[str, Any]:
    """All of the recipe that decides which examples there are."""
    return {"seed": recipe.seed, "method": recipe.method, "system": recipe.system.text, **asdict(recipe.data)}


def manifest(
    selection: Selection, recipe: Recipe, stages: Sequence[Stage], watermarks: tuple[int, int]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "sha256": selection.sha256,
        "stages": list(stages),
        "watermarks": {"rating": watermarks[0], "comparison": watermarks[1]},
        "counts": selection.counts,
        "statistics": statistics.describe(selection.examples),
        "filters": filters(recipe),
        "recipe": {"name": recipe.name, "sha256": digest(recipe.to_dict())},
    }


def lineage(selection: Selection) -> Iterator[Lineage]:
    for each in selection.examples:
        for rating_id in sorted(each.rating_ids):
            yield Lineage(each.sha256, each.split, rating_id, None)
        for comparison_id in sorted(each.comparison_ids):
            yield Lineage(each.sha256, each.split, None, comparison_id)


def write(folder: Path, selection: Selection, controls: Sequence[Control], described: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clear(folder)
    (folder / "manifest.json").write_text(json.dumps(described, ensure_ascii=False, indent=1, sort_keys=True))
    (folder / "controls.json").write_text(json.dumps([asdict(each) for each in controls], ensure_ascii=False, indent=1))
    written = [(task, split) for task, split in product(TASKS, SPLITS) if write_table(folder, selection, task, split)]
    (folder / "README.md").write_text(card(written, described), encoding="utf-8")


def refuse_others(folder: Path) -> None:
    """Raises FolderTaken. Its manifest, which is written first, tells that a folder is a data set's."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / "manifest.json").is_file():
        raise FolderTaken(f"{folder} holds something that is no data set: name an empty folder, or a new one")


def clear(folder: Path) -> None:
    """Delete what an earlier data set left here, and nothing else."""
    for task, split in product(TASKS, SPLITS):
        for name in (f"{split}.parquet", f"{split}.parquet.part"):
            (folder / task / name).unlink(missing_ok=True)


def write_table(folder: Path, selection: Selection, task: Task, split: Split) -> bool:
    """False where there is nothing to write."""
    import pyarrow as pa
    from pyarrow import parquet

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    spoken = {name: pa.list_(message) for name in ("prompt", *COLUMNS[task])}
    ids = pa.list_(pa.int64())
    more = {
        "source": pa.string(),
        "example": pa.string(),
        "rating_ids": ids,
        "comparison_ids": ids,
        "turn_ids": ids,
        "weight": pa.float64(),
        "conversation_id": pa.int64(),
        "rated_at": pa.string(),
    }
    label = {"label": pa.bool_()} if task == "thumbs" else {}
    rows = [
        {
            **each.row(),
            "source": each.source,
            "example": each.sha256,
            "rating_ids": sorted(each.rating_ids),
            "comparison_ids": sorted(each.comparison_ids),
            "turn_ids": sorted(each.turn_ids),
            "weight": each.weight,
            "conversation_id": each.conversation_id,
            "rated_at": None if each.rated_at is None else each.rated_at.astimezone(UTC).isoformat(),
        }
        for each in selection.of(task, split)
    ]
    if rows:
        (folder / task).mkdir(exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=pa.schema({**spoken, **label, **more}))
        path = folder / task / f"{split}.parquet"
        part = path.with_name(f"{path.name}.part")
        parquet.write_table(table, part)
        part.replace(path)  # whole at any instant: what is taken back may have to go from it after a kill
    return bool(rows)


COLUMNS: dict[Task, tuple[str, ...]] = {
    "answers": ("completion",),
    "pairs": ("chosen", "rejected"),
    "thumbs": ("completion",),
}


def rows_of(folder: Path, task: Task, split: Split) -> list[dict[str, Any]]:
    """The rows of a data set as they were written; none where there is no such file."""
    from pyarrow import parquet

    path = folder / task / f"{split}.parquet"
    return parquet.ParquetFile(path).read().to_pylist() if path.is_file() else []


def rows_to_train(built: Built) -> dict[Stage, list[dict[str, Any]]]:
    """What each stage is trained on, in the order of the stages."""
    return {stage: rows_of(built.folder, TASK_OF[stage], "train") for stage in built.stages}


def rows_held_out(built: Built) -> dict[Stage, list[dict[str, Any]]]:
    """Of the same shapes, what none of the stages is trained on."""
    return {stage: rows_of(built.folder, TASK_OF[stage], "held_out") for stage in built.stages}


def controls_of(folder: Path) -> tuple[Control, ...]:
    raw = json.loads((folder / "controls.json").read_bytes())
    return tuple(Control(each["question"], tuple(each["keys"])) for each in raw)


CARD = """\
---
license: other
language: [zh, en]
configs:
{configs}---
# Feedback for the recipe {name}

Built by Huigan from ratings, corrections and comparisons of consenting people, up to rating {rating} and
comparison {comparison}. `answers` are right answers (SFT), `pairs` chosen over rejected (DPO, ORPO), `thumbs` labelled
answers (KTO). Held-out rows are whole conversations, and whole people where the recipe says so; what is said on both
sides is on the side where it was said first.

| split | answers | pairs | thumbs |
|---|---|---|---|
{table}
Columns beside the texts: `source`, the content's hash as `example`, and its lineage: `rating_ids`, `comparison_ids`,
and `turn_ids` where somebody only asked again; replayed rows have none. `weight`, above 0 and at most 1, is how much a
row counts. `conversation_id` is the earliest of its conversations, `rated_at` the earliest judgement behind it, in UTC.

Personal data that has a form (phone, identity and card numbers, e-mail and IP addresses, WeChat, QQ, handles) is
replaced by placeholders such as `[PHONE_1]`, the same for the same in one row, except in code.{length}

| | rows | answer characters (median, p90, most) | languages | sources | raters (most by one) | weights (least, mean) |
|---|---|---|---|---|---|---|
{statistics}
| left out | rows or judgements |
|---|---|
{dropped}
Content: sha256 `{sha256}`. All counts, filters and statistics: `manifest.json`.
"""
BIAS = """

In {chosen_longer_share:.0%} of {pairs} pairs the chosen answer is the longer one; in the geometric mean it is
{mean_ratio:.2f} times as long as the rejected one."""


def card(written: Sequence[tuple[Task, Split]], described: dict[str, Any]) -> str:
    configs = ""
    for task in TASKS:
        if splits := [split for of, split in written if of == task]:
            configs += f"- config_name: {task}\n  data_files:\n"
            configs += "".join(f"  - split: {split}\n    path: {task}/{split}.parquet\n" for split in splits)
    counts = described["counts"]
    kept, bias = counts["kept"], counts.get("length_bias")
    return CARD.format(
        configs=configs,
        name=described["recipe"]["name"],
        sha256=described["sha256"],
        table="".join(f"| {split} | {' | '.join(str(kept[split][task]) for task in TASKS)} |\n" for split in SPLITS),
        length=BIAS.format(**bias) if bias else "",
        statistics="".join(map(told, described.get("statistics", {}).items())),
        dropped="".join(f"| {reason} | {number} |\n" for reason, number in counts.get("dropped", {}).items()),
        **described["watermarks"],
    )


def told(named: tuple[str, Mapping[str, Any]]) -> str:
    """One line of the card's statistics."""
    name, of = named
    lengths = ", ".join(str(each) for each in of["answer_characters"].values())
    languages, sources = (", ".join(f"{each} {number}" for each, number in of[of_what].items())
                          for of_what in ("languages", "sources"))  # fmt: skip
    raters, weights = of["raters"], of["weights"]
    return (
        f"| {name} | {of['rows']} | {lengths} | {languages} | {sources} | {raters['count']} ({raters['most']}) "
        f"| {weights['least']}, {weights['mean']} |\n"
    )
