"""A data set is one snapshot, the same for the same feedback, and readable without Huigan."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import datasets as hf
import pytest
from sqlalchemy import update as sql_update

from huigan.turns.erasure import Forgotten, forget
from storage import chats, datasets, messages, ratings, tables
from storage.db import Database, Session
from storage.recipe import Recipe
from storage.records import Pick, Thumb
from tests.storage.test_attachments import attach
from tests.trainer.community import AT, SYSTEM, Community
from trainer import dataset, replay
from trainer.dataset import Built


def recipe(**data: Any) -> Recipe:
    return Recipe.from_dict({"name": "r", "data": {"held_out_share": 0.3, "rater_cap_share": 1, **data}})


def teach(db: Database) -> Community:
    """Twenty corrected answers, five picks, and a few thumbs."""
    community = Community(db)
    ann, bo = community.person(), community.person(channel="simulated", consents=False)
    for n in range(20):
        answer, other = community.ask(ann, f"问题 {n}？", f"不知道 {n}", f"也许 {n}")
        community.rate(bo, answer, Thumb.DOWN, f"答案是 {n}")
        if n % 4 == 0:
            community.pick(ann, answer, other, Pick.RIGHT)
        if n % 5 == 0:
            community.rate(ann, other, Thumb.UP)
    return community


def build(db: Database, folder: Path, **data: Any) -> Built:
    return dataset.build(db, recipe(**data), folder, AT, disk="here")


def test_the_same_ratings_and_seed_give_the_same_hash_on_every_database(db: Database, tmp_path: Path) -> None:
    teach(db)
    first, again = build(db, tmp_path / "a"), build(db, tmp_path / "b")
    assert first.sha256 == again.sha256
    assert first.sha256 == "23c33e79213620fc6c11fa94aab5376f7174ae0912c743e1f7d28d437bdf85ef"
    assert (tmp_path / "a/manifest.json").read_text() == (tmp_path / "b/manifest.json").read_text()


def test_another_seed_holds_out_others(sqlite_db: Database, tmp_path: Path) -> None:
    teach(sqlite_db)
    other = dataset.build(
        sqlite_db, Recipe.from_dict(recipe().to_dict() | {"seed": 21}), tmp_path / "b", AT, disk="here"
    )
    assert other.sha256 != build(sqlite_db, tmp_path / "a").sha256


def test_an_answer_to_a_picture_is_left_out_and_so_is_one_that_only_had_it_in_its_history(
    sqlite_db: Database, tmp_path: Path
) -> None:
    """The texts alone would teach to tell of pictures that nobody showed."""
    community = Community(sqlite_db)
    ann = community.person()
    [pictured], [later], [other] = (community.ask(ann, f"问题 {n}？", "是茶") for n in range(3))
    for answer in (pictured, later, other):
        community.rate(ann, answer, Thumb.UP)

    def show(session: Session) -> None:
        attach(session, pictured.message_id, "a")
        rows = [["message", pictured.message_id], ["answer", pictured.id], ["message", later.message_id]]
        session.execute(sql_update(tables.answer).where(tables.answer.c.id == later.id).values(row_ids=rows))

    sqlite_db.write(show)
    built = build(sqlite_db, tmp_path / "d")
    assert built.counts["dropped"]["images"] == 2


def test_it_is_read_back_by_datasets_with_and_without_its_card(sqlite_db: Database, tmp_path: Path) -> None:
    teach(sqlite_db)
    built = build(sqlite_db, tmp_path / "d")
    pairs = hf.load_dataset(str(built.folder), "pairs", cache_dir=str(tmp_path / "cache"))
    kept = built.counts["kept"]
    assert {split: len(rows) for split, rows in pairs.items()} == {split: kept[split]["pairs"] for split in kept}
    path = str(built.folder / "answers/train.parquet")
    rows = hf.load_dataset("parquet", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["prompt"][0] == {"role": "system", "content": SYSTEM}
    assert list(rows[0]["completion"][0]) == ["role", "content"]
    own = dataset.rows_of(built.folder, "answers", "train")
    assert [each["completion"] for each in own] == [each["completion"] for each in rows]
    assert dataset.rows_to_train(built)["sft"] == own


def test_every_example_leads_back_to_its_rows(sqlite_db: Database, tmp_path: Path) -> None:
    teach(sqlite_db)
    built = build(sqlite_db, tmp_path / "d")
    lines = sqlite_db.read(datasets.lineage, built.dataset_id)
    everything = [
        row for task in ("answers", "pairs", "thumbs") for split in ("train", "held_out")
        for row in dataset.rows_of(built.folder, task, split)
    ]  # fmt: skip
    wanted = {(row["example"], rating_id, None) for row in everything for rating_id in row["rating_ids"]}
    wanted |= {(row["example"], None, one) for row in everything for one in row["comparison_ids"]}
    assert {(line.example, line.rating_id, line.comparison_id) for line in lines} == wanted


def test_an_answer_asked_for_again_is_found_with_the_one_before_it_and_with_what_was_said_next(
    sqlite_db: Database, tmp_path: Path
) -> None:
    """Not where it was tried again after a failure, nor where it was sampled to be compared."""
    community = Community(sqlite_db)
    ann = community.person()
    went_on, stayed, sampled = (community.ask(ann, f"问题 {n}？", f"第一 {n}", f"第二 {n}") for n in range(3))

    def mark(session: Session) -> None:
        for (_, second), values in ((went_on, {}), (stayed, {}), (sampled, {"sampled": True})):
            turn = tables.turn
            session.execute(sql_update(turn).where(turn.c.id == second.turn_id).values(again=True, **values))
        next_at = AT + timedelta(minutes=1)
        messages.add(session, went_on[0].conversation_id, ann.id, "谢谢，然后呢？", "test:next", next_at)

    sqlite_db.write(mark)
    found = sqlite_db.read(dataset.regenerations)
    assert [(each.first_answer_id, each.second_answer_id, each.went_on_at) for each in found] == [
        (went_on[0].id, went_on[1].id, AT + timedelta(minutes=1)),
        (stayed[0].id, stayed[1].id, None),
    ]
    built = build(sqlite_db, tmp_path / "d", held_out_share=0.0)
    (pair,) = dataset.rows_of(built.folder, "pairs", "train")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("第二 0", "第一 0")
    assert (pair["weight"], pair["turn_ids"], pair["rating_ids"]) == (0.2, [went_on[1].turn_id], [])
    assert pair["rated_at"] == "2026-11-24T08:01:00+00:00"
    assert pair["conversation_id"] == went_on[0].conversation_id
    assert built.counts["regenerations"] == {"seen": 2, "telling": 1}
    assert built.stages == ()


def test_the_card_and_the_manifest_tell_what_the_rows_are_like(sqlite_db: Database, tmp_path: Path) -> None:
    teach(sqlite_db)
    built = build(sqlite_db, tmp_path / "d")
    described = json.loads((built.folder / "manifest.json").read_text())
    assert set(described["statistics"]) == {
        f"{task}/{split}" for split, tasks in built.counts["kept"].items() for task, count in tasks.items() if count
    }
    bias = built.counts["length_bias"]
    card = (built.folder / "README.md").read_text()
    assert f"In {bias['chosen_longer_share']:.0%} of {bias['pairs']} pairs" in card
    assert f"| answers/train | {built.counts['kept']['train']['answers']} |" in card
    weights = [row["weight"] for row in dataset.rows_of(built.folder, "answers", "train")]
    assert described["statistics"]["answers/train"]["weights"]["least"] == round(min(weights), 4)
    assert all(0 < each <= 1 for each in weights)


def test_it_is_registered_once_a_run_however_often_it_is_built(sqlite_db: Database, tmp_path: Path) -> None:
    teach(sqlite_db)
    ids = {dataset.build(sqlite_db, recipe(), tmp_path / "d", AT, disk="here").dataset_id for _ in range(2)}
    registered = sqlite_db.read(datasets.newest)
    assert ids == {each.id for each in registered}


def test_what_is_rated_while_it_is_read_is_not_in_it(db: Database) -> None:
    community = teach(db)
    bo = community.person()
    (late,) = community.ask(bo, "晚了吗？", "没有")

    def rate_meanwhile(session: Session) -> tuple[tuple[int, int], int]:
        before = ratings.watermark(session)
        writer = threading.Thread(target=community.rate, args=(bo, late, Thumb.UP))
        writer.start()
        writer.join()
        return dataset.gather(session, recipe())[0], before

    watermarks, before = db.read(rate_meanwhile)
    assert watermarks[0] == before < db.read(ratings.watermark)


def test_whoever_does_not_consent_is_not_learnt_from_wherever_their_words_are(
    sqlite_db: Database, tmp_path: Path
) -> None:
    """Not as a rater, not as the asker, and not as the author of a correction in somebody else's history."""
    community = Community(sqlite_db)
    ann, shy = community.person(), community.person(consents=False)
    (by_shy,), (by_ann,) = community.ask(shy, "一？", "甲"), community.ask(ann, "二？", "乙")
    community.rate(ann, by_shy, Thumb.UP)
    corrected = community.rate(shy, by_ann, Thumb.DOWN, "丙")
    built = build(sqlite_db, tmp_path / "d")
    assert built.counts["dropped"] == {"no_consent": 2}
    authors = sqlite_db.read(
        dataset.authors_of, [_shown(by_ann, [["message", by_ann.message_id], ["correction", corrected]])]
    )
    assert authors == {by_ann.id: {ann.id, shy.id}}
    assert built.stages == ()


def test_an_answer_that_was_given_a_forgotten_persons_words_is_left_out_and_breaks_no_run(
    db: Database, tmp_path: Path
) -> None:
    community = Community(db)
    ann, bo = community.person(), community.person()
    (of_ann,), (of_bo,) = community.ask(ann, "一？", "甲"), community.ask(bo, "二？", "乙")
    community.rate(bo, of_bo, Thumb.DOWN, "丙")
    seen = [["message", of_ann.message_id], ["answer", of_ann.id], ["message", of_bo.message_id]]
    db.write(
        lambda session: session.execute(
            sql_update(tables.answer).where(tables.answer.c.id == of_bo.id).values(row_ids=seen)
        )
    )
    assert isinstance(db.write(forget, ann.id, AT), Forgotten)
    built = build(db, tmp_path / "d")
    assert built.counts["dropped"] == {"answer_unknown": 1}
    assert built.stages == ()


def _shown(answer: Any, row_ids: list[list[Any]]) -> Any:
    from dataclasses import replace

    return replace(answer, seen=replace(answer.seen, row_ids=row_ids))


def test_a_releases_own_system_text_becomes_the_recipes_and_a_chats_own_stays(
    sqlite_db: Database, tmp_path: Path
) -> None:
    community = Community(sqlite_db)
    live = community.live(weights="w")
    ann = community.person()
    for question, system in (("一？", SYSTEM), ("二？", "Speak like a poet."), ("三？", "")):
        (answer,) = community.ask(ann, question, "好", system=system, release_id=live.release.id)
        community.rate(ann, answer, Thumb.UP)
    taught = Recipe.from_dict(
        {"name": "r", "system": {"text": "Be brief."}, "data": {"held_out_share": 0, "rater_cap_share": 1}}
    )
    built = dataset.build(sqlite_db, taught, tmp_path / "d", AT, disk="here")
    prompts = [row["prompt"] for row in dataset.rows_of(built.folder, "answers", "train")]
    systems = {prompt[1]["content"]: prompt[0]["content"] for prompt in prompts}
    assert systems == {"一？": "Be brief.", "二？": "Speak like a poet.", "三？": "Be brief."}


def test_replay_rows_and_controls_come_from_the_recipes_file(sqlite_db: Database, tmp_path: Path) -> None:
    teach(sqlite_db)
    file = tmp_path / "general.toml"
    rows = "".join(f'[[replay]]\nquestion = "q{n}"\nanswer = "a{n}"\n' for n in range(9))
    file.write_text(rows + '[[controls]]\nquestion = "Capital of France?"\nkeys = ["Paris"]\n')
    built = build(sqlite_db, tmp_path / "d", replay=str(file), replay_share=0.2)
    replayed = [row for row in dataset.rows_of(built.folder, "answers", "train") if row["source"] == "replay"]
    assert len(replayed) == built.counts["replay"]["kept"] > 0
    assert replayed[0]["prompt"][0]["content"] == SYSTEM
    assert {(row["weight"], row["conversation_id"], row["rated_at"]) for row in replayed} == {(1.0, None, None)}
    (control,) = dataset.controls_of(built.folder)
    assert control.is_right("It is PARIS.")
    assert not control.is_right("London")


def test_json_lines_of_three_shapes_are_read(tmp_path: Path) -> None:
    file = tmp_path / "general.jsonl"
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    shapes = [{"messages": said}, {"prompt": said[:2], "completion": said[2:]}, {"question": "q", "answer": "a"}]
    file.write_text("\n".join(map(json.dumps, shapes)) + "\n\n")
    assert set(replay.read([str(file)], "s").rows) == {((("system", "s"), ("user", "q")), "a")}


def test_general_text_may_come_from_several_files(tmp_path: Path) -> None:
    facts, text = tmp_path / "facts.toml", tmp_path / "text.jsonl"
    facts.write_text('[[replay]]\nquestion = "q"\nanswer = "a"\n[[controls]]\nquestion = "c"\nkeys = ["k"]\n')
    text.write_text('{"question": "p", "answer": "b"}\n')
    found = replay.read([str(facts), str(text)], "s")
    assert [answer for _, answer in found.rows] == ["a", "b"]
    assert [each.question for each in found.controls] == ["c"]


def test_the_general_text_that_comes_along_is_read_and_is_none_of_what_is_measured() -> None:
    rows = replay.read(["general.jsonl"], "s").rows
    folder = resources.files("trainer").joinpath("general")
    measured = [folder.joinpath(name).read_text("utf-8") for name in ("zh.txt", "en.txt")]
    assert len(rows) >= 40
    for _, answer in rows:
        sentences = [each for each in re.split(r"[。！？.!?]", answer) if len(each) > 12]
        assert not any(sentence.strip() in text for sentence in sentences for text in measured)


@pytest.mark.parametrize("text", ["{", '{"a": 1}', '{"question": "", "answer": "a"}', '{"messages": []}', "[1]"])
def test_a_replay_file_that_cannot_be_used_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "general.jsonl"
    file.write_text(text)
    with pytest.raises(replay.BadReplay, match=r"general\.jsonl"):
        replay.read([str(file)], "s")


def test_a_replay_file_that_is_not_there_is_no_hubs_name() -> None:
    with pytest.raises(replay.BadReplay, match="correct the path"):
        replay.read(["nowhere/at_all.jsonl"], "s")


def test_a_folder_of_somebody_elses_is_left_alone(sqlite_db: Database, tmp_path: Path) -> None:
    teach(sqlite_db)
    own = tmp_path / "README.md"
    own.write_text("my thesis")
    with pytest.raises(dataset.FolderTaken, match="name an empty folder"):
        build(sqlite_db, tmp_path)
    assert own.read_text() == "my thesis"


def test_a_data_set_replaces_an_older_one_whole_and_leaves_other_files(sqlite_db: Database, tmp_path: Path) -> None:
    built = build(sqlite_db, tmp_path / "d", held_out_share=0.0)
    teach(sqlite_db)
    (built.folder / "notes.txt").write_text("mine")
    assert build(sqlite_db, built.folder, held_out_share=0.5).counts["kept"]["held_out"]["answers"]
    none_held_out = build(sqlite_db, built.folder, held_out_share=0.0)
    assert not [*built.folder.rglob("held_out.parquet")]
    assert none_held_out.counts["kept"]["train"]["answers"] == len(dataset.rows_of(built.folder, "answers", "train"))
    assert (built.folder / "notes.txt").read_text() == "mine"


def test_a_run_without_feedback_builds_an_empty_data_set_and_says_so(sqlite_db: Database, tmp_path: Path) -> None:
    built = build(sqlite_db, tmp_path / "d")
    assert built.stages == ()
    assert sqlite_db.read(datasets.newest)[0].method == "none"
    assert json.loads((built.folder / "manifest.json").read_text())["counts"]["seen"]["ratings"] == 0


def test_a_long_history_is_rebuilt_as_it_was_seen(sqlite_db: Database) -> None:
    """The chat is the conversation's; what the answer was shown comes from its row ids alone."""
    community = Community(sqlite_db)
    ann = community.person()
    (answer,) = community.ask(ann, "一？", "甲")
    exchanges = sqlite_db.read(dataset.exchanges_of, [answer.id], recipe())
    assert exchanges[answer.id].prompt == (("system", SYSTEM), ("user", "一？"))
    assert sqlite_db.read(chats.conversation_of, answer.conversation_id).user_id == ann.id
