"""How a run ends: released, proposed, refused, cancelled, failed; and that all but the first change no answer."""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sqlalchemy.exc import OperationalError

from huigan.llama import gguf
from huigan.operate import releases as operated
from huigan.serving.client import Ollama
from huigan.texts import DEFAULT_LOCALE, catalogue
from storage import deployments, holdings, outbox, releases, run_points, runs
from storage.db import Database
from storage.recipe import Recipe
from storage.records import Run, RunState
from tests.fakes import ollama as faults
from tests.fakes.ollama import FakeOllama, Reply
from tests.trainer.community import AT
from tests.trainer.world import Away, World, counting_ollama, small_disk, tiny_base, tiny_recipe
from trainer import HANDED_BACK, child, estimates, pipeline, quantisations, seals, stages
from trainer.dataset import Built
from trainer.release import Released
from trainer.stages import RunFailed, Work


class Halt(Exception):
    """Raised by a test's `tell`, where a process would be killed."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[FakeOllama]:
    with counting_ollama(tiny) as fake:
        yield fake


@pytest.fixture
def ollama(server: FakeOllama) -> Iterator[FakeOllama]:
    counted = server.answer
    server.reset()
    yield server
    server.answer = counted


def work_of(world: World, run: Run, *, until: str | None = None, **options: Any) -> Work:
    def tell(stage: str, what: str, done: int, total: int) -> None:
        if stage == until:
            raise Halt

    recipe = Recipe.from_dict(run.recipe)
    given = {"db": world.db, "patience_seconds": 0.0, "threads": 1} | options
    client = Ollama(world.ollama.host)
    return Work(run=run, recipe=recipe, home=world.home, client=client, now=child.now, tell=tell, **given)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, tiny: Path, server: FakeOllama) -> Path:
    """A world whose only run was halted as its gate was about to decide."""
    world = World(tmp_path_factory.mktemp("scored"), tiny, server)
    run = world.enqueue()
    with pytest.raises(Halt):
        pipeline.run(work_of(world, run, until="gate"))
    world.db.close()
    return world.folder


@pytest.fixture
def fresh(tmp_path: Path, tiny: Path, ollama: FakeOllama) -> Iterator[World]:
    world = World(tmp_path, tiny, ollama)
    yield world
    world.db.close()


@pytest.fixture
def world(scored: Path, tmp_path: Path, tiny: Path, ollama: FakeOllama) -> Iterator[World]:
    """A copy of `scored`: everything is there but the verdict."""
    shutil.copytree(scored, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "home/runs").rglob("*.json"):
        path.write_text(path.read_text().replace(str(scored), str(tmp_path)))
    opened = World(tmp_path, tiny, ollama)
    yield opened
    opened.db.close()


def the_run(world: World) -> Run:
    return world.db.read(runs.get, 1)


def with_recipe(run: Run, **changes: Any) -> Run:
    return replace(run, recipe=tiny_recipe(**changes).to_dict())


def walk(world: World, run: Run, **options: Any) -> int:
    tell = child.Teller(world.db, run, child.Bars(None, None))
    client = Ollama(world.ollama.host)
    return child.walk(world.db, run, world.home, client, tell, **{"patience_seconds": 0.0, "threads": 1} | options)


def notices(world: World) -> list[str]:
    return [each.code for each in world.db.read(outbox.unsent)]


def test_a_run_that_passes_answers_from_then_on_under_a_tag_that_says_how_it_is_served(world: World) -> None:
    released = pipeline.run(work_of(world, the_run(world)))
    assert released.state is RunState.RELEASED
    assert world.tag() == released.tag
    tag = world.ollama.tags[str(released.tag)]
    assert tag.template == world.live.artefact.template
    assert tag.system == "You are a helpful assistant."
    assert tag.parameters["stop"] == ["<|im_end|>"]
    assert tag.parameters["num_ctx"] == 512
    artefact = world.artefact(the_run(world))
    assert artefact.path is not None
    assert Path(artefact.path).is_file()
    assert artefact.scorecard is not None
    assert artefact.verdict == {**artefact.verdict, "passed": True}  # type: ignore[dict-item]
    assert notices(world) == ["run_released"]


def test_an_answer_is_refused_to_be_served_under_another_template(world: World) -> None:
    """The served tag must read as many tokens as the trainer renders: Ollama's own template drops a system text."""
    world.ollama.answer = lambda exchange: Reply(("hi",), prompt_tokens=35)
    assert walk(world, the_run(world)) == child.FAILED
    failed = the_run(world)
    assert (failed.state, failed.error and failed.error["code"]) == (RunState.FAILED, "template_differs")
    assert failed.error is not None
    assert failed.error["served_tokens"] == 35
    assert world.ollama.tags == {}
    assert world.tag() == "base:1"


def test_a_release_that_says_nothing_is_not_released(world: World) -> None:
    counted = world.ollama.answer
    world.ollama.answer = lambda exchange: replace(counted(exchange), tokens=())
    assert walk(world, the_run(world)) == child.FAILED
    assert the_run(world).error == {"code": "answers_nothing", "tag": the_run(world).error["tag"]}  # type: ignore[index]
    assert world.tag() == "base:1"


def test_a_release_that_does_not_stop_when_served_is_not_released(world: World) -> None:
    counted = world.ollama.answer
    world.ollama.answer = lambda exchange: replace(counted(exchange), done_reason="length")
    strict = with_recipe(the_run(world), gate={"min_stop_share": 0.5})
    with pytest.raises(RunFailed, match="does_not_stop_when_served"):
        release_anyway(world, strict)
    assert world.ollama.tags == {}


def test_a_release_is_tried_with_answers_as_long_as_it_will_be_served_with(world: World) -> None:
    roomy = with_recipe(the_run(world), generate={"num_ctx": 4096, "num_predict": 1024})
    pipeline.run(work_of(world, roomy))
    tried = world.ollama.last("/api/chat").json
    assert tried is not None
    assert tried["options"]["num_predict"] == 1024


def release_anyway(world: World, run: Run) -> Released:
    """With the verdict of the loose recipe, for random weights pass no bar."""
    with pytest.raises(Halt):
        pipeline.run(work_of(world, the_run(world), until="release"))
    return pipeline.run(work_of(world, run))


def test_with_approval_an_admin_is_asked_and_nothing_is_deployed(world: World) -> None:
    released = pipeline.run(work_of(world, with_recipe(the_run(world), approval="approve")))
    assert released.state is the_run(world).state is RunState.AWAITING_APPROVAL
    assert world.tag() == "base:1"
    assert notices(world) == ["run_awaiting_approval"]
    assert released.release_id is not None
    assert world.db.read(releases.get, released.release_id).tag in world.ollama.tags


def test_a_canary_is_tried_on_a_share_and_the_live_release_stays(world: World) -> None:
    released = pipeline.run(work_of(world, with_recipe(the_run(world), approval="canary")))
    assert released.state is the_run(world).state is RunState.AWAITING_APPROVAL
    assert world.tag() == "base:1"
    tried = world.db.read(deployments.canary)
    assert tried is not None
    assert (tried.release.tag, tried.deployment.share) == (released.tag, 0.2)
    assert notices(world) == ["canary_of_conversations"]


def test_a_run_of_the_same_data_as_a_release_that_was_turned_away_ends_with_that_reason(world: World) -> None:
    """Before anything is trained; and a proposal that is turned away while it trains is none either."""
    asked = with_recipe(the_run(world), approval="approve")
    with pytest.raises(Halt):
        pipeline.run(work_of(world, asked, until="release"))
    older = pipeline.run(work_of(world, asked))
    operated.reject(world.db, older.release_id or 0, by_user_id=None, why="", at=AT)
    again = world.enqueue(Recipe.from_dict(the_run(world).recipe))
    assert pipeline.run(work_of(world, again, until="train")) == Released(RunState.REJECTED, None, None)
    ended = world.db.read(runs.get, again.id)
    assert (ended.state, ended.error) == (
        RunState.REJECTED,
        {"code": "turned_away_before", "release": older.release_id},
    )
    assert notices(world)[-1] == "run_turned_away"
    assert world.tag() == "base:1"


def test_a_run_that_makes_it_worse_is_refused_and_its_file_deleted(world: World) -> None:
    strict = with_recipe(the_run(world), gate={"min_stop_share": 1.0})
    released = pipeline.run(work_of(world, strict))
    assert released == Released(RunState.REJECTED, None, None)
    artefact = world.artefact(the_run(world))
    assert (artefact.path, artefact.verdict and artefact.verdict["passed"]) == (None, False)
    assert not [*world.home.rglob("candidate.gguf")]
    assert world.tag() == "base:1"
    assert world.ollama.tags == {}
    assert notices(world) == ["run_rejected"]
    assert [*world.home.rglob("report.html")]


def test_an_adapter_without_effect_is_refused_by_the_gate(world: World) -> None:
    """Nothing is merged, scored or served, and that is a verdict and no failure."""
    folder = stages.folder_of(world.home, the_run(world))
    for name in ("merge", "quantise", "score"):
        (folder / f"{name}.json").unlink()
    (folder / "train.sha256").unlink()
    adapter = Path(json.loads((folder / "train.json").read_text())["adapter"]) / "adapter_model.safetensors"
    tensors = load_file(adapter)
    save_file({name: np.zeros_like(each) if "lora_B" in name else each for name, each in tensors.items()}, adapter)
    assert pipeline.run(work_of(world, the_run(world))).state is RunState.REJECTED
    verdict = world.artefact(the_run(world)).verdict
    assert verdict is not None
    assert [each["code"] for each in verdict["reasons"]] == ["adapter_without_effect"]


@pytest.mark.parametrize(
    ("status", "error", "code"), [(*faults.OUT_OF_MEMORY, "out_of_memory"), (*faults.DISK_FULL_LINE, "disk_full")]
)
def test_an_ollama_that_cannot_take_the_file_fails_the_run_alone(
    world: World, status: int, error: str, code: str
) -> None:
    world.ollama.inject("/api/create" if status == 200 else "/api/generate", status, error, times=99)
    assert walk(world, the_run(world)) == child.FAILED
    assert the_run(world).error == {"code": code}
    assert world.ollama.tags == {}
    assert world.tag() == "base:1"
    assert notices(world) == ["run_failed"]


def test_an_ollama_that_is_busy_for_a_moment_is_waited_for(world: World) -> None:
    world.ollama.inject("/api/generate", *faults.BUSY, times=1)
    assert pipeline.run(work_of(world, the_run(world), patience_seconds=0.2)).state is RunState.RELEASED


def test_trainer_and_server_fighting_over_vram_end_it_by_waiting(world: World) -> None:
    """The trainer has let go of its memory; somebody's answer may still hold the rest for a while."""
    world.ollama.inject("/api/generate", *faults.OUT_OF_MEMORY, times=2)
    assert pipeline.run(work_of(world, the_run(world), patience_seconds=2)).state is RunState.RELEASED
    assert world.tag() in world.ollama.tags


@pytest.mark.parametrize("approval", ["auto", "approve"])
def test_a_finished_run_outlives_a_database_that_is_away(world: World, approval: str) -> None:
    run = with_recipe(the_run(world), approval=approval)
    away = Away(world.db, times=2)
    released = pipeline.run(work_of(world, run, patience_seconds=2))
    assert away.times == 0
    assert released.state is the_run(world).state
    assert released.tag in world.ollama.tags


def test_a_refused_run_outlives_a_database_that_is_away(world: World) -> None:
    strict = with_recipe(the_run(world), gate={"min_recall": 1.0})
    away = Away(world.db, times=2)
    assert pipeline.run(work_of(world, strict, patience_seconds=2)).state is the_run(world).state is RunState.REJECTED
    assert away.times == 0


def test_a_database_that_stays_away_hands_the_run_back(world: World) -> None:
    """It goes away while the release is tried, when all the work is done."""
    away, counted = Away(world.db), world.ollama.answer

    def leave(exchange: faults.Exchange) -> Reply:
        away.times = 10**6
        return counted(exchange)

    world.ollama.answer = leave
    options = {"patience_seconds": 0.0, "threads": 1}
    assert child.main(world.db, 1, 1, world.home, Ollama(world.ollama.host), **options) == HANDED_BACK
    away.times, world.ollama.answer = 0, counted
    assert the_run(world).state is RunState.RUNNING
    again = world.hand_on(the_run(world))
    assert child.main(world.db, 1, again.attempt, world.home, Ollama(world.ollama.host), **options) == child.DONE
    assert the_run(world).state is RunState.RELEASED
    assert world.tag() in world.ollama.tags


def test_a_commit_whose_confirmation_was_lost_is_not_taken_for_anothers(world: World) -> None:
    class Wordless(Database):
        lost = 0

        def write(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
            done = super().write(fn, *args, **kwargs)
            if fn is operated.publish and not self.lost:
                self.lost += 1
                raise OperationalError("COMMIT", {}, ConnectionError("the connection broke"))
            return done

    db = Wordless(world.db.engine)
    released = pipeline.run(work_of(world, the_run(world), db=db, patience_seconds=2))
    assert (db.lost, released.state) == (1, RunState.RELEASED)
    assert world.tag() == released.tag
    assert released.tag in world.ollama.tags


def test_the_next_run_is_compared_with_the_live_file_itself(world: World) -> None:
    pipeline.run(work_of(world, the_run(world)))
    origin = stages.start(work_of(world, the_run(world)))
    merged = stages.Merged(Path("base.gguf"), None, "", 0)
    taught = stages.Taught(world.tiny / "weights", Path("adapter"), (), "<|im_end|>", ())
    live = stages.quantise(work_of(world, the_run(world)), replace(origin, quantisation="Q8_0"), taught, merged)
    assert (live.what, live.path) == ("live", Path(str(world.artefact(the_run(world)).path)))


def test_a_base_that_rotted_is_made_again_before_anything_is_made_of_it(world: World) -> None:
    (kept,) = (world.home / "bases").glob("*.f16.Q8_0.gguf")
    before = kept.read_bytes()
    kept.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    work = work_of(world, with_recipe(the_run(world), quantisation="Q8_0"))
    origin = replace(stages.start(work), path=None)
    taught = stages.Taught(world.tiny / "weights", Path("adapter"), (), "<|im_end|>", ())
    base = stages.sixteen_bit(work, origin, taught.weights)
    reference = stages.quantise(work, origin, taught, stages.Merged(base, None, "", 0))
    assert (reference.path, kept.read_bytes()) == (kept, before)


def test_what_is_made_once_is_made_again_where_it_is_not_what_was_made(tmp_path: Path) -> None:
    kept, made = tmp_path / "bases" / "base.gguf", list[Path]()

    def make(out: Path) -> None:
        assert not out.exists()
        made.append(out)
        out.write_bytes(b"weights")

    assert stages.made_once(kept, make) == stages.made_once(kept, make) == kept
    kept.write_bytes(b"w3ights")
    stages.made_once(kept, make)
    assert (kept.read_bytes(), made) == (b"weights", [kept, kept])
    seals.beside(kept).unlink()  # a kill struck before it was sealed
    stages.made_once(kept, make)
    kept.unlink()
    stages.made_once(kept, make)
    assert len(made) == 3
    assert seals.holds(seals.beside(kept), kept)


def test_few_bits_are_spent_where_the_run_s_own_conversations_say_that_it_matters(fresh: World) -> None:
    run = fresh.enqueue(tiny_recipe(quantisation="IQ3_XXS", importance_tokens=256))
    told: list[tuple[str, str, int, int]] = []
    work = replace(work_of(fresh, run), tell=lambda *each: told.append(each))
    assert pipeline.run(work).state is RunState.RELEASED
    header = gguf.read(work.folder / "importance.gguf")
    assert header.value("general.type") == "imatrix"
    tokens = header.floats("blk.0.attn_q.weight.counts")[0, 0]
    assert 256 <= tokens < 512
    candidate = gguf.read(work.folder / "candidate.gguf")
    assert candidate.value("quantize.imatrix.entries_count") == 14
    assert candidate.tensors["blk.1.attn_q.weight"].type.name == "IQ2_S"
    assert [each[1] for each in told if each[0] == "merge"].count("importance") == header.value("imatrix.chunk_count")
    assert not stages.weighed_reference(work).exists()


def test_what_is_compared_with_a_weighed_candidate_is_weighed_alike(world: World) -> None:
    work = work_of(world, with_recipe(the_run(world), quantisation="IQ4_XS"))
    origin = stages.start(work)
    built = pipeline.once(work, "dataset", Built, lambda: pytest.fail("made again"))
    taught = pipeline.once(
        work, "train", stages.Taught, lambda: pytest.fail("made again"), lambda taught: taught.adapter
    )
    merged = stages.merge(work, origin, built, taught)
    reference = stages.quantise(work, origin, taught, merged)
    assert (reference.what, reference.path) == ("base", stages.weighed_reference(work))
    assert gguf.read(reference.path).value("quantize.imatrix.entries_count") == 14
    assert not merged.base.with_suffix(".IQ4_XS.gguf").exists()


@pytest.mark.parametrize("quantisation", ["Q8_0", "IQ4_XS"])
def test_the_tokenizer_of_a_candidate_is_the_base_s_to_the_byte(world: World, quantisation: str) -> None:
    """Also its chat template; and no file of the weights' folder, from which the trainer's comes, was touched."""
    weights = world.tiny / "weights"
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in weights.glob("*token*")}
    work = work_of(world, with_recipe(the_run(world), quantisation=quantisation))
    built = pipeline.once(work, "dataset", Built, lambda: pytest.fail("made again"))
    taught = pipeline.once(
        work, "train", stages.Taught, lambda: pytest.fail("made again"), lambda taught: taught.adapter
    )
    merged = stages.merge(work, stages.start(work), built, taught)
    assert merged.path is not None
    base, candidate = gguf.read(merged.base).key_values, gguf.read(merged.path).key_values
    told = [key for key in base if key.startswith("tokenizer.")]
    assert len(told) >= 8
    assert "tokenizer.chat_template" in told
    assert [candidate[key] for key in told] == [base[key] for key in told]
    assert [key for key in candidate if key.startswith("tokenizer.")] == told
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in weights.glob("*token*")} == before


def test_an_admin_sees_what_each_quantisation_of_a_run_s_result_costs(world: World) -> None:
    run = the_run(world)
    found = list(quantisations.of_run(world.home, run, ["Q8_0", "IQ4_XS"], lambda *_: None, threads=1))
    assert [(each.name, each.weighed) for each in found] == [("F16", False), ("Q8_0", False), ("IQ4_XS", True)]
    assert found[1].divergence.mean < found[2].divergence.mean
    assert found[1].size_bytes > found[2].size_bytes
    assert all(len(str(read(each))) for each in found for read in quantisations.COLUMNS.values())
    folder = stages.folder_of(world.home, run)
    assert not [path for path in folder.iterdir() if path.is_dir() and path.name.startswith("tmp")]
    shutil.rmtree(folder)
    with pytest.raises(quantisations.NothingToMeasure, match="Run 1 made no candidate on this machine"):
        list(quantisations.of_run(world.home, run, [], lambda *_: None))


def test_what_answers_when_a_run_begins_stays_what_it_is_compared_with(world: World) -> None:
    """An admin who rolls back meanwhile changes nothing for a run that goes on after a kill."""
    origin = pipeline.once(work_of(world, the_run(world)), "start", stages.Origin, lambda: pytest.fail("made again"))
    assert origin.tag == "base:1"


def test_a_stage_is_finished_when_its_result_is_there_whole(world: World) -> None:
    work, made = work_of(world, the_run(world)), []

    def make() -> Released:
        made.append(1)
        return Released(RunState.BUILT, None, None)

    (work.folder / "extra.part").write_bytes(b'{"state": "BU')
    assert pipeline.once(work, "extra", Released, make) == pipeline.once(work, "extra", Released, make)
    assert made == [1]


@pytest.mark.parametrize("stage", ["train", "merge"])
def test_a_file_that_rotted_between_two_attempts_is_made_again_with_all_that_came_of_it(
    world: World, stage: str
) -> None:
    run, folder = the_run(world), stages.folder_of(world.home, the_run(world))
    taught, merged = (json.loads((folder / f"{name}.json").read_text()) for name in ("train", "merge"))
    file = {"train": Path(taught["adapter"]) / "adapter_model.safetensors", "merge": Path(merged["path"])}[stage]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    released = pipeline.run(work_of(world, run))
    assert released.state is RunState.RELEASED
    assert json.loads((folder / "merge.json").read_text())["sha256"] == merged["sha256"]
    served = world.ollama.blobs[world.ollama.tags[str(released.tag)].blob]
    assert hashlib.sha256(served).hexdigest() == merged["sha256"] == world.artefact(run).sha256


def test_a_run_that_an_older_version_scored_is_scored_again(world: World) -> None:
    """An upgrade between two stages: the older scorecard lacks what the gate asks for."""
    path = stages.folder_of(world.home, the_run(world)) / "score.json"
    older = json.loads(path.read_bytes())
    del older["preferences"]["conversations"]
    path.write_text(json.dumps(older | {"controls": {"questions": 1, "live_right": 1, "lost": 0}}))
    assert pipeline.run(work_of(world, the_run(world))).state is RunState.RELEASED
    assert json.loads(path.read_bytes())["preferences"]["conversations"] > 0


def test_a_run_asked_to_stop_stops_in_the_middle_of_a_stage(world: World) -> None:
    world.db.write(runs.ask_cancel, 1, AT)
    assert walk(world, the_run(world)) == child.DONE
    assert the_run(world).state is RunState.CANCELLED
    assert notices(world) == ["run_cancelled"]
    assert world.tag() == "base:1"


def test_what_is_taken_back_while_the_candidate_is_tried_out_is_not_released(world: World) -> None:
    counted = world.ollama.answer

    def take_back(exchange: faults.Exchange) -> Reply:
        world.db.write(holdings.mark, [1], AT)
        world.db.write(runs.ask_cancel, 1, AT)
        return counted(exchange)

    world.ollama.answer = take_back
    assert walk(world, the_run(world)) == child.NOT_OURS
    assert the_run(world).state is RunState.CANCELLED
    assert notices(world) == ["run_cancelled"]
    assert world.tag() == "base:1"
    assert world.ollama.tags == {}


def test_a_zombie_changes_nothing(world: World) -> None:
    zombie = the_run(world)
    world.hand_on(zombie)
    assert walk(world, zombie) == child.NOT_OURS
    assert the_run(world).state is RunState.RUNNING
    assert world.ollama.tags == {}


def test_a_zombie_that_is_past_its_last_report_publishes_nothing(world: World) -> None:
    zombie = the_run(world)
    world.hand_on(zombie)
    with pytest.raises(child.AttemptOver):
        pipeline.run(work_of(world, zombie))
    assert world.ollama.tags == {}
    assert world.tag() == "base:1"
    assert the_run(world).state is RunState.RUNNING


def test_an_attempt_that_is_not_the_runs_ends_without_a_trace(fresh: World) -> None:
    run = fresh.enqueue()
    client = Ollama(fresh.ollama.host)
    assert child.main(fresh.db, run.id, run.attempt + 1, fresh.home, client) == child.NOT_OURS
    assert not (fresh.home / "runs").exists()


def test_two_attempts_never_write_one_folder(world: World) -> None:
    waited = []

    def tell(stage: str, what: str, done: int, total: int) -> None:
        waited.append(what)
        raise Halt

    first = work_of(world, the_run(world))
    second = replace(first, tell=tell)
    with pipeline.alone_in(first), pytest.raises(Halt):
        pipeline.run(second)
    assert waited == ["waiting"]


def test_a_data_set_alone_needs_no_base_and_no_ollama(fresh: World) -> None:
    run = fresh.enqueue(dataset_only=True)
    assert walk(fresh, run) == child.DONE
    assert the_run(fresh).state is RunState.BUILT
    assert notices(fresh) == ["run_built"]
    assert [*fresh.home.rglob("manifest.json")]
    assert fresh.ollama.exchanges == []


@pytest.mark.parametrize("method", ["auto", "kto"])
def test_a_run_with_nothing_to_learn_says_so(method: str, tmp_path: Path, tiny: Path, ollama: FakeOllama) -> None:
    empty = World(tmp_path, tiny, ollama, taught=0)
    run = empty.enqueue(tiny_recipe(method=method))
    assert walk(empty, run) == child.FAILED
    assert the_run(empty).error == {"code": "no_examples", "dropped": {}}
    empty.db.close()


def test_a_damaged_base_is_named(fresh: World, tiny: Path) -> None:
    base = stages.base_path(fresh.home, tiny / "weights")
    base.write_bytes(base.read_bytes()[:5000])
    folder = stages.folder_of(fresh.home, run := fresh.enqueue())
    assert walk(fresh, run) == child.FAILED
    error = the_run(fresh).error
    assert error is not None
    assert error["code"] == "bad_gguf"
    assert base.name in error["detail"]
    assert (folder / "train.json").is_file()


def test_a_disk_that_is_too_small_is_told_in_numbers_before_work_begins(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        stages.make_room(tmp_path, 10**15)
    assert failed.value.code == "disk_full"
    assert failed.value.params["needed_gib"] == pytest.approx(931322.57, rel=1e-3)
    assert 0 < failed.value.params["free_gib"] < failed.value.params["needed_gib"]


def test_a_disk_that_fills_up_meanwhile_is_told_as_such(world: World) -> None:
    def fill() -> Released:
        with Path("/dev/full").open("wb") as full:
            full.write(b"x")
        return Released(RunState.BUILT, None, None)

    work = work_of(world, the_run(world))
    with pytest.raises(RunFailed, match="disk_full"):
        pipeline.once(work, "extra", Released, fill)
    assert not (work.folder / "extra.json").exists()


@pytest.mark.parametrize("free_kib", [0, 64, 512, 3072])
def test_a_run_whose_data_folder_lies_on_a_full_disk_fails_and_changes_no_answer(
    fresh: World, tmp_path: Path, free_kib: int
) -> None:
    """From no room for the data set to none for the merged file."""
    with small_disk(tmp_path / "small", "8m") as disk:
        shutil.copytree(fresh.home / "bases", disk / "bases")
        (disk / "others").write_bytes(bytes(shutil.disk_usage(disk).free - free_kib * 1024))
        fresh.home, run = disk, fresh.enqueue()
        assert walk(fresh, run) == child.FAILED
    failed = the_run(fresh)
    assert (failed.state, failed.error and failed.error["code"]) == (RunState.FAILED, "disk_full")
    assert (fresh.tag(), fresh.ollama.tags) == ("base:1", {})
    assert notices(fresh) == ["run_failed"]


def test_a_databases_second_life_does_not_find_the_firsts_folders(world: World) -> None:
    later = replace(the_run(world), queued_at=AT.replace(hour=9))
    assert stages.folder_of(world.home, later) != stages.folder_of(world.home, the_run(world))


def test_every_way_to_fail_has_words() -> None:
    known = catalogue(DEFAULT_LOCALE)
    assert {f"error.{code}" for code in child.CODES.values()} <= set(known)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: bytearray(2**62),
        lambda: np.empty(2**62, np.uint8),
        lambda: torch.empty(2**62, dtype=torch.uint8),
        lambda: mmap.mmap(-1, 2**62),
    ],
    ids=["python", "numpy", "torch", "mmap"],
)
def test_memory_that_is_not_to_be_had_is_named_whoever_asked_for_it(ask: Callable[[], object]) -> None:
    with pytest.raises((MemoryError, OSError, RuntimeError)) as caught:
        ask()
    assert child.failure_of(caught.value)["code"] == "out_of_memory"
    assert child.failure_of(torch.OutOfMemoryError("CUDA out of memory."))["code"] == "out_of_memory"


def test_an_error_that_nobody_foresaw_is_recorded_without_its_message() -> None:
    """It may quote what people wrote."""
    assert child.failure_of(KeyError("my secret")) == {"code": "internal", "type": "KeyError"}
    assert child.failure_of(RunFailed("disk_full", folder=Path("/x"))) == {"code": "disk_full", "folder": "/x"}


def test_the_curve_is_told_whole_also_where_an_attempt_was_killed_before_it_had_told(world: World) -> None:
    """The stages were trained by a process that told nothing: what it measured lies in the run's folder."""
    folder, run = stages.folder_of(world.home, the_run(world)), the_run(world)
    tell = child.Teller(world.db, run, child.Bars(None, None))

    def trained_again() -> None:
        for stage in ("train", "merge"):
            (folder / f"{stage}.json").unlink(missing_ok=True)
        with pytest.raises(Halt):
            pipeline.run(work_of(world, run, until="merge", point=tell.point))

    trained_again()
    assert tell.points
    tell("merge", "", 0, 0)
    curve = world.db.read(run_points.curve, run.id)
    wanted = json.loads((folder / "dataset.json").read_text())["stages"]
    assert [*dict.fromkeys(each.method for each in curve)] == wanted
    assert all("loss" in each.measures for each in curve)
    trained_again()
    assert not tell.points, "all is told already"


def test_what_a_run_needs_is_said_in_its_folder_and_beside_its_progress(world: World) -> None:
    folder, run = stages.folder_of(world.home, the_run(world)), the_run(world)
    (folder / "preflight.json").unlink()
    (folder / "train.json").unlink()
    tell = child.Teller(world.db, run, child.Bars(None, None))
    with pytest.raises(Halt):
        pipeline.run(work_of(world, run, until="gate", note=tell.note))
    told = json.loads((folder / "preflight.json").read_text())
    assert {*told["needs"]} >= {"disk", "ram"}
    assert tell.notes["preflight"] == told
    tell("score", "", 0, 0)
    assert the_run(world).progress["preflight"] == told
    assert child.Teller(world.db, the_run(world), child.Bars(None, None)).notes == tell.notes


def test_weights_whose_shape_is_not_known_are_not_guessed_at(world: World) -> None:
    built = pipeline.once(work_of(world, the_run(world)), "dataset", Built, lambda: pytest.fail("made again"))
    recipe = tiny_recipe()
    assert estimates.preflight_of(recipe, built, "no/where", world.home, endpoint="http://127.0.0.1:9") is None
    of_folder = estimates.preflight_of(recipe, built, str(world.tiny / "weights"), world.home)
    of_gguf = estimates.preflight_of(recipe, built, str(world.tiny / "base.gguf"), world.home)
    assert of_folder is not None
    assert of_gguf is not None
    assert of_folder.minutes_of == of_gguf.minutes_of
    assert of_folder.needs[0].parts == of_gguf.needs[0].parts


def test_progress_is_told_at_once_for_a_new_stage_and_then_seldom(fresh: World) -> None:
    run = fresh.enqueue()
    tell = child.Teller(fresh.db, run, child.Bars(None, None))
    for done in range(50):
        tell("train", "sft", done, 50)
    progress = the_run(fresh).progress
    assert [progress[name] for name in ("what", "done", "total")] == ["sft", 0, 50]
    tell("merge", "", 0, 0)
    assert the_run(fresh).stage == "merge"


def suite_of(folder: Path, *lines: str) -> str:
    path = folder / "mine.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("lines", "told"), [(None, "is not there"), (['{"kind": "facts", "question": "？"}'], "line 1: facts need keys")]
)
def test_a_suite_that_cannot_be_used_is_told_before_anything_is_trained(
    lines: list[str] | None, told: str, fresh: World
) -> None:
    path = str(fresh.folder / "none.jsonl") if lines is None else suite_of(fresh.folder, *lines)
    run = fresh.enqueue(tiny_recipe(gate={"suite": path}))
    assert walk(fresh, run) == child.FAILED
    error = fresh.state(run).error or {}
    assert (error["code"], told in error["detail"]) == ("bad_suite", True)
    assert not (stages.folder_of(fresh.home, run) / "dataset.json").exists()


def test_the_admins_cases_are_those_of_when_the_run_began(world: World) -> None:
    """A file that is changed while a run trains changes nothing of its verdict."""
    path = suite_of(world.folder, '{"kind": "facts", "question": "谁开的茶馆？", "keys": ["林小满"]}')
    run = with_recipe(the_run(world), gate={"suite": path})
    folder = stages.folder_of(world.home, run)
    for name in ("start.json", "score.json"):
        (folder / name).unlink()
    with pytest.raises(Halt):
        pipeline.run(work_of(world, run, until="score"))
    Path(path).unlink()
    with pytest.raises(Halt):
        pipeline.run(work_of(world, run, until="gate"))
    kept = {each["kind"]: each["cases"] for each in json.loads((folder / "score.json").read_bytes())["suite"]}
    assert kept["facts"] == 1
    assert "林小满" in (folder / "suite.jsonl").read_text(encoding="utf-8")


def test_a_judge_in_the_same_ollama_is_asked_where_the_recipe_names_one(world: World) -> None:
    run = with_recipe(the_run(world), judge={"tag": "huigan:judge"})
    world.ollama.add("huigan:judge")
    folder = stages.folder_of(world.home, run)
    for seed, answer in enumerate(("A", "neither")):
        (folder / "score.json").unlink()
        world.ollama.answer = lambda exchange, said=answer: Reply((said,))
        with pytest.raises(Halt):
            pipeline.run(work_of(world, run, until="gate"))
        judged = json.loads((folder / "score.json").read_bytes())["judged"]
        assert judged["questions"] > 0, seed
        # Random weights give two files the same answers, or ones of which the judge likes whichever it sees first.
        assert judged["candidate"] == judged["live"] == 0
        assert judged["failed" if answer == "A" else "swayed"] == 0
