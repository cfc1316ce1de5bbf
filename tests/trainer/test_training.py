"""pytest tests/trainer/test_training.py: a tiny Llama trains by every method, survives kills, and fails by name."""

from __future__ import annotations

import dataclasses
import errno
import gc
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.recipe import BadRecipe, Stage
from tests.trainer.chats import row, rows, tiny_recipe
from tests.trainer.learning import (
    broken,
    check_merged,
    check_nf4,
    check_trained,
    curve,
    job_of,
    killed_and_whole,
    models,
    weights,
)
from tests.trainer.world import small_disk
from trainer import checkpoints
from trainer.methods import STAGES, balance, check_tokens, ordered
from trainer.tokens import TrainingFailed, fitting
from trainer.training import (
    Trained,
    attempt,
    build_trainer,
    halved,
    load_model,
    load_tokenizer,
    train,
    train_stages,
)

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def taught(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An SFT stage that other stages start from."""
    return train(tiny, rows("sft"), tiny_recipe(), tmp_path_factory.mktemp("taught"), stage="sft")


class Interruption:
    """Progress that raises once, at a step."""

    def __init__(self, step: int, error: Exception) -> None:
        self.step, self.error, self.raised = step, error, False

    def __call__(self, stage: Stage, step: int, steps: int, measures: Mapping[str, float]) -> None:
        if step == self.step and not self.raised:
            self.raised = True
            raise self.error


# ---- every method


@pytest.mark.parametrize("stage", STAGES)
def test_every_method_leaves_an_adapter_with_effect_and_a_whole_curve(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    told: list[tuple[Stage, int, int]] = []
    trained = train(tiny, rows(stage), tiny_recipe(), tmp_path, stage=stage, progress=lambda *now: told.append(now[:3]))
    check_trained(trained)
    assert told == [(stage, step, trained.steps) for step in range(1, trained.steps + 1)]
    assert (trained.examples, trained.skipped, trained.device, trained.in_4bit) == (16, {}, "cpu", False)
    assert not (tmp_path / "checkpoints").exists()


def test_sft_learns_what_it_is_shown(tiny: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(train={"max_steps": 30, "learning_rate": 1e-2})
    trained = train(tiny, rows("sft", 4), recipe, tmp_path, stage="sft")
    assert curve(trained)[-1]["loss"] < 0.75 * curve(trained)[0]["loss"]  # all but the adapter is random and frozen


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_on_a_new_adapter_the_reference_is_the_base(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    first = curve(train(tiny, rows(stage), tiny_recipe(), tmp_path, stage=stage))[0]
    assert (first["rewards/chosen"], first["rewards/rejected"]) == pytest.approx((0.0, 0.0), abs=1e-5)


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_after_sft_the_reference_is_the_sft_model(tiny: Path, tmp_path: Path, taught: Trained, stage: Stage) -> None:
    trained = train(tiny, rows(stage), tiny_recipe(), tmp_path, stage=stage, adapter=taught.adapter_dir)
    first = curve(trained)[0]
    assert (first["rewards/chosen"], first["rewards/rejected"]) == pytest.approx((0.0, 0.0), abs=1e-5)
    assert any(not torch.equal(tensor, weights(taught)[name]) for name, tensor in weights(trained).items())


def test_without_an_sft_term_the_first_dpo_loss_is_ln_2(tiny: Path, tmp_path: Path, taught: Trained) -> None:
    recipe = tiny_recipe(preference={"sft_weight": 0})
    trained = train(tiny, rows("dpo"), recipe, tmp_path, stage="dpo", adapter=taught.adapter_dir)
    assert curve(trained)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_a_wrong_reference_ends_the_training_at_once(tiny: Path, tmp_path: Path, taught: Trained) -> None:
    recipe = tiny_recipe(train={"beta": 1.0})
    job = job_of(tiny, tmp_path, "dpo", recipe, taught.adapter_dir)
    model = load_model(job, in_4bit=False)
    trainer = build_trainer(job, recipe.training("dpo"), model, in_4bit=False)
    for name, parameter in model.named_parameters():
        if ".lora_B.ref." in name:
            parameter.data.zero_()  # the base in place of the SFT model, as with `peft_config`
    with pytest.raises(TrainingFailed, match="wrong_reference"):
        trainer.train()


def test_stages_build_on_each_other(tiny: Path, tmp_path: Path) -> None:
    sft, dpo = train_stages(tiny, {"sft": rows("sft"), "dpo": rows("dpo")}, tiny_recipe(), tmp_path)
    assert (sft.adapter_dir, dpo.adapter_dir) == (tmp_path / "sft" / "adapter", tmp_path / "dpo" / "adapter")
    assert curve(dpo)[0]["logps/chosen"] > curve_of_untaught_dpo(tiny, tmp_path / "alone")["logps/chosen"]


def curve_of_untaught_dpo(tiny: Path, folder: Path) -> dict[str, Any]:
    return curve(train(tiny, rows("dpo"), tiny_recipe(), folder, stage="dpo"))[0]


@pytest.mark.parametrize("stage", STAGES)
def test_four_bits_train_on_a_cpu_too(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    recipe = tiny_recipe(
        train={"load_in_4bit": True, "gradient_checkpointing": True, "max_steps": 2}, preference={"max_steps": 2}
    )
    trained = train(tiny, rows(stage), recipe, tmp_path / "run", stage=stage)
    assert trained.in_4bit
    check_trained(trained)
    check_merged(tiny, trained, tmp_path)


def test_four_bits_are_nf4_with_quantised_constants(tiny: Path, tmp_path: Path) -> None:
    check_nf4(load_model(job_of(tiny, tmp_path, "sft"), in_4bit=True))


def test_trainer_and_server_fighting_over_vram_after_a_stage_no_model_is_held(
    tiny: Path, tmp_path: Path, cycles_are_kept: None
) -> None:
    """The Trainer and its model lie in cycles: without a collection they would keep the card until chance has them."""
    before = models()
    train_stages(tiny, {"sft": rows("sft"), "dpo": rows("dpo")}, tiny_recipe(), tmp_path)
    assert models() == before


@pytest.fixture
def cycles_are_kept() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ---- kills and resuming


@pytest.mark.parametrize("stage", ["sft", "dpo", "kto"])
def test_killed_and_started_again_it_ends_with_the_same_adapter(
    tiny: Path, tmp_path: Path, taught: Trained, stage: Stage
) -> None:
    adapter = None if stage == "sft" else taught.adapter_dir
    resumed, whole = killed_and_whole(tiny, tmp_path, tiny_recipe(peft={"lora_dropout": 0.1}), stage, adapter)
    assert weights(resumed).keys() == weights(whole).keys()
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(resumed).items())
    assert [point["loss"] for point in curve(resumed)] == [point["loss"] for point in curve(whole)]


def test_half_a_checkpoint_is_not_gone_on_from(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft", progress=Interruption(5, KeyboardInterrupt()))
    torn = tmp_path / "checkpoints" / "checkpoint-4"
    (torn / "trainer_state.json").write_text("{")
    (torn / checkpoints.MARK).unlink()
    told: list[int] = []
    train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft", progress=lambda _s, step, *_: told.append(step))
    assert told == [3, 4, 5, 6]


def test_killed_while_the_adapter_is_written_it_is_written_again(tiny: Path, tmp_path: Path, taught: Trained) -> None:
    recipe = tiny_recipe()
    checkpoints.prepare_folder(tmp_path, checkpoints.fingerprint(tiny, rows("sft"), recipe, "sft", None), keep=False)
    attempt(job_of(tiny, tmp_path, "sft", recipe), recipe.training("sft"))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"half")
    again = train(tiny, rows("sft"), recipe, tmp_path, stage="sft", progress=Interruption(6, AssertionError()))
    assert again.steps == 6
    assert all(torch.equal(tensor, weights(taught)[name]) for name, tensor in weights(again).items())


def test_done_work_is_not_done_again(tiny: Path, tmp_path: Path) -> None:
    first = train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft")
    again = train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft", progress=Interruption(1, AssertionError()))
    assert again == first


def test_other_rows_or_another_recipe_start_afresh(tiny: Path, tmp_path: Path) -> None:
    first = train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft")
    kept = weights(first)
    other = train(tiny, rows("sft", 12), tiny_recipe(), tmp_path, stage="sft")
    assert other.examples == 12
    assert len(curve(other)) == other.steps
    assert any(not torch.equal(tensor, kept[name]) for name, tensor in weights(other).items())


def test_the_same_seed_gives_the_same_adapter(tiny: Path, tmp_path: Path, taught: Trained) -> None:
    again = train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft")
    assert all(torch.equal(tensor, weights(taught)[name]) for name, tensor in weights(again).items())


# ---- running out of things, and other failures


def test_out_of_memory_halves_the_batch_and_takes_the_same_steps(tiny: Path, tmp_path: Path, taught: Trained) -> None:
    full = Interruption(3, torch.OutOfMemoryError("CUDA out of memory"))
    trained = train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft", progress=full)
    assert (trained.batch, trained.accumulate, trained.steps) == (2, 2, 6)
    assert len(curve(trained)) == 6
    for name, tensor in weights(taught).items():
        torch.testing.assert_close(weights(trained)[name], tensor, atol=2e-3, rtol=0)


def test_out_of_memory_with_the_smallest_batch_is_a_failure(tiny: Path, tmp_path: Path) -> None:
    full = Interruption(1, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(TrainingFailed) as caught:
        train(tiny, rows("sft"), tiny_recipe(train={"batch": 1}), tmp_path, stage="sft", progress=full)
    assert (caught.value.code, caught.value.params) == ("out_of_memory", {"batch": 1})


@pytest.mark.parametrize(
    ("stage", "batch", "accumulate", "smaller"),
    [("sft", 8, 1, (4, 2)), ("sft", 3, 2, (1, 6)), ("sft", 1, 4, None), ("kto", 4, 1, (2, 2)), ("kto", 2, 1, None)],
)
def test_a_halved_batch_sees_as_many_examples_a_step(
    stage: Stage, batch: int, accumulate: int, smaller: tuple[int, int] | None
) -> None:
    settings = dataclasses.replace(tiny_recipe().train, batch=batch, accumulate=accumulate, kto_loss="kto")
    less = halved(settings, stage)
    assert (less and (less.batch, less.accumulate)) == smaller


def test_any_other_runtime_error_passes_through(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the lamp went out"):
        train(
            tiny,
            rows("sft"),
            tiny_recipe(),
            tmp_path,
            stage="sft",
            progress=Interruption(1, RuntimeError("the lamp went out")),
        )


def test_a_full_disk_is_a_failure_that_names_the_folder(tiny: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "512k") as full, pytest.raises(TrainingFailed) as caught:
        train(tiny, rows("sft"), tiny_recipe(), full, stage="sft")
    assert (caught.value.code, caught.value.params["folder"]) == ("disk_full", str(full))


def test_a_full_disk_met_by_whoever_is_told_progress_is_one_too(tiny: Path, tmp_path: Path) -> None:
    full = Interruption(1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(TrainingFailed, match="disk_full"):
        train(tiny, rows("sft"), tiny_recipe(), tmp_path, stage="sft", progress=full)


def test_a_loss_that_is_no_number_ends_the_training(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as caught:
        train(broken(tiny, tmp_path / "broken"), rows("sft"), tiny_recipe(), tmp_path / "out", stage="sft")
    assert (caught.value.code, caught.value.params["step"]) == ("loss_not_finite", 1)


def test_names_no_library_knows_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    recipe = tiny_recipe(peft={"rank": 8}, trl={"label_smoothin": 0.1})
    with pytest.raises(BadRecipe) as caught:
        train(tmp_path / "nowhere", rows("dpo"), recipe, tmp_path, stage="dpo")
    assert [each.key for each in caught.value.complaints] == ["trl.label_smoothin", "peft.rank"]


def test_a_name_of_another_methods_config_waits_for_that_stage(tiny: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(trl={"label_smoothing": 0.1}, train={"max_steps": 1}, preference={"max_steps": 1})
    assert len(train_stages(tiny, {"sft": rows("sft"), "dpo": rows("dpo")}, recipe, tmp_path)) == 2


def test_a_library_that_stops_training_the_end_of_turn_is_found_out(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny)
    fit = fitting(tokenizer, rows("sft", 1), "sft", tiny_recipe().data)
    ids, prompt_tokens = list(fit.spans[0][0].ids), fit.spans[0][0].prompt_tokens
    labels = [-100] * prompt_tokens + ids[prompt_tokens:]
    check_tokens([{"input_ids": ids, "labels": labels}], fit, "sft", tokenizer.eos_token_id)
    labels[ids.index(tokenizer.eos_token_id, prompt_tokens)] = -100
    with pytest.raises(TrainingFailed, match="tokens_differ"):
        check_tokens([{"input_ids": ids, "labels": labels}], fit, "sft", tokenizer.eos_token_id)


# ---- KTO's balance


def test_likes_and_dislikes_weigh_the_same() -> None:
    given = [row("kto", at) for at in (1, 2, 4, 0)]
    assert balance(given, {}) == {"desirable_weight": 1.0, "undesirable_weight": 3.0}
    assert balance(given, {"desirable_weight": 2.0}) == {}


def test_feedback_that_all_points_one_way_is_no_preference(tiny: Path, tmp_path: Path) -> None:
    liked = [row("kto", at) for at in (1, 2, 4, 5)]
    with pytest.raises(TrainingFailed, match="one_sided_feedback"):
        train(tiny, liked, tiny_recipe(), tmp_path, stage="kto")


def test_dislikes_are_spread_among_likes_the_same_way_each_time() -> None:
    spread = ordered(rows("kto", 30), "kto", seed=1)
    labels = [each["label"] for each in spread]
    assert sorted(map(str, spread)) == sorted(map(str, rows("kto", 30)))
    assert all(labels[at : at + 6].count(False) == 2 for at in range(0, 30, 6))
    assert spread == ordered(rows("kto", 30), "kto", seed=1) != ordered(rows("kto", 30), "kto", seed=2)
