"""Rows + 16-bit weights + recipe → a LoRA adapter: one code path for CPU and CUDA, for SFT, DPO, KTO and ORPO.

Everything a stage writes lies in one folder: `checkpoints/` while it runs, `curves.jsonl` as it goes, `adapter/`, and
`trained.json`, written last. Killed at any instant and started again with the same arguments it goes on from the last
whole checkpoint and ends, on a CPU, with the same adapter. This module does not know databases, GGUF or Telegram.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import json
import math
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError

from storage.recipe import Recipe, Stage, Train
from trainer import checkpoints, methods
from trainer.tokens import Fit, Row, TrainingFailed, choose_pad_token, end_of_turn_id, fitting

# (stage, step, steps in all, what was measured)
Progress = Callable[[Stage, int, int, Mapping[str, float]], None]

LORA_DEFAULTS = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
# What people want to see of TRL's log, and what it is called here.
SHOWN = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "mean_token_accuracy": "token_accuracy",
    "grad_norm": "gradient",
    "learning_rate": "learning_rate",
}
# DPO and KTO compare with a frozen copy of what they start from: before the first update rewards are rounding errors.
MAX_FIRST_REWARD = 0.05
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


def silent(_stage: Stage, _step: int, _steps: int, _measures: Mapping[str, float]) -> None:
    """Progress for callers that show none."""


def train(
    weights_dir: Path,
    rows: Sequence[Row],
    recipe: Recipe,
    out_dir: Path,
    *,
    stage: Stage,
    adapter: Path | None = None,
    progress: Progress = silent,
    resume: bool = True,
) -> Trained:
    """Trains one stage into `out_dir`, on top of `adapter` if given.

    `rows` are those of `stage` (see `trainer.tokens`). What an earlier call with equal arguments left in `out_dir` is
    gone on from; what another left is deleted. Whatever `progress` raises ends the training and passes through.
    Raises TrainingFailed, or BadRecipe where no library knows a name in [peft] or [trl].
    """
    methods.check_pass_through(recipe, [each.name for each in dataclasses.fields(LoraConfig)])
    key = checkpoints.fingerprint(weights_dir, rows, recipe, stage, adapter)
    if resume and (kept := checkpoints.finished(out_dir, key)):
        return located(kept, out_dir)
    checkpoints.prepare_folder(out_dir, key, keep=resume)
    with quiet_libraries(), full_disk_named(out_dir):
        tokenizer = load_tokenizer(weights_dir)
        fit = fitting(tokenizer, methods.ordered(rows, stage, recipe.seed), stage, recipe.data)
        result = run_within_memory(Job(weights_dir, adapter, recipe, stage, fit, tokenizer, out_dir, progress))
        hand_memory_back()
        checkpoints.record(out_dir, key, result)
    shutil.rmtree(out_dir / "checkpoints", ignore_errors=True)
    return located(result, out_dir)


def train_stages(
    weights_dir: Path,
    rows: Mapping[Stage, Sequence[Row]],
    recipe: Recipe,
    out_dir: Path,
    *,
    progress: Progress = silent,
    resume: bool = True,
) -> list[Trained]:
    """Every stage of `rows`, in their order, each on top of the one before and each in its own folder of `out_dir`."""
    done: list[Trained] = []
    for stage in rows:
        below = done[-1].adapter_dir if done else None
        folder = out_dir / stage
        done.append(
            train(
                weights_dir, rows[stage], recipe, folder, stage=stage, adapter=below, progress=progress, resume=resume
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
    settings = job.recipe.training(job.stage)
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
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def halved(settings: Train, stage: Stage) -> Train | None:
    """The same examples a step in smaller batches; None where there are none smaller."""
    smallest = 2 if stage == "kto" else 1  # KTO pairs each prompt with its neighbour's completion
    divisor = 2 if settings.batch % 2 == 0 else settings.batch
    batch = settings.batch // divisor
    if divisor == 1 or batch < smallest:
        return None
    return dataclasses.replace(settings, batch=batch, accumulate=settings.accumulate * divisor)


def attempt(job: Job, settings: Train) -> dict[str, Any]:
    """Trains from the last whole checkpoint, or from the start, to the end; leaves the adapter and the curves."""
    started_at, cuda = time.monotonic(), torch.cuda.is_available()
    in_4bit = cuda if settings.load_in_4bit == "auto" else settings.load_in_4bit
    checkpoint = checkpoints.last_whole(job.out_dir / "checkpoints")
    # Gone on from the last step of all, the Trainer would take one more.
    if checkpoint is None or not checkpoints.is_final(checkpoint):
        checkpoint = train_from(checkpoint, job, settings, in_4bit=in_4bit)
    checkpoints.keep_adapter(checkpoint, job.out_dir / "adapter")
    return {
        "stage": job.stage,
        "steps": checkpoints.step_of(checkpoint),
        "seconds": round(time.monotonic() - started_at, 1),
        "examples": len(job.fit.rows),
        "skipped": dict(job.fit.skipped),
        "batch": settings.batch,
        "accumulate": settings.accumulate,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "in_4bit": in_4bit,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else peak_process_bytes(),
    }


def train_from(checkpoint: Path | None, job: Job, settings: Train, *, in_4bit: bool) -> Path:
    """The checkpoint of the last step, which the Trainer writes whatever `save_steps` is."""
    checkpoints.keep_curves(job.out_dir / "curves.jsonl", checkpoints.step_of(checkpoint) if checkpoint else 0)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    transformers.set_seed(job.recipe.seed)
    trainer = build_trainer(job, settings, load_model(job, in_4bit=in_4bit), in_4bit=in_4bit)
    methods.check_tokens(trainer.train_dataset, job.fit, job.stage, job.tokenizer.eos_token_id)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return job.out_dir / "checkpoints" / f"checkpoint-{trainer.state.global_step}"


def peak_process_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def load_tokenizer(weights_dir: Path) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights_dir, local_files_only=True)
    # ORPO closes every answer with eos: where eos would end the text rather than the turn, it would teach both.
    tokenizer.eos_token = tokenizer.decode([end_of_turn_id(tokenizer)])
    choose_pad_token(tokenizer)
    return tokenizer


def load_model(job: Job, *, in_4bit: bool) -> Any:
    """The base with a trainable adapter on it: `job.adapter`, else a new one, which changes nothing yet."""
    cuda = torch.cuda.is_available()
    half = torch.bfloat16 if cuda and torch.cuda.is_bf16_supported() else torch.float16
    dtype = half if cuda else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job.weights_dir,
        dtype=dtype,
        local_files_only=True,
        quantization_config=nf4(dtype) if in_4bit else None,
        device_map={"": 0} if cuda else None,
    )
    model.config.use_cache = False
    if job.adapter is not None:
        return PeftModel.from_pretrained(model, job.adapter, is_trainable=True)
    return get_peft_model(model, LoraConfig(**LORA_DEFAULTS | job.recipe.peft, task_type="CAUSAL_LM"))


def nf4(compute_dtype: torch.dtype) -> Any:
    """QLoRA's storage of the frozen base, arXiv 2305.14314."""
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def build_trainer(job: Job, settings: Train, model: Any, *, in_4bit: bool) -> Any:
    """The reference of DPO and KTO is a frozen copy of the adapter as it starts, which TRL makes when it is handed a
    PeftModel: after an SFT stage the SFT model, on a new adapter the base. `peft_config` would make it always the base.
    """
    config_class, trainer_class = methods.classes(job.stage)
    arguments = methods.arguments(job.recipe, settings, job.stage, job.fit.rows)
    trainer = trainer_class(
        model=model,
        args=config_class(**arguments | run_arguments(job.out_dir, in_4bit=in_4bit)),
        train_dataset=datasets.Dataset.from_list(methods.columns(job.tokenizer, job.fit.rows, job.stage)),
        processing_class=job.tokenizer,
        callbacks=[Recorder(job)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def run_arguments(out_dir: Path, *, in_4bit: bool) -> dict[str, Any]:
    """The part of TRL's arguments that follows from the machine, and from having to be resumable and silent."""
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    return {
        "output_dir": str(out_dir / "checkpoints"),
        "save_strategy": "steps",
        "save_total_limit": 2,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would show the last average where the loss is not a number
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "optim": "paged_adamw_8bit" if cuda and in_4bit else "adamw_torch",
        "use_cpu": not cuda,
        "bf16": bf16,  # with use_cpu alone it turns on: 70 s a step in place of 2
        "fp16": cuda and not bf16,
        "dataloader_pin_memory": cuda,
    }


class Recorder(transformers.TrainerCallback):  # type: ignore[misc]
    """Writes a curve point and tells progress after each step; ends a training that has lost its way."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        if "loss" not in logs:  # the summary at the end
            return
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if not math.isfinite(numbers["loss"]):
            raise TrainingFailed("loss_not_finite", stage=self.job.stage, step=state.global_step)
        if state.global_step == 1 and self.job.stage in ("dpo", "kto"):
            check_reference(numbers)
        point = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        with (self.job.out_dir / "curves.jsonl").open("a") as file:
            file.write(json.dumps({"stage": self.job.stage, "step": state.global_step} | point) + "\n")
        self.job.progress(self.job.stage, state.global_step, state.max_steps, shown(numbers))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        checkpoints.mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def shown(logged: Mapping[str, Any]) -> dict[str, float]:
    """A point of the curves as it is told: what is no number, or was not measured, is left out."""
    found = {name: logged.get(key) for key, name in SHOWN.items()}
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def curve_of(trained: Trained) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, measures) of a stage, from its folder: also of the stretches before a kill."""
    for line in trained.curves.read_text().splitlines():
        logged = json.loads(line)
        yield logged["step"], shown(logged)


def is_on_card() -> bool:
    """Whether training takes place on a CUDA device."""
    return bool(torch.cuda.is_available())


def check_reference(numbers: Mapping[str, float]) -> None:
    for name in ("rewards/chosen", "rewards/rejected"):
        if abs(numbers.get(name, 0.0)) > MAX_FIRST_REWARD:
            raise TrainingFailed("wrong_reference", reward=numbers[name])
