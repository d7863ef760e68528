"""Boards that are unknown, gone, silent, or others than they were: exit 3, one line."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from hil.boards.loopback import free_port, make_keys
from tests.deploy.cli.failing import BOARD, BOARDS, USAGE, profile
from tests.deploy.tiny_experiment import (
    arguments,
    record,
    write_experiment,
)


@pytest.fixture
def bench(tmp_path) -> Callable[..., str]:
    """A boards.toml with the SSH board `bench` at a port, whose host key is pinned as one made here."""

    def write(port: int, connect_timeout_s: float = 10.0) -> str:
        keys = tmp_path / "keys"
        keys.mkdir()
        make_keys(keys)
        (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {(keys / 'host_key.pub').read_text()}")
        path = tmp_path / "boards.toml"
        path.write_text(
            f'[bench]\nkind = "ssh"\nhost = "127.0.0.1"\nport = {port}\nuser = "nobody"\n'
            f"connect_timeout_s = {connect_timeout_s}\n"
            f'key = "{keys / "client_key"}"\nknown_hosts = "{keys / "known_hosts"}"\n'
        )
        return str(path)

    return write


def test_an_unknown_board(fails, tmp_path, model):
    fails(USAGE, profile(tmp_path, model, board="lopback"), "no board 'lopback'", "did you mean 'loopback'?")
    fails(USAGE, ["board", "check", "imx8m", "--boards", BOARDS], "imx8m", "did you mean 'imx8mp'?")
    loop = ["loop", *arguments(write_experiment(tmp_path), tmp_path / "runs"), "--board", "lopback"]
    fails(USAGE, loop, "did you mean 'loopback'?")


def test_an_unknown_key_of_a_board(fails, tmp_path):
    (tmp_path / "boards.toml").write_text('[bench]\nkind = "loopback"\nthread = 1\n')
    fails(USAGE, ["board", "list", "--boards", tmp_path / "boards.toml"], "'thread'", "did you mean 'threads'?")
    fails(USAGE, ["board", "list", "--boards", tmp_path / "none.toml"], "none.toml")


def test_nothing_to_trust_about_a_loopback(fails):
    fails(USAGE, ["board", "trust", "loopback", "--boards", BOARDS], "nothing to trust")


def test_a_board_that_refuses(fails, tmp_path, model, bench):
    boards = bench(free_port())
    fails(BOARD, profile(tmp_path, model, boards, "bench"), "board bench", "refused")
    fails(BOARD, ["board", "check", "bench", "--boards", boards], "board bench", "refused")
    fails(BOARD, ["board", "trust", "bench", "--boards", boards], "board bench", "refused")


def test_a_board_that_never_answers(fails, tmp_path, model, bench):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        boards = bench(silent.getsockname()[1], connect_timeout_s=0.5)
        started = time.monotonic()
        fails(BOARD, profile(tmp_path, model, boards, "bench"), "board bench", "accepts connections")
        fails(BOARD, ["board", "trust", "bench", "--boards", boards], "board bench", "accepts connections")
        assert time.monotonic() - started < 20


def test_a_changed_host_key(fails, tmp_path, model, bench, server):
    boards = bench(server.config.port)
    fails(BOARD, profile(tmp_path, model, boards, "bench"), "host key", "SHA256:", "hilnas board trust bench")
    fails(BOARD, ["board", "trust", "bench", "--boards", boards], "host key", "SHA256:")


def test_a_host_key_that_nobody_pinned(fails, tmp_path, model, bench, server):
    boards = bench(server.config.port)
    (tmp_path / "keys" / "known_hosts").unlink()
    fails(BOARD, profile(tmp_path, model, boards, "bench"), "no host key", "hilnas board trust bench")


def test_a_loop_whose_board_is_gone(fails, tmp_path, finished, bench):
    """The trained stages stay done; what is left waits for the board."""
    folder = finished.copy(tmp_path / "runs")
    command = ["loop", *arguments(finished.config, tmp_path / "runs"), "--boards", bench(free_port())]
    fails(BOARD, [*command, "--board", "bench"], "board bench", "refused")
    state = record(folder / "state.json")["stages"]
    assert state["tables"]["done"] and not state["profile"]["done"]
