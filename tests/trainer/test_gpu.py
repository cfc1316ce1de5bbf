"""On a CUDA device, QLoRA as the 8B recipe runs it: what the CPU's tests promise, and that the card is handed back.

pytest -m gpu tests/trainer/test_gpu.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from storage.recipe import Recipe, Stage
from tests.trainer.chats import rows, tiny_recipe
from tests.trainer.learning import check_merged, check_nf4, check_trained, curve, job_of, killed_and_whole, weights
from trainer.methods import STAGES
from trainer.training import build_trainer, load_model, train, train_stages

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def qlora(steps: int = 2) -> Recipe:
    settings = {"load_in_4bit": "auto", "gradient_checkpointing": True, "max_steps": steps}
    return tiny_recipe(train=settings, preference={"max_steps": steps})


@pytest.mark.parametrize("stage", STAGES)
def test_every_method_trains_in_four_bits_and_its_merged_file_loads(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    trained = train(tiny, rows(stage), qlora(), tmp_path / "run", stage=stage)
    check_trained(trained)
    assert (trained.in_4bit, trained.device, trained.batch) == (True, torch.cuda.get_device_name(), 4)
    assert 0 < trained.peak_bytes < torch.cuda.get_device_properties(0).total_memory
    check_merged(tiny, trained, tmp_path)


def test_the_base_lies_in_nf4_and_the_optimiser_is_paged(tiny: Path, tmp_path: Path) -> None:
    job = job_of(tiny, tmp_path, "sft", qlora())
    model = load_model(job, in_4bit=True)
    check_nf4(model)
    assert {each.device.type for each in model.parameters()} == {"cuda"}
    trainer = build_trainer(job, job.recipe.training("sft"), model, in_4bit=True)
    optimiser = trainer.create_optimizer()
    assert trainer.args.optim == "paged_adamw_8bit"
    assert getattr(optimiser, "optimizer", optimiser).is_paged


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_the_reference_is_what_the_stage_before_left(tiny: Path, tmp_path: Path, stage: Stage) -> None:
    """In bf16 first rewards are rounding errors, and larger ones than on a CPU."""
    first, second = train_stages(tiny, {"sft": rows("sft"), stage: rows(stage)}, qlora(), tmp_path)
    check_trained(second)
    start = curve(second)[0]
    assert (start["rewards/chosen"], start["rewards/rejected"]) == pytest.approx((0.0, 0.0), abs=0.05)
    assert any(not torch.equal(tensor, weights(first)[name]) for name, tensor in weights(second).items())


def test_killed_and_started_again_it_takes_the_same_steps(tiny: Path, tmp_path: Path) -> None:
    """A card sums in no fixed order: the same adapter to within its precision, not to the bit."""
    resumed, whole = killed_and_whole(tiny, tmp_path, qlora(steps=6), "sft", None)
    assert resumed.steps == whole.steps == 6
    assert [each["loss"] for each in curve(resumed)] == pytest.approx([each["loss"] for each in curve(whole)], rel=0.02)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], tensor, atol=5e-3, rtol=0.05)


def test_trainer_and_server_fighting_over_vram_after_a_stage_the_card_is_free(tiny: Path, tmp_path: Path) -> None:
    """The first stage also leaves the workspaces of libraries, which are kept and used again."""
    train(tiny, rows("sft"), qlora(), tmp_path / "first", stage="sft")
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    train_stages(tiny, {"sft": rows("sft"), "dpo": rows("dpo")}, qlora(), tmp_path / "more")
    assert torch.cuda.memory_allocated() <= allocated
    assert torch.cuda.memory_reserved() <= reserved


def test_sixteen_bits_train_too(tiny: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(train={"load_in_4bit": False, "max_steps": 2})
    trained = train(tiny, rows("sft"), recipe, tmp_path, stage="sft")
    check_trained(trained)
    assert not trained.in_4bit
