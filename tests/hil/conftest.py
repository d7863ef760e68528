"""Both loopback servers behind one fixture, so that one suite runs over each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loopback_boards import SERVERS, loopback

from hil.boards import Board
from hil.boards.inventory import open_board


@pytest.fixture(scope="module", params=SERVERS)
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    with open_board(loopback(request.param)) as opened:
        yield opened


@pytest.fixture(params=SERVERS)
def fresh_board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """One that the test may break."""
    with open_board(loopback(request.param)) as opened:
        yield opened
