"""What each stage of a run does: typed arguments in, one typed result out, which can be kept as JSON.

A stage may be started again at any time: it takes up, or does over, what a killed process left. It does not know which
stage comes next, nor how a run's state is kept. Libraries for training and llama.cpp are imported where they are used,
so that looking at a run needs neither.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.exc import OperationalError

from huigan import disk
from huigan.serving.client import Ollama
from storage import audit, deployments, holdings, run_points, runs
from storage.db import Database, Session
from storage.recipe import Recipe, Stage
from storage.records import Live, Run
from trainer import continuing, dataset, estimates, machine, preflight, seals, suite, weighing
from trainer.dataset import Built
from trainer.scorecard import Scorecard

log = logging.getLogger(__name__)

GIB = 2**30
# Headers, JSON, the report: what is written beside the big files.
SPARE_BYTES = 64 * 2**20

Tell = Callable[[str, int, int], None]  # (what, done, total)


class RunFailed(Exception):
    """The run cannot go on. `code` names the words, `params` fill them."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(f"{code} {params}" if params else code)
        self.code, self.params = code, params


def unnoted(_name: str, _told: dict[str, Any]) -> None:
    """For callers that show nothing."""


def untold(_method: str, _step: int, _measures: Mapping[str, float]) -> None:
    """For callers that show no curves."""


def unheld(_held: bool) -> None:
    """For callers that have nobody to tell."""


@dataclass(frozen=True)
class Work:
    """One run and all that its stages work with. `tell` raises where the run is to stop."""

    db: Database
    run: Run
    recipe: Recipe
    home: Path
    client: Ollama
    now: Callable[[], datetime]
    tell: Callable[[str, str, int, int], None]  # (stage, what, done, total)
    endpoint: str | None = None  # of the Hugging Face hub
    llama_cpp: Path | None = None  # a checkout whose converter is used
    alias: str | None = None  # moved for Ollama's other clients when a release is deployed
    threads: int | None = None
    locale: str | None = None  # of the report
    patience_seconds: float = 300.0  # with an Ollama or a database that is away or busy when a release is due
    note: Callable[[str, dict[str, Any]], None] = unnoted  # what else is to be seen beside the progress
    point: Callable[[str, int, Mapping[str, float]], None] = untold  # (method, step, measures) of the curves
    hold: Callable[[bool], None] = unheld  # whether this run has the graphics card; raises as `tell` does
    ollama_is_here: bool = False  # it serves from the card that is trained on
    unload_idle: bool | None = None  # the environment's word on the card, where an admin says nothing
    card_wait_minutes: float | None = None
    measure_card: Callable[[], machine.Card | None] = machine.card
    report_to: tuple[str, ...] = ()  # trackers beside TensorBoard

    @property
    def folder(self) -> Path:
        return folder_of(self.home, self.run)

    def told(self, stage: str) -> Tell:
        return lambda what, done, total: self.tell(stage, what, done, total)


@dataclass(frozen=True)
class Origin:
    """What answered when the run began. It stays what the run starts from and is compared with, whatever is deployed
    meanwhile."""

    release_id: int
    tag: str
    weights: str
    path: Path | None
    quantisation: str
    template: str
    parameters: dict[str, Any]
    adapter: Path | None = None  # of the live release, where the recipe continues it


@dataclass(frozen=True)
class Taught:
    """The adapter of the last training stage, the weights it fits, and how it was reached."""

    weights: Path
    adapter: Path
    curves: tuple[Path, ...]
    end_of_turn: str
    stages: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Merged:
    """The candidate: base and adapter merged and quantised in one pass. No file where the adapter changes nothing."""

    base: Path  # 16-bit GGUF
    path: Path | None
    sha256: str
    size_bytes: int
    importance: Path | None = None  # which columns mattered to it, where the recipe has that measured


@dataclass(frozen=True)
class Reference:
    """The file that the candidate is compared with, in the candidate's quantisation."""

    path: Path
    what: Literal["live", "base"]


def folder_of(home: Path, run: Run) -> Path:
    """Named by time as well: a database that was begun anew counts from 1 again."""
    return home / "runs" / f"{run.id}-{run.queued_at:%Y%m%dT%H%M%S}"


def numbers_in(home: Path) -> set[int]:
    """Of the runs whose folders lie here."""
    named = (each.name.partition("-")[0] for each in home.glob("runs/*"))
    return {int(each) for each in named if each.isdecimal()}


def start(work: Work) -> Origin:
    live = work.db.read(deployments.live)
    if live is None:
        raise RunFailed("no_base")
    if live.artefact.weights is None:
        raise RunFailed("no_weights", tag=live.release.tag)
    keep_cases(work)
    return Origin(
        live.release.id,
        live.release.tag,
        live.artefact.weights,
        Path(live.artefact.path) if live.artefact.path else None,
        live.artefact.quantisation,
        live.artefact.template,
        dict(live.artefact.parameters),
        continued(work, live),
    )


def continued(work: Work, live: Live) -> Path | None:
    """None for a run from the base: also where the live release is the base itself, which has no adapter, or holds what
    somebody took back: then nothing goes on from it, for the run is to make one without that."""
    before = live.artefact.run_id
    if work.recipe.start == "base" or before is None:
        return None
    if not work.db.write(_goes_on, work.run, before, work.now()):
        log.warning("run %d begins from the base: run %d holds what was taken back", work.run.id, before)
        return None
    return continuing.adapter_in(folder_of(work.home, work.db.read(runs.get, before)), work.recipe, live.release.tag)


def _goes_on(session: Session, run: Run, before: int, at: datetime) -> bool:
    """At once, so that whoever takes something back meanwhile finds the one marked or the other going on from it."""
    if holdings.of_origin(session, before) is not None:
        audit.record(session, None, "run.from_base", at, run=run.id, holds=before)
        return False
    runs.go_on_from(session, run.id, run.attempt, before)
    return True


def keep_cases(work: Work) -> None:
    """The admin's suite as it is when the run begins: a file that cannot be used is told before hours of training."""
    if work.recipe.gate.suite is not None:
        path, most = suite.found(work.recipe.gate.suite), work.recipe.gate.max_cases
        cases = suite.read(path)
        if unasked := len(cases) - len(suite.chosen(cases, most)):
            log.warning("run %d: %d cases of %s are not asked: raise [gate] max_cases", work.run.id, unasked, path)
        shutil.copyfile(path, cases_of(work))


def cases_of(work: Work) -> Path:
    return work.folder / "suite.jsonl"


def build(work: Work) -> Built:
    on = disk.name_of(work.home)
    return dataset.build(work.db, work.recipe, work.folder / "dataset", work.now(), disk=on, run_id=work.run.id)


def train(work: Work, origin: Origin, built: Built) -> Taught:
    rows = dataset.rows_to_train(built)
    if not rows or not all(rows.values()):
        raise RunFailed("no_examples", dropped=built.counts["dropped"])
    from trainer import card, training, weights
    from trainer.tokens import end_of_turn_id

    def step(stage: Stage, done: int, total: int, measures: Mapping[str, float]) -> None:
        work.point(stage, done, measures)
        work.tell("train", stage, done, total)

    known = estimates.say_whether_it_fits(work, origin.weights, built)
    local = weights.local_weights(
        origin.weights, work.home / "weights", endpoint=work.endpoint, progress=work.told("train")
    )
    if known is None:
        known = estimates.say_whether_it_fits(work, str(local), built)
    needed_bytes = 0 if known is None else known.needed_bytes("vram")
    work.note(
        "rows", {stage: preflight.seen(work.recipe.training(stage), weighing.total(rows[stage])) for stage in rows}
    )
    work.note("speed", {stage: asdict(training.speed_of(work.recipe.training(stage), stage)) for stage in rows})
    with card.taken(work, on_card=training.is_on_card(), needed_bytes=needed_bytes):
        trained = training.train_stages(
            local,
            rows,
            work.recipe,
            work.folder / "train",
            held_out=dataset.rows_held_out(built),
            start=origin.adapter,
            report_to=work.report_to,
            progress=step,
        )
    for each in trained:
        tell_curve(work, each.stage, list(training.curve_of(each)))
    work.note("trained", {each.stage: {"held_out": each.held_out, "speed": each.speed} for each in trained})
    tokenizer = tokenizer_of(local)
    return Taught(
        local,
        trained[-1].adapter_dir,
        tuple(each.curves for each in trained),
        tokenizer.decode([end_of_turn_id(tokenizer)]),
        tuple(summary(each) for each in trained),
    )


def tell_curve(work: Work, stage: Stage, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
    """What a process measured and was killed before it had told."""
    try:
        told = {each.step for each in work.db.read(run_points.curve, work.run.id) if each.method == stage}
    except OperationalError as error:  # a curve is no reason to train again
        log.warning("run %d: its curve was not completed: %s", work.run.id, type(error.orig).__name__)
        return
    first = min((step for step, _ in points if step not in told), default=None)
    for step, measures in points:
        if first is not None and step >= first:
            work.point(stage, step, measures)


def summary(trained: Any) -> dict[str, Any]:
    """What a person wants to know of a stage that was trained."""
    names = (
        "stage steps seconds examples skipped batch accumulate device in_4bit in_8bit tune processes held_out speed "
        "peak_bytes"
    )
    return {name: getattr(trained, name) for name in names.split()}


def merge(work: Work, origin: Origin, built: Built, taught: Taught) -> Merged:
    """Merges into the 16-bit base and quantises, tensor by tensor: no merged 16-bit file ever lies on the disk."""
    from huigan.llama import adapter, gguf
    from huigan.llama import merge as gguf_space

    base = sixteen_bit(work, origin, taught.weights)
    out, quantisation = work.folder / "candidate.gguf", work.recipe.quantisation
    try:
        adapter.read(taught.adapter, gguf.read(base))
        importance = importance_of(work, built, taught, base) if work.recipe.weighs_columns else None
        make_room(work.folder, quantised_bytes(base, quantisation, importance))
        written = gguf_space.merge(
            base, taught.adapter, out, quantisation, importance=importance, progress=work.told("merge")
        )
    except adapter.AdapterWithoutEffect:
        return Merged(base, None, "", 0)
    return Merged(base, written.path, written.sha256, written.nbytes, importance)


def importance_of(work: Work, built: Built, taught: Taught, base: Path) -> Path:
    """The importance matrix of the run's own conversations, in llama.cpp's format: measured once."""
    kept = work.folder / "importance.gguf"
    if not kept.is_file():
        from trainer import card, importance, training

        with card.taken(work, on_card=training.is_on_card()):
            importance.measure(
                taught.weights,
                taught.adapter,
                base,
                dataset.rows_to_train(built),
                work.recipe,
                tokenizer_of(taught.weights),
                kept,
                progress=work.told("merge"),
            )
            training.hand_memory_back()
    return kept


def quantise(work: Work, origin: Origin, taught: Taught, merged: Merged) -> Reference:
    """The live file where it lies here in the same quantisation, else the base in it: made once, and kept.

    Where the candidate's columns were weighed, the base's are by the same weights, for this run alone.
    """
    quantisation, importance = work.recipe.quantisation, merged.importance
    if origin.path is not None and origin.path.is_file() and origin.quantisation == quantisation:
        return Reference(origin.path, "live")
    from huigan.llama import merge as gguf_space

    def make(out: Path) -> None:
        base = sixteen_bit(work, origin, taught.weights)
        make_room(out.parent, quantised_bytes(base, quantisation, importance))
        gguf_space.quantise(base, out, quantisation, importance=importance, progress=work.told("quantise"))

    kept = merged.base.with_suffix(f".{quantisation}.gguf") if importance is None else weighed_reference(work)
    return Reference(made_once(kept, make), "base")


def weighed_reference(work: Work) -> Path:
    """Of no use once the run has been scored."""
    return work.folder / "reference.gguf"


def score(work: Work, built: Built, taught: Taught, merged: Merged, reference: Reference) -> Scorecard:
    if merged.path is None:
        return Scorecard(effect=False)
    from trainer import score as scoring

    scored = scoring.Scored(
        built.folder,
        work.recipe,
        tokenizer_of(taught.weights),
        work.threads,
        work.told("score"),
        cases=suite.read(cases_of(work)) if work.recipe.gate.suite is not None else (),
        client=work.client,
        base=merged.base,
        taught=taught.adapter,
    )
    return scoring.compare(scored, live=reference.path, candidate=merged.path, compared_with=reference.what)


def sixteen_bit(work: Work, origin: Origin, weights: Path) -> Path:
    """The base as a 16-bit GGUF: made once from the weights, and kept."""
    given = Path(origin.weights).expanduser()
    source = given if given.is_file() else weights
    from huigan.llama import convert

    def make(out: Path) -> None:
        make_room(out.parent, folder_bytes(source) * (4 if source.is_file() else 1))
        if source.is_file():
            convert.dequantise(source, out, progress=work.told("merge"))
        else:
            convert.convert(source, out, convert.converter(work.home / "tools", work.llama_cpp))

    return made_once(base_path(work.home, source), make)


def made_once(kept: Path, make: Callable[[Path], object]) -> Path:
    """`kept`, which every run after the first only reads; made again where it is not what was made: a bit that fell on
    the disk would be in every release from then on."""
    seal = seals.beside(kept)
    if not (kept.is_file() and seals.holds(seal, kept)):
        if kept.is_file():
            log.warning("%s has rotted: it is made again", kept.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.unlink(missing_ok=True)
        seal.unlink(missing_ok=True)
        make(kept)
    if not seal.is_file():
        seals.put(seal, kept)
    kept.touch()  # what was used last is kept longest
    return kept


def base_path(home: Path, source: Path) -> Path:
    return home / "bases" / f"{source.stem}-{fingerprint(source)}.f16.gguf"


def fingerprint(source: Path) -> str:
    """Of where the weights lie, and of each file's size and time: reading 16 GB to name a file takes too long."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    facts = [(str(each.resolve()), each.stat().st_size, each.stat().st_mtime_ns) for each in files if each.is_file()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def folder_bytes(source: Path) -> int:
    files = [source] if source.is_file() else source.glob("*.safetensors")
    return sum(each.stat().st_size for each in files)


def quantised_bytes(base: Path, quantisation: str, importance: Path | None = None) -> int:
    from huigan.llama import gguf
    from huigan.llama import importance as importances
    from huigan.llama.quantise import tensor_types

    header = gguf.read(base)
    matters = None if importance is None else importances.read(importance, header)
    kinds = tensor_types(header, quantisation, matters)
    sizes = (gguf.Tensor(each.name, each.shape, kinds[each.name]).nbytes for each in header.tensors.values())
    return sum(sizes) + SPARE_BYTES


def make_room(folder: Path, needed_bytes: int) -> None:
    """Fails before hours of work do."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise disk_full(folder, needed_bytes)


def disk_full(folder: Path, needed_bytes: int | None = None) -> RunFailed:
    free = shutil.disk_usage(folder).free
    needed = {} if needed_bytes is None else {"needed_gib": round(needed_bytes / GIB, 2)}
    return RunFailed("disk_full", folder=str(folder), free_gib=round(free / GIB, 2), **needed)


def tokenizer_of(weights: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights, local_files_only=True, trust_remote_code=False)
