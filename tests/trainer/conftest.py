"""What the tests of the trainer share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a random two-layer Llama, to be read only."""
    from tests.huigan.llama.tiny import tiny_llama  # torch: most tests here do without

    folder = tmp_path_factory.mktemp("tiny")
    tiny_llama(folder)
    return folder
