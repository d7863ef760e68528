from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import main
from hil.boards.board import Board
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from tests.deploy.cli.failing import SUBNET, Fails
from tests.deploy.tiny_experiment import REPOSITORY, Finished, finished_run, one_line


@pytest.fixture(autouse=True)
def no_redirection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HILNAS_BOARD", "HILNAS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str]) -> Fails:
    """Runs a command that must fail with an exit code and one line with all of `words`."""

    def check(code: int, command: list[Any], *words: str) -> None:
        assert main([str(word) for word in command]) == code, capfd.readouterr().err
        one_line(capfd.readouterr().err, *words)

    return check


@pytest.fixture
def model(finished: Finished) -> Path:
    return finished.folder / "subnets" / SUBNET


@pytest.fixture(scope="module")
def server() -> Iterator[Board]:
    with open_board(BoardConfig(name="bench", kind="loopback")) as board:
        yield board
