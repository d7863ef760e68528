"""Both loopback servers behind one fixture, and both kinds of database, so that one suite runs over each."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hil.boards.board import Board
from hil.boards.kinds import open_board
from tests.hil.loopback_boards import SERVERS, loopback

if TYPE_CHECKING:
    from tests.hil.postgres import PostgresServer


@pytest.fixture(scope="module", params=SERVERS)
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    with open_board(loopback(request.param)) as opened:
        yield opened


@pytest.fixture(params=SERVERS)
def fresh_board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """One that the test may break."""
    with open_board(loopback(request.param)) as opened:
        yield opened


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A delegate that takes every node, and fails as its option `fault` names."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here: apt install gcc libc6-dev")
    built = tmp_path_factory.mktemp("delegate") / "libfaulty_delegate.so"
    source = Path(__file__).with_name("faulty_delegate.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", built, source], check=True, timeout=60)
    return built


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="no psycopg: pip install 'hilnas[postgres]'")
    from tests.hil.postgres import PostgresServer, find_binaries

    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: make system")
    with PostgresServer(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store's path or URL; nothing is there yet."""
    if request.param == "sqlite":
        return str(tmp_path / "s.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url(server.new_database())
