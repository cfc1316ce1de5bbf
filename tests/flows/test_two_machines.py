"""A trainer whose machine shares nothing with the bot's but the database and Ollama's API: a run of a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from huigan.operate import releases as operate_releases
from huigan.operate import rollbacks
from huigan.operate import runs as operate_runs
from huigan.operate.releases import Promoted
from huigan.operate.runs import Enqueued
from huigan.serving.client import Ollama
from storage import artefacts, deployments, runs
from storage.db import Database
from storage.records import Pick, RunState, Thumb
from tests.trainer.community import AT, Community
from tests.trainer.world import ENVIRONMENT, REPOSITORY, counting_ollama, tiny_base, tiny_recipe
from trainer import CHILD_ENVIRONMENT


@pytest.mark.slow
def test_a_run_on_another_machine_is_served_by_ollama_and_the_bots_machine_needs_no_file_of_it(
    db: Database, tmp_path: Path
) -> None:
    tiny = tiny_base(tmp_path / "gpu-machine" / "base")
    community = Community(db)
    community.live(weights=str(tiny / "base.gguf"))
    rater = community.person(channel="simulated")
    for n in range(24):
        answer, other = community.ask(rater, f"What is {n}?", f"It is {n + 1}.", f"It is {n + 2}.")
        community.rate(rater, answer, Thumb.DOWN, f"It is {n}.")
        community.pick(rater, answer, other, Pick.LEFT)
    with counting_ollama(tiny) as ollama:
        client = Ollama(ollama.host, timeout_seconds=30)
        ollama.add("base:1")
        recipe = replace(tiny_recipe(), approval="approve")
        assert isinstance(operate_runs.enqueue(db, recipe, why="command", by_user_id=None, at=AT), Enqueued)
        claimed = db.write(runs.claim, "gpu-machine:1", AT)
        assert claimed is not None

        url = db.engine.url.render_as_string(hide_password=False)
        home = "home"  # as HUIGAN_HOME is by default: a path that means another folder elsewhere
        where = [url, str(claimed.id), str(claimed.attempt), home, ollama.host]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.flows.trainer_child", *where],
            cwd=tmp_path / "gpu-machine",
            env={**os.environ, **CHILD_ENVIRONMENT, **ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stderr
        (tmp_path / "gpu-machine").rename(tmp_path / "unplugged")

        assert db.read(runs.get, claimed.id).state is RunState.AWAITING_APPROVAL
        artefact = db.read(artefacts.of_run, claimed.id)
        assert artefact is not None
        assert artefact.path is not None
        assert Path(artefact.path).is_absolute()
        assert not Path(artefact.path).exists()
        how = {"by_user_id": None, "at": AT}
        assert isinstance(operate_releases.promote(db, client, 2, **how), Promoted)  # type: ignore[arg-type]
        assert isinstance(rollbacks.rollback(db, client, **how), Promoted)  # type: ignore[arg-type]
        assert isinstance(operate_releases.promote(db, client, 2, **how), Promoted)  # type: ignore[arg-type]
        live = db.read(deployments.live)
        assert live is not None
        assert live.release.tag in ollama.tags
        assert str(tmp_path) not in json.dumps([each.json for each in ollama.exchanges])
        assert any(each.path.startswith("/api/blobs/sha256:") for each in ollama.exchanges), "the file itself went over"
