"""What was sealed and is not what it was is found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer import checkpoints, seals


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "weights").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    seals.put(tmp_path / "seal", folder)
    return folder


def test_what_nobody_touched_holds_and_what_came_beside_it_does_no_harm(sealed: Path, tmp_path: Path) -> None:
    assert seals.holds(tmp_path / "seal", sealed)
    (sealed / "more").touch()
    assert seals.holds(tmp_path / "seal", sealed)


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(b"weighty"),
        lambda file: file.write_bytes(b"weight"),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
    ids=["changed", "cut", "emptied", "lost"],
)
def test_what_is_not_as_it_was_does_not_hold(sealed: Path, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    harm(sealed / "weights")
    assert not seals.holds(tmp_path / "seal", sealed)


def test_half_a_seal_holds_nothing_and_where_there_is_none_nothing_was_sealed(sealed: Path, tmp_path: Path) -> None:
    seal = tmp_path / "seal"
    seal.write_text(seal.read_text()[:-4])
    assert not seals.holds(seal, sealed)
    seal.write_text("")
    assert not seals.holds(seal, sealed)
    seal.unlink()
    assert seals.holds(seal, sealed)


def test_one_file_is_sealed_as_a_folder_is(sealed: Path, tmp_path: Path) -> None:
    file, seal = sealed / "weights", tmp_path / "seal"
    seals.put(seal, file)
    assert seals.holds(seal, file)
    file.write_bytes(b"")
    assert not seals.holds(seal, file)


def test_a_checkpoint_that_rotted_is_not_gone_on_from_but_the_one_before_it(tmp_path: Path) -> None:
    for step in (2, 4):
        (folder := tmp_path / f"checkpoint-{step}").mkdir()
        (folder / "optimizer.pt").write_bytes(b"moments")
        checkpoints.mark_whole(folder)
    assert checkpoints.last_whole(tmp_path) == tmp_path / "checkpoint-4"
    (tmp_path / "checkpoint-4" / "optimizer.pt").write_bytes(bytes(7))
    assert checkpoints.last_whole(tmp_path) == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-4").exists()
