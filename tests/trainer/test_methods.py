"""pytest tests/trainer/test_methods.py: the loss a recipe names is trained with; weights of rows; ways to be faster."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storage.recipe import Stage
from tests.trainer.chats import answer, prompt, row, rows, tiny_recipe
from tests.trainer.learning import check_trained, curve, job_of, weights
from trainer import launcher, methods, optimisers, speed, weighing
from trainer.speed import FLASH, Facts
from trainer.tokens import Fit, TrainingFailed
from trainer.training import Trained, train


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tiny, rows("sft"), tiny_recipe(), tmp_path_factory.mktemp("plain"), stage="sft")


# ---- losses


# What each is at the first step, where all rewards are 0.
FIRST = {
    "sigmoid": ({}, math.log(2)),
    "ipo": ({"dpo_loss": "ipo", "beta": 0.5}, 1.0),
    "robust": ({"dpo_loss": "robust", "label_smoothing": 0.2}, math.log(2)),
    "length-desensitised": ({"ld_alpha": 0.5}, math.log(2)),
}


@pytest.mark.parametrize("name", FIRST)
def test_every_loss_of_dpo_starts_where_it_must(tiny: Path, tmp_path: Path, name: str) -> None:
    keys, loss = FIRST[name]
    trained = train(tiny, rows("dpo"), tiny_recipe(preference={"sft_weight": 0, **keys}), tmp_path, stage="dpo")
    check_trained(trained)
    assert curve(trained)[0]["loss"] == pytest.approx(loss, abs=1e-4)


def test_an_sft_term_weighs_what_it_is_given(tiny: Path, tmp_path: Path) -> None:
    first = {}
    for weight in (0, 1, 2):
        recipe = tiny_recipe(preference={"sft_weight": weight, "max_steps": 1})
        first[weight] = curve(train(tiny, rows("dpo"), recipe, tmp_path / str(weight), stage="dpo"))[0]["loss"]
    assert first[2] - first[1] == pytest.approx(first[1] - first[0], abs=1e-4)
    assert first[1] - first[0] > 1


def test_thumbs_train_without_neighbours_in_batches_of_one(tiny: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(train={"batch": 1}, preference={"kto_loss": "apo_zero_unpaired"})
    trained = train(tiny, rows("kto"), recipe, tmp_path, stage="kto")
    check_trained(trained)
    assert trained.batch == 1


@pytest.mark.parametrize(("batch", "loss"), [(1, "apo_zero_unpaired"), (2, "apo_zero_unpaired"), (4, "kto")])
def test_auto_takes_kto_s_own_loss_where_a_batch_is_large_enough(batch: int, loss: str) -> None:
    settings = tiny_recipe(train={"batch": batch}).training("kto")
    told = methods.loss_arguments(tiny_recipe(), settings, "kto", rows("kto"))
    assert told["loss_type"] == loss
    assert methods.settled(settings, "kto").kto_loss == loss


def test_a_loss_type_of_trl_goes_to_the_stage_it_belongs_to() -> None:
    recipe = tiny_recipe(trl={"loss_type": ["ipo", "apo_zero_unpaired"]}, preference={"sft_weight": 0})
    settings = recipe.training("dpo")
    told: dict[Stage, Any] = {
        stage: methods.loss_arguments(recipe, settings, stage, rows(stage)).get("loss_type") for stage in methods.STAGES
    }
    assert told == {"sft": None, "dpo": ["ipo"], "kto": "apo_zero_unpaired", "orpo": None}


# ---- weights of rows


def weighed(weight: float | None, at: int = 0) -> dict[str, Any]:
    return {**row("sft", at), "weight": weight}


@pytest.mark.parametrize("weight", [0.1, 0.25, 0.5, 0.9, 1.0])
def test_a_row_of_weight_w_comes_up_in_a_share_w_of_the_epochs(weight: float) -> None:
    for at in range(20):
        times = sum(weighing.comes_up(weighed(weight, at), epoch) for epoch in range(200))
        assert abs(times - 200 * weight) < 1.001


def test_which_epochs_is_a_matter_of_the_row_alone() -> None:
    lone = [weighing.comes_up(weighed(0.3), epoch) for epoch in range(30)]
    assert lone == [
        weighing.comes_up({**weighed(0.3), "source": "replay", "rating_ids": [7]}, each) for each in range(30)
    ]
    assert lone != [weighing.comes_up(weighed(0.3, 1), epoch) for epoch in range(30)]


def test_an_epoch_of_light_rows_is_shorter() -> None:
    given = [weighed(0.25, at) for at in range(400)] + [weighed(1.0, at) for at in range(400, 440)]
    settings = dataclasses.replace(tiny_recipe().train, max_steps=None, epochs=2.0)
    order = weighing.in_turn(given, settings, lambda places, epoch: weighing.shuffled(places, epoch))
    assert len(order) == 2 * (100 + 40)
    assert sum(at < 400 for at in order) == pytest.approx(200, abs=15)


def test_where_all_weigh_the_same_nothing_is_changed(tiny: Path, tmp_path: Path, plain: Trained) -> None:
    same = train(tiny, [{**each, "weight": 1.0} for each in rows("sft")], tiny_recipe(), tmp_path, stage="sft")
    assert all(torch.equal(tensor, weights(plain)[name]) for name, tensor in weights(same).items())


@pytest.mark.parametrize("stage", methods.STAGES)
def test_every_method_trains_on_weighed_rows(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    given = [{**each, "weight": 0.5 if at % 2 else 1.0} for at, each in enumerate(rows(stage))]
    recipe = tiny_recipe(train={"max_steps": 3}, preference={"max_steps": 3})
    trained = train(tiny, given, recipe, tmp_path, stage=stage)
    assert (trained.steps, trained.examples) == (3, 16)
    check_trained(trained)


def test_a_row_that_weighs_little_teaches_little(tiny: Path, tmp_path: Path) -> None:
    """Two answers to one question: the model comes to prefer the one of full weight."""
    said = {"早": 1.0, "The": 0.05}
    given = [{"prompt": prompt("?"), "completion": answer(text * 3), "weight": each} for text, each in said.items()]
    recipe = tiny_recipe(train={"max_steps": 12, "learning_rate": 1e-2})
    fit = job_of(tiny, tmp_path, "sft", recipe).fit
    order = methods.arranged(Fit(given, [[], []], fit.skipped), recipe, "sft").rows
    assert len(order) == 12 * 4
    assert sum(each["weight"] < 1 for each in order) in (2, 3)  # 48 rows, 0.05 of 1.05 of them


# ---- rows of one length in one batch


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(1, 8), st.integers(1, 3), st.integers(0, 9))
def test_grouping_by_length_keeps_every_row_and_pads_no_more(
    lengths: list[int], batch: int, epochs: int, seed: int
) -> None:
    order = [at for epoch in range(epochs) for at in weighing.shuffled([*range(len(lengths))], epoch)]
    found = weighing.grouped(order, lengths, batch, len(lengths), seed)
    assert sorted(found) == sorted(order)
    if len(lengths) % batch == 0:
        assert padded(found, lengths, batch) <= padded(order, lengths, batch)


def padded(order: list[int], lengths: list[int], batch: int) -> int:
    batches = [[lengths[at] for at in order[start : start + batch]] for start in range(0, len(order), batch)]
    return sum(len(each) * max(each) for each in batches)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_recipe_can_ask_for_batches_of_one_length(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    recipe = tiny_recipe(train={"max_steps": 3, "group_by_length": True}, preference={"max_steps": 3})
    trained = train(tiny, rows(stage), recipe, tmp_path, stage=stage)
    assert (trained.steps, trained.examples) == (3, 16)
    check_trained(trained)


# ---- faster


NOTHING, ALL = Facts(card=False, flash=False, liger=False), Facts(card=True, flash=True, liger=True)


@pytest.mark.parametrize("stage", methods.STAGES)
def test_auto_takes_what_is_there_and_valid(stage: Stage) -> None:
    settings = tiny_recipe().training(stage)
    chosen = speed.choose(settings, stage, ALL)
    assert (chosen.attention, chosen.liger) == (FLASH, stage != "orpo")
    assert (chosen.padding_free, chosen.packing) == (stage == "sft", False)
    assert chosen.why_not.get("liger") == ("not_for_method" if stage == "orpo" else None)
    without = speed.choose(settings, stage, NOTHING)
    assert (without.attention, without.liger, without.padding_free) == ("sdpa", False, False)
    assert without.why_not[FLASH] == "no_card"


@pytest.mark.parametrize(
    ("keys", "stage", "facts", "why"),
    [
        ({"attention": FLASH}, "sft", NOTHING, "no_card"),
        ({"attention": FLASH}, "sft", Facts(card=True, flash=False, liger=True), "not_installed"),
        ({"liger": True}, "dpo", Facts(card=True, flash=True, liger=False), "not_installed"),
        ({"liger": True}, "orpo", ALL, "not_for_method"),
    ],
)
def test_what_is_asked_for_by_name_and_cannot_be_had_is_refused(
    keys: dict[str, Any], stage: Stage, facts: Facts, why: str
) -> None:
    with pytest.raises(TrainingFailed) as caught:
        speed.choose(dataclasses.replace(tiny_recipe().train, **keys), stage, facts)
    assert (caught.value.code, caught.value.params["why"]) == ("not_possible_here", why)


def test_batches_without_padding_teach_the_same(tiny: Path, tmp_path: Path, plain: Trained) -> None:
    recipe = tiny_recipe(train={"padding_free": True})
    trained = train(tiny, [*rows("sft")], recipe, tmp_path, stage="sft")
    assert trained.speed["padding_free"]
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(trained)[name], tensor, atol=2e-3, rtol=0)


def test_packed_rows_are_all_there_and_train(tiny: Path, tmp_path: Path) -> None:
    trained = train(tiny, rows("sft"), tiny_recipe(train={"packing": True, "max_steps": 2}), tmp_path, stage="sft")
    assert trained.speed["packing"]
    check_trained(trained)


def test_packing_that_loses_a_row_is_found_out(tiny: Path, tmp_path: Path) -> None:
    fit = job_of(tiny, tmp_path, "sft").fit
    ids = [each for spans in fit.spans for each in spans[0].ids]
    labels = [-100 if at < span.prompt_tokens else each for (span,) in fit.spans for at, each in enumerate(span.ids)]
    packed = {"input_ids": ids, "labels": labels, "seq_lengths": [len(span.ids) for (span,) in fit.spans]}
    methods.check_packed([packed], fit, "sft")
    with pytest.raises(TrainingFailed, match="tokens_differ"):
        methods.check_packed([{**packed, "seq_lengths": packed["seq_lengths"][:-1]}], fit, "sft")


# ---- several processes


@pytest.mark.parametrize(
    ("asked", "cards", "accumulate", "count"), [(0, 1, 8, 1), (0, 4, 8, 4), (0, 3, 8, 2), (2, 1, 2, 2), (4, 1, 1, 1)]
)
def test_as_many_processes_as_a_step_divides_among(asked: int, cards: int, accumulate: int, count: int) -> None:
    settings = dataclasses.replace(tiny_recipe().train, processes=asked, accumulate=accumulate)
    assert launcher.processes(settings, cards) == count


def test_an_optimiser_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(tiny_recipe().train, tune="full", optimizer="galore_adamw")
    assert optimisers.arguments(settings, quantised=False)["optim"] == "galore_adamw"
    monkeypatch.setitem(sys.modules, "galore_torch", None)  # as Python has it of a package that is not there
    with pytest.raises(TrainingFailed) as caught:
        optimisers.arguments(settings, quantised=False)
    assert caught.value.params["package"] == "galore-torch"
