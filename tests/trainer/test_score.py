"""The scorecard of real files: the broken looks broken, the same looks the same, and what is missing is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from huigan.llama import gguf, merge
from storage.recipe import Recipe
from tests.huigan.llama.conftest import tiny_adapter
from tests.huigan.llama.tiny import tiny_gguf, tiny_llama
from tests.trainer.community import SYSTEM
from trainer import dataset, findings, gate, score, stages, suite
from trainer.examples import Example, Selection
from trainer.findings import Asked, Bench, Held, Said, Seen
from trainer.replay import Control
from trainer.score import Scored
from trainer.scorecard import Scorecard
from trainer.tokens import Span, end_of_turn_id

RECIPE = Recipe.from_dict(
    {
        "name": "r",
        "data": {"max_prompt_tokens": 256, "max_tokens": 512},
        "gate": {"max_generated_tokens": 8, "max_generations": 4, "max_cases": 1},
    }
)


def prompt(question: str) -> tuple[tuple[str, str], ...]:
    return (("system", SYSTEM), ("user", question))


EXAMPLES = (
    *(Example("answers", prompt(f"What is {n}?"), (f"It is {n}.",), "correction") for n in range(6)),
    *(Example("answers", prompt(f"Who is {n}?"), (f"The {n}.",), "thumbs", split="held_out") for n in range(5)),
    *(Example("pairs", prompt(f"Why {n}?"), ("So.", "The dog."), "pick", split="held_out") for n in range(6)),
    Example("thumbs", prompt("Bad?"), ("Yes.",), "thumbs", False, split="held_out"),
)
CONTROLS = (Control("What is the capital of France?", ("Paris",)),)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_llama(folder / "weights")
    tiny_gguf(folder / "weights", folder / "base.gguf")
    return folder


def write(folder: Path, *examples: Example, controls: tuple[Control, ...] = ()) -> Path:
    manifest: dict[str, Any] = {
        "sha256": "0",
        "counts": {
            "kept": {split: dict.fromkeys(("answers", "pairs", "thumbs"), 0) for split in ("train", "held_out")}
        },
        "recipe": {"name": "r"},
        "watermarks": {"rating": 0, "comparison": 0},
    }
    dataset.write(folder, Selection(examples, {}), controls, manifest)
    return folder


def scored(tiny: Path, folder: Path, recipe: Recipe = RECIPE) -> Scored:
    return Scored(folder, recipe, stages.tokenizer_of(tiny / "weights"), 1, lambda what, done, total: None)


def test_a_file_beside_itself_gains_nothing_and_loses_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", *EXAMPLES, controls=CONTROLS)
    base = tiny / "base.gguf"
    card = score.compare(scored(tiny, folder), live=base, candidate=base, compared_with="live")
    assert card.preferences is not None
    assert card.perplexity is not None
    assert card.free is not None
    assert (card.preferences.pairs, card.preferences.accuracy) == (6, 0.5)
    assert (card.preferences.low, card.preferences.high) == (0, 0)
    assert card.perplexity.ratio == 1
    assert card.perplexity.answers == 5
    # Four corrected questions (the recipe's limit), four of twelve held-out ones, and the control.
    assert card.free.answers == 9
    assert len(card.samples) == 9
    assert all(each.live == each.candidate for each in card.samples)
    assert {each.kind: each.lost for each in card.suite} == dict.fromkeys(suite.KINDS, 0)
    assert [(each.language, each.ratio, each.low, each.high) for each in card.general] == [
        ("zh", 1, 1, 1),
        ("en", 1, 1, 1),
    ]
    assert card.endings is not None
    assert card.endings.live == card.endings.candidate < 0


def test_answers_that_are_cut_in_both_files_alike_break_neither(tiny: Path, tmp_path: Path) -> None:
    """Random weights never stop within the eight tokens that are read, and the recipe asks for nine in ten."""
    folder = write(tmp_path / "d", *EXAMPLES)
    base = tiny / "base.gguf"
    card = score.compare(scored(tiny, folder), live=base, candidate=base, compared_with="live")
    assert card.free is not None
    assert card.free.stop_share < RECIPE.gate.min_stop_share
    assert "does_not_stop" not in {each.code for each in gate.judge(card, RECIPE.gate).reasons}


def test_rounding_alone_is_neither_gain_nor_loss(tiny: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", *EXAMPLES)
    merge.quantise(tiny / "base.gguf", tmp_path / "q8.gguf", "Q8_0")
    card = score.compare(
        scored(tiny, folder), live=tiny / "base.gguf", candidate=tmp_path / "q8.gguf", compared_with="base"
    )
    assert card.preferences is not None
    assert card.preferences.mean_gain != 0
    assert card.preferences.accuracy == 0.5


def test_a_file_of_no_numbers_is_not_finite(tiny: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", *EXAMPLES)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes((tiny / "base.gguf").read_bytes())
    header = gguf.read(broken)
    tensor = header.tensors["output_norm.weight"]
    with broken.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(np.full(tensor.shape, np.nan, np.float32).tobytes())
    card = score.compare(scored(tiny, folder), live=tiny / "base.gguf", candidate=broken, compared_with="base")
    assert card == Scorecard(finite=False, compared_with="base", quantisation="Q4_K_M")


def test_a_damaged_file_is_named_before_anything_loads_it(tiny: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", *EXAMPLES)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tiny / "base.gguf").read_bytes()[:-1000])
    with pytest.raises(gguf.BadGguf):
        score.compare(scored(tiny, folder), live=tiny / "base.gguf", candidate=cut, compared_with="base")


def test_what_there_is_no_feedback_for_is_named_and_not_made_up(tiny: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "d", *(each for each in EXAMPLES if each.split == "train"))
    base = tiny / "base.gguf"
    card = score.compare(scored(tiny, folder), live=base, candidate=base, compared_with="live")
    assert card.preferences is card.perplexity is card.endings is card.held_out_recall is None
    assert set(card.lacking) >= {"pairs", "answers"}
    assert "judge" not in card.lacking  # the recipe names none
    empty = score.compare(scored(tiny, write(tmp_path / "e")), live=base, candidate=base, compared_with="live")
    assert empty.free is None


def test_answers_are_scored_up_to_their_end_of_turn_and_no_further(tiny: Path, tmp_path: Path) -> None:
    """The line break that ChatML writes after it is never generated."""
    made = scored(tiny, write(tmp_path / "d", *EXAMPLES))
    bench = score.bench_of(made)
    end = end_of_turn_id(made.tokenizer)
    for span in (span for held in (*bench.answers, *bench.pairs) for span in held.spans):
        assert span.ids[-1] == end
        assert end not in span.ids[span.prompt_tokens : -1]


def test_what_is_too_long_for_the_recipe_is_left_out(tiny: Path, tmp_path: Path) -> None:
    long = Example("answers", prompt("Long?"), ("word " * 600,), "thumbs", split="held_out")
    assert score.bench_of(scored(tiny, write(tmp_path / "d", long))).answers == []


# --- on answers as they might be


def said(text: str, ended: str = "stop") -> Said:
    return Said(text, ended)


def judged(asked: list[Asked], live: list[Said], candidate: list[Said]) -> Scorecard:
    return findings.card(RECIPE, Bench(asked=asked), Seen(free=live), Seen(free=candidate), "live")


def control(question: str, key: str) -> Asked:
    return Asked("control", question, (1,), case=suite.of_control(Control(question, (key,))))


def taught(question: str, right: str) -> Asked:
    return Asked("taught", question, (1,), (right,), corrected=True)


def test_an_english_answer_to_a_chinese_question_is_in_the_wrong_language() -> None:
    asked = [taught("几点开门？", "早上七点半开门。"), Asked("held_out", "猫叫什么名字？", (1,))]
    card = judged(asked, [said("不知道。")] * 2, [said("It opens at seven."), said("")])
    assert card.free is not None
    assert (card.free.language_match, card.free.live_language_match) == (0, 1)


def test_an_approved_answer_says_in_which_language_to_answer() -> None:
    """`How do you say tea in Chinese?` is to be answered in Chinese."""
    translated = Asked("held_out", "How do you say tea in Chinese?", (1,), ("茶。",))
    asked = [translated, control("Translate hello into Chinese.", "你好")]
    card = judged(asked, [said("tea"), said("你好")], [said("茶叶。"), said("你好！")])
    assert card.free is not None
    assert card.free.language_match == 1


def test_recall_counts_any_of_the_corrections_of_one_question() -> None:
    asked = [
        Asked("taught", "几点？", (1,), ("八点关门。", "七点半开门。"), corrected=True),
        taught("猫？", "叫芝麻。"),
    ]
    card = judged(asked, [said("不知道")] * 2, [said("七点半开门。"), said("叫花生。")])
    assert card.recall is not None
    assert (card.recall.live, card.recall.candidate) == (0, 0.5)


def test_answers_that_never_end_and_loop_are_seen() -> None:
    asked = [taught("几点？", "七点半。")] * 4
    loop = said("我很高兴为您服务。" * 10, ended="length")
    card = judged(asked, [said("八点。")] * 4, [said("七点半。"), loop, loop, loop])
    assert card.free is not None
    assert (card.free.stop_share, card.free.repetition) == (0.25, 0.75)
    assert card.free.length_drift is not None
    assert card.free.length_drift > 5


def test_a_live_answer_that_never_ended_is_no_measure_of_length() -> None:
    asked = [Asked("held_out", f"{n}？", (1,)) for n in range(4)]
    card = judged(asked, [said("长" * 500, ended="length")] * 4, [said("短。")] * 4)
    assert "comparable_lengths" in card.lacking


def test_controls_are_lost_only_where_the_live_file_was_right() -> None:
    live = [said("Paris"), said("It is paris."), said("Rome")]
    card = judged([control("q", "Paris")] * 3, live, [said("Paris"), said("Rome"), said("Paris")])
    (kept,) = card.suite
    assert asdict(kept) == {"kind": "controls", "cases": 3, "live_right": 2, "candidate_right": 2, "lost": 1}
    assert kept.gained == 1
    assert (card.samples[0].kind, card.samples[0].about) == ("lost", "controls")


def pairs(*rated: tuple[int, str], gains: list[float]) -> tuple[Bench, Seen, Seen]:
    span = Span((1, 2), 1)
    held = [Held((span, span), conversation, at) for conversation, at in rated]
    live = Seen(pairs=[([-1.0], [-2.0])] * len(held))
    return Bench(pairs=held), live, Seen(pairs=[([-1.0], [-2.0 - each]) for each in gains])


def test_gains_are_those_over_the_live_file_and_noise_counts_half() -> None:
    bench, live, candidate = pairs((1, ""), (2, ""), (3, ""), gains=[2.0, 0.001, -2.0])
    found = findings.preferences(findings.pair_gains(bench, live, candidate), seed=20)
    assert found.accuracy == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.mean_gain == pytest.approx(0.001 / 3)
    assert found.low <= found.mean_gain <= found.high
    assert found.gains == (2.0, 0.001, -2.0)


def test_pairs_of_one_conversation_are_one_opinion() -> None:
    gains = [0.2, 0.4, 0.3, 0.1, 0.5, 0.3, 0.2, 0.4, 3.0, 3.1, 2.9, 3.0]
    alone, together = (
        findings.preferences(
            findings.pair_gains(*pairs(*((number // size, "") for number in range(12)), gains=gains)), seed=20
        )
        for size in (1, 4)
    )
    assert alone.mean_gain == together.mean_gain
    assert (alone.conversations, together.conversations) == (12, 3)
    assert together.visible > alone.visible
    assert not together.is_enough


def test_the_newest_pairs_are_told_alone() -> None:
    days = [(number, f"2026-11-{number + 1:02}T08:00:00+00:00") for number in range(20)]
    bench, live, candidate = pairs(*reversed(days), gains=[-1.0] * 5 + [1.0] * 15)
    card = findings.card(RECIPE, bench, live, candidate, "live")
    assert card.newest is not None
    assert card.preferences is not None
    assert (card.newest.pairs, card.newest.mean_gain, card.newest.since[:10]) == (5, -1.0, "2026-11-16")
    assert card.preferences.mean_gain == 0.5


@pytest.mark.parametrize("count", [3, 9])
def test_no_newest_slice_is_made_of_too_few_pairs(count: int) -> None:
    bench, live, candidate = pairs(*((n, f"2026-11-{n + 1:02}") for n in range(count)), gains=[1.0] * count)
    assert findings.card(RECIPE, bench, live, candidate, "live").newest is None


def test_perplexity_is_compared_text_by_text() -> None:
    """A text that is hard for both says nothing of either."""
    held = [Held((Span((1, 2), 1),), n) for n in range(8)]
    before = [[-0.5 * n, -1.0] for n in range(8)]
    after = [[each - 0.1 for each in text] for text in before]
    found = findings.perplexity(Bench(answers=held), Seen(answers=before), Seen(answers=after), 20)
    assert found.ratio == pytest.approx(2.718281828**0.1)
    assert (found.low, found.high) == (pytest.approx(found.ratio), pytest.approx(found.ratio))


def test_an_answer_ends_where_its_last_token_is() -> None:
    held = [Held((Span((1, 2), 1),), n) for n in range(8)]
    live = Seen(answers=[[-9.0, -0.1]] * 8)
    found = findings.endings(Bench(answers=held), live, Seen(answers=[[-1.0, -5.1]] * 8), 20)
    assert (found.live, found.candidate, found.low, found.high) == (-0.1, -5.1, -5.0, -5.0)


def test_the_admins_cases_come_before_the_projects(tiny: Path, tmp_path: Path) -> None:
    mine = suite.parse('{"kind": "facts", "question": "谁开的茶馆？", "keys": ["林小满"]}', "mine.jsonl")
    made = replace(scored(tiny, write(tmp_path / "d", *EXAMPLES)), cases=mine)
    asked = score.bench_of(made).cases
    assert [each.question for each in asked if each.case and each.case.kind == "facts"] == ["谁开的茶馆？"]


def test_a_scorecard_is_json(tiny: Path) -> None:
    card = judged([taught("几点？", "七点半。")], [said("八点")], [said("七点半。")])
    assert json.loads(json.dumps(asdict(replace(card, lacking=()))))["recall"]["candidate"] == 1.0


def test_what_quantising_left_of_the_training_is_told(tiny: Path, tmp_path: Path) -> None:
    """Against the base with the adapter on: the merged file keeps it, the base itself never had it."""
    folder, base = write(tmp_path / "d", *EXAMPLES), tiny / "base.gguf"
    tiny_adapter(tiny / "weights", tmp_path / "adapter", effect=0.3)
    merge.merge(base, tmp_path / "adapter", tmp_path / "q8.gguf", "Q8_0")
    known = replace(scored(tiny, folder), base=base, taught=tmp_path / "adapter")
    kept = score.compare(known, live=base, candidate=tmp_path / "q8.gguf", compared_with="base").fidelity
    shutil.copy(base, tmp_path / "never.gguf")
    never = score.compare(known, live=base, candidate=tmp_path / "never.gguf", compared_with="base").fidelity
    assert kept is not None
    assert never is not None
    assert kept.mean_divergence < 0.01 < never.mean_divergence
    assert kept.same_top > 0.9 > never.same_top
    assert kept.p99_divergence >= kept.mean_divergence
    assert kept.perplexity_ratio == pytest.approx(1, abs=0.02)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "d", "never.gguf", "q8.gguf"]


def test_no_more_of_the_answers_is_compared_than_the_recipe_wants(tiny: Path, tmp_path: Path) -> None:
    few = replace(RECIPE, gate=replace(RECIPE.gate, max_fidelity_tokens=7))
    given = scored(tiny, write(tmp_path / "d", *EXAMPLES), few)
    spans = [each.spans[0] for each in score.bench_of(given).answers]
    texts = list(score.few_tokens(given, spans))
    assert sum(len(answer) for _, answer in texts) == 7
    assert [(*texts[0][0], *texts[0][1])] == [spans[0].ids[: len(texts[0][0]) + len(texts[0][1])]]
    none = replace(few, gate=replace(few.gate, max_fidelity_tokens=0))
    assert not list(score.few_tokens(replace(given, recipe=none), spans))


def test_a_scorecard_written_before_fidelity_was_measured_is_still_read() -> None:
    told = asdict(Scorecard())
    del told["fidelity"]
    assert TypeAdapter(Scorecard).validate_python(told).fidelity is None
