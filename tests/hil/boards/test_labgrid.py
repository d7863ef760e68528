"""A board behind labgrid's real coordinator and exporter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig, load_boards
from hil.boards.kinds import open_board, trust
from hil.boards.labgrid import network_service
from hil.boards.power import switch
from hil.errors import BoardBusy, BoardError, HostKeyUnknown, UsageError
from tests.hil.labgrid_bench import client, labgrid_board


class Relay(BaseHTTPRequestHandler):
    """What labgrid's `simplerest` power port speaks with: GET /INDEX/VALUE."""

    requested: list[str]

    def do_GET(self) -> None:
        self.requested.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def relay() -> Iterator[HTTPServer]:
    Relay.requested = []
    with HTTPServer(("127.0.0.1", 0), Relay) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, relay: HTTPServer) -> Iterator[BoardConfig]:
    host = f"http://127.0.0.1:{relay.server_port}/{{index}}/{{value}}"
    power = f"  NetworkPowerPort:\n    model: simplerest\n    host: '{host}'\n    index: 7\n"
    with labgrid_board(tmp_path_factory.mktemp("labgrid"), power) as config:
        yield config


def holder(config: BoardConfig) -> str:
    shown = client(config, "show").stdout
    return next((line.strip() for line in shown.splitlines() if line.strip().startswith("acquired: ")), "")


def test_a_place_is_acquired_while_it_is_open(place: BoardConfig) -> None:
    with open_board(place) as board:
        assert holder(place) not in ("", "acquired: None")
        assert board.run(["echo", "there"], 10).stdout == "there\n"
    assert holder(place) == "acquired: None"


def test_it_is_released_after_an_error_too(place: BoardConfig) -> None:
    with pytest.raises(ZeroDivisionError), open_board(place):
        raise ZeroDivisionError
    unpinned = replace(place, known_hosts="/dev/null")
    with pytest.raises(HostKeyUnknown, match="hilnas board trust place"), open_board(unpinned) as board:
        board.run(["true"], 10)
    assert holder(place) == "acquired: None"
    client(place, "del-match", "host/shelf/*")
    try:
        with pytest.raises(BoardError, match="0 available NetworkService"):
            open_board(place)
    finally:
        client(place, "add-match", "host/shelf/*")
    assert holder(place) == "acquired: None"


def test_somebody_elses_place_is_busy(place: BoardConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LG_USERNAME", "somebody")
    assert client(place, "acquire").returncode == 0
    monkeypatch.delenv("LG_USERNAME")
    try:
        with pytest.raises(BoardBusy, match=r"already acquired by .*/somebody"):
            open_board(place)
        assert "somebody" in holder(place)  # it stays theirs
    finally:
        monkeypatch.setenv("LG_USERNAME", "somebody")
        client(place, "release")


def test_its_host_key_is_pinned_by_hand(place: BoardConfig, tmp_path: Path) -> None:
    unpinned = replace(place, known_hosts=str(tmp_path / "known_hosts"))
    assert [pinned.fingerprint[:7] for pinned in trust(unpinned)] == ["SHA256:"]
    with open_board(unpinned) as board:
        assert board.run(["true"], 10).exit_code == 0
    assert holder(place) == "acquired: None"


def test_its_power_is_the_places(place: BoardConfig) -> None:
    with open_board(place) as board:
        Relay.requested.clear()
        switch(board.config, "off")
        switch(board.config, "on")
    assert Relay.requested == ["/7/0", "/7/1"]


def test_mistakes_are_named(place: BoardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BoardError, match=r"labgrid place nowhere: .*matches nothing"):
        open_board(replace(place, place="nowhere"))
    with pytest.raises(BoardError, match="coordinator"):
        open_board(replace(place, coordinator="127.0.0.1:9"))
    monkeypatch.delenv("LG_COORDINATOR", raising=False)
    with pytest.raises(UsageError, match="set `coordinator`"):
        open_board(replace(place, coordinator=""))
    (tmp_path / "boards.toml").write_text('[a]\nkind = "labgrid"\n')
    with pytest.raises(UsageError, match="needs place"):
        load_boards(tmp_path / "boards.toml")
    with pytest.raises(BoardError, match="0 available"):
        network_service("x", "Place 'x':\n")
