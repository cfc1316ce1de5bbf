"""Rows + 16-bit weights + recipe → an adapter, or changed weights: one code path for CPU and CUDA, for every method.

Everything a stage writes lies in one folder: `checkpoints/` while it runs, `curves.jsonl` and `tensorboard/` as it
goes, `adapter/`, and `trained.json`, written last. Killed at any instant and started again with the same arguments it
goes on from the last whole checkpoint and ends, on a CPU, with the same adapter. This module does not know databases,
GGUF or Telegram.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import importlib.util
import resource
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from peft import LoraConfig
from safetensors import SafetensorError

from storage.recipe import Recipe, Stage, Train
from trainer import checkpoints, launcher, methods, optimisers, patience, recorder, speed, tuning
from trainer.recorder import Progress, Recorder, silent
from trainer.speed import Facts, Speed
from trainer.tokens import Fit, Row, TrainingFailed, choose_pad_token, end_of_turn_id, fitting

NO_MEMORY_WORDS = "can't allocate memory"  # torch's, on a CPU
# Of safetensors, and of torch's writer, which says only where it got to.
FULL_DISK_WORDS = ("No space left", "PytorchStreamWriter", "unexpected pos")


@dataclass(frozen=True)
class Trained:
    """What one stage produced. `seconds` and `peak_bytes` are those of the last, uninterrupted stretch."""

    stage: Stage
    adapter_dir: Path
    curves: Path
    steps: int
    seconds: float
    examples: int
    skipped: dict[str, int]
    batch: int
    accumulate: int
    device: str
    in_4bit: bool
    peak_bytes: int
    in_8bit: bool = False
    tune: str = "lora"
    processes: int = 1
    held_out: dict[str, Any] = field(default_factory=dict)  # what it was looked at with, and which step was kept
    speed: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One stage as it was asked for; nothing in it changes when memory runs out and the batch is halved."""

    weights_dir: Path
    adapter: Path | None
    recipe: Recipe
    stage: Stage
    fit: Fit
    tokenizer: Any
    out_dir: Path
    progress: Progress
    held_out: Fit | None = None  # nobody looks where there are too few of them
    report_to: tuple[str, ...] = ()

    @property
    def patience(self) -> int:
        return self.recipe.training(self.stage).patience if self.held_out is not None else 0


def train(
    weights_dir: Path,
    rows: Sequence[Row],
    recipe: Recipe,
    out_dir: Path,
    *,
    stage: Stage,
    adapter: Path | None = None,
    held_out: Sequence[Row] = (),
    report_to: Sequence[str] = (),
    progress: Progress = silent,
    resume: bool = True,
) -> Trained:
    """Trains one stage into `out_dir`, on top of `adapter` if given, until `held_out` are learnt no better.

    `rows` and `held_out` are those of `stage` (see `trainer.tokens`). What an earlier call with equal arguments left in
    `out_dir` is gone on from; what another left is deleted. Whatever `progress` raises ends the training and passes
    through. Raises TrainingFailed, or BadRecipe where no library knows a name in [peft] or [trl].
    """
    methods.check_pass_through(recipe, [each.name for each in dataclasses.fields(LoraConfig)])
    recorder.check_trackers(report_to)
    looked_at = held_out[: patience.MOST_ROWS] if recipe.training(stage).patience else ()
    all_rows = [*rows, {"held_out": list(looked_at)}] if looked_at else rows
    key = checkpoints.fingerprint(weights_dir, all_rows, recipe, stage, adapter)
    if resume and (kept := checkpoints.finished(out_dir, key)):
        return located(kept, out_dir)
    checkpoints.prepare_folder(out_dir, key, keep=resume)
    with quiet_libraries(), full_disk_named(out_dir):
        job = job_of(weights_dir, rows, recipe, out_dir, stage, adapter, looked_at, report_to, progress)
        result = run_within_memory(job)
        hand_memory_back()
        checkpoints.record(out_dir, key, result)
    shutil.rmtree(out_dir / "checkpoints", ignore_errors=True)
    return located(result, out_dir)


def job_of(
    weights_dir: Path,
    rows: Sequence[Row],
    recipe: Recipe,
    out_dir: Path,
    stage: Stage,
    adapter: Path | None,
    held_out: Sequence[Row],
    report_to: Sequence[str],
    progress: Progress,
) -> Job:
    """The same in every process that trains it."""
    tokenizer = load_tokenizer(weights_dir)
    fit = fitting(tokenizer, methods.ordered(rows, stage, recipe.seed), stage, recipe.data)
    seen = fitting(tokenizer, held_out, stage, recipe.data, may_be_empty=True)
    enough = len(seen.rows) >= patience.FEWEST_ROWS
    whole = methods.arranged(fit, recipe, stage)
    looked_at = seen if enough else None
    return Job(weights_dir, adapter, recipe, stage, whole, tokenizer, out_dir, progress, looked_at, tuple(report_to))


def train_stages(
    weights_dir: Path,
    rows: Mapping[Stage, Sequence[Row]],
    recipe: Recipe,
    out_dir: Path,
    *,
    held_out: Mapping[Stage, Sequence[Row]] | None = None,
    start: Path | None = None,
    report_to: Sequence[str] = (),
    progress: Progress = silent,
    resume: bool = True,
) -> list[Trained]:
    """Every stage of `rows`, in their order, each on top of the one before and each in its own folder of `out_dir`; the
    first on top of `start`, where an earlier adapter is continued."""
    done: list[Trained] = []
    for stage in rows:
        done.append(
            train(
                weights_dir,
                rows[stage],
                recipe,
                out_dir / stage,
                stage=stage,
                adapter=done[-1].adapter_dir if done else start,
                held_out=(held_out or {}).get(stage, ()),
                report_to=report_to,
                progress=progress,
                resume=resume,
            )
        )
    return done


def located(result: dict[str, Any], out_dir: Path) -> Trained:
    return Trained(adapter_dir=out_dir / "adapter", curves=out_dir / "curves.jsonl", **result)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """No bars and no notices about arguments that will be renamed: progress is told through `progress` alone."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@contextlib.contextmanager
def full_disk_named(out_dir: Path) -> Iterator[None]:
    """torch and safetensors report a full disk as errors of their own."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and not any(words in str(error) for words in FULL_DISK_WORDS):
            raise
        free = shutil.disk_usage(out_dir).free
        raise TrainingFailed("disk_full", folder=str(out_dir), free_bytes=free) from error


def run_within_memory(job: Job) -> dict[str, Any]:
    """Halves the batch and doubles accumulation (the same steps on the same examples) until it fits."""
    settings = methods.settled(job.recipe.training(job.stage), job.stage)
    while True:
        try:
            return attempt(job, settings)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not is_out_of_memory(error):
                raise
            if (smaller := halved(settings, job.stage)) is None:
                raise TrainingFailed("out_of_memory", batch=settings.batch) from error
        hand_memory_back()  # out here the traceback, which held the tensors, is gone
        settings = smaller


def hand_memory_back() -> None:
    """To the next stage, and to the server, which has to load the candidate beside what it serves now. The Trainer and
    its model lie in cycles, and the allocator keeps for itself what they leave; the CUDA context stays."""
    gc.collect()
    torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or NO_MEMORY_WORDS in str(error)


def halved(settings: Train, stage: Stage) -> Train | None:
    """The same examples a step in smaller batches; None where there are none smaller."""
    smallest = 2 if stage == "kto" and methods.kto_loss(settings) == "kto" else 1  # it pairs neighbours
    divisor = 2 if settings.batch % 2 == 0 else settings.batch
    batch = settings.batch // divisor
    if divisor == 1 or batch < smallest:
        return None
    return dataclasses.replace(settings, batch=batch, accumulate=settings.accumulate * divisor)


def attempt(job: Job, settings: Train) -> dict[str, Any]:
    """Trains from the last whole checkpoint, or from the start, to the end; leaves the adapter and the curves."""
    started_at, cuda = time.monotonic(), torch.cuda.is_available()
    in_4bit = tuning.is_in_4bit(job.recipe, settings)
    chosen = speed_of(settings, job.stage)
    count = launcher.processes(settings, torch.cuda.device_count() if cuda else 1)
    checkpoint, peak_bytes = checkpoints.last_whole(job.out_dir / "checkpoints"), 0
    # Gone on from the last step of all, the Trainer would take one more.
    if checkpoint is None or not checkpoints.is_final(checkpoint, job.patience):
        checkpoints.keep_curves(job.out_dir / "curves.jsonl", checkpoints.step_of(checkpoint) if checkpoint else 0)
        if count > 1:
            checkpoint, peak_bytes = launcher.train_from(checkpoint, job, settings, count)
        else:
            checkpoint = train_from(checkpoint, job, settings, in_4bit=in_4bit)
    best = checkpoints.best(checkpoint)
    tuning.keep(best, job.weights_dir, job.out_dir)
    return {
        "stage": job.stage,
        "steps": checkpoints.step_of(checkpoint),
        "seconds": round(time.monotonic() - started_at, 1),
        "examples": job.fit.examples,
        "skipped": dict(job.fit.skipped),
        "batch": settings.batch,
        "accumulate": settings.accumulate,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "in_4bit": in_4bit,
        "in_8bit": settings.load_in_8bit,
        "tune": settings.tune,
        "processes": count,
        "held_out": looked(job, checkpoint, best),
        "speed": dataclasses.asdict(chosen),
        "peak_bytes": peak_bytes or (torch.cuda.max_memory_allocated() if cuda else peak_process_bytes()),
    }


def looked(job: Job, last: Path, best: Path) -> dict[str, Any]:
    """What the held-out rows said; or why they were not asked."""
    if job.held_out is None:
        return {"rows": 0, "off": "patience_0" if not job.recipe.training(job.stage).patience else "too_few_rows"}
    seen = checkpoints.looks(last)
    found = patience.best(seen)
    return {
        "rows": len(job.held_out.rows),
        "looks": len(seen),
        "kept_step": checkpoints.step_of(best),
        "loss": found.loss if found else None,
        "stopped_early": not checkpoints.is_final(last, patience_looks=0),
    }


def train_from(checkpoint: Path | None, job: Job, settings: Train, *, in_4bit: bool) -> Path:
    """The checkpoint of the last step, which the Trainer writes whatever `save_steps` is. In each process alike, where
    there are several."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    transformers.set_seed(job.recipe.seed)
    trainer = build_trainer(job, settings, load_model(job, in_4bit=in_4bit), in_4bit=in_4bit)
    if getattr(trainer.args, "packing", False):
        methods.check_packed(trainer.train_dataset, job.fit, job.stage)
    else:
        methods.check_tokens(trainer.train_dataset, job.fit, job.stage, job.tokenizer.eos_token_id)
    first_step = checkpoints.step_of(checkpoint) if checkpoint else 0
    if trainer.is_world_process_zero():
        for callback in recorder.trackers(job.report_to, job.out_dir, first_step=first_step):
            trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    recorder.end_trackers(job.report_to)
    return job.out_dir / "checkpoints" / f"checkpoint-{trainer.state.global_step}"


def speed_of(settings: Train, stage: Stage) -> Speed:
    """Raises TrainingFailed for what was asked for by name and cannot be had here."""

    def has(package: str) -> bool:
        return importlib.util.find_spec(package) is not None

    facts = Facts(torch.cuda.is_available(), has("flash_attn"), has("liger_kernel"))
    return speed.choose(settings, stage, facts)


def peak_process_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def load_tokenizer(weights_dir: Path) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights_dir, local_files_only=True, trust_remote_code=False)
    # ORPO closes every answer with eos: where eos would end the text rather than the turn, it would teach both.
    tokenizer.eos_token = tokenizer.decode([end_of_turn_id(tokenizer)])
    choose_pad_token(tokenizer)
    return tokenizer


def load_model(job: Job, *, in_4bit: bool) -> Any:
    """The base with what is trained of it trainable, from `job.adapter`, else anew."""
    settings = job.recipe.training(job.stage)
    attention = speed_of(settings, job.stage).attention
    model = tuning.load_base(job.weights_dir, settings, in_4bit=in_4bit, attention=attention)
    return tuning.tuned(model, job.weights_dir, job.recipe, settings, job.adapter, job.out_dir)


def build_trainer(job: Job, settings: Train, model: Any, *, in_4bit: bool) -> Any:
    """The reference of DPO and KTO is a frozen copy of the adapter as it starts, which TRL makes when it is handed a
    PeftModel: after an SFT stage the SFT model, on a new adapter the base. `peft_config` would make it always the base.
    Where there is no adapter, it is a second model.
    """
    config_class, trainer_class = methods.classes(job.stage)
    given = methods.arguments(job.recipe, settings, job.stage, job.fit, speed_of(settings, job.stage))
    args = config_class(**given | run_arguments(job, settings, in_4bit=in_4bit))
    more: dict[str, Any] = {}
    if settings.tune != "lora" and job.stage in ("dpo", "kto"):
        more["ref_model"] = tuning.reference_of(job.weights_dir, settings, job.adapter)
    if settings.loraplus_ratio is not None:
        more["optimizers"] = (optimisers.loraplus(model, args, settings.loraplus_ratio), None)
    if job.held_out is not None:
        looked_at = methods.columns(job.tokenizer, job.held_out.rows, job.stage)
        more["eval_dataset"] = datasets.Dataset.from_list(looked_at)
    trainer = trainer_class(
        model=model,
        args=args,
        train_dataset=datasets.Dataset.from_list(methods.columns(job.tokenizer, job.fit.rows, job.stage)),
        processing_class=job.tokenizer,
        callbacks=[Recorder(job.out_dir, job.stage, job.progress, job.patience)],
        **more,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def run_arguments(job: Job, settings: Train, *, in_4bit: bool) -> dict[str, Any]:
    """The part of TRL's arguments that follows from the machine, and from having to be resumable and silent."""
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    looks = {"eval_strategy": "steps", "eval_steps": settings.save_steps, "metric_for_best_model": "eval_loss"}
    return {
        "output_dir": str(job.out_dir / "checkpoints"),
        "run_name": f"{job.recipe.name} {job.stage}",
        "save_strategy": "steps",
        "save_total_limit": 2,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show the last average where the loss is not a number
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "use_cpu": not cuda,
        "bf16": bf16,  # with use_cpu alone it turns on: 70 s a step in place of 2
        "fp16": cuda and not bf16,
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,
        **optimisers.arguments(settings, quantised=cuda and (in_4bit or settings.load_in_8bit)),
        **(looks | {"greater_is_better": False} if job.held_out is not None else {}),
    }


def curve_of(trained: Trained) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, measures) of a stage, from its folder: also of the stretches before a kill."""
    return recorder.curve(trained.curves)


def is_on_card() -> bool:
    """Whether training takes place on a CUDA device."""
    return bool(torch.cuda.is_available())
