"""labgrid's own coordinator and exporter, as programs, with a loopback board as the place `bench`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.boards.loopback import free_port
from tests.hil.loopback_boards import loopback

PLACE = "bench"
START_S = 30.0


def program(name: str) -> str:
    return str(Path(sys.executable).parent / f"labgrid-{name}")


def client(config: BoardConfig, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [program("client"), "-x", config.coordinator, "-p", PLACE, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def labgrid_board(folder: Path, resources: str = "") -> Iterator[BoardConfig]:
    """The settings of a labgrid board in `folder`; `resources` are further ones of its exporter, as YAML."""
    if find_spec("labgrid") is None:
        pytest.skip("no labgrid here: pip install 'hilnas[labgrid]'")
    folder.mkdir(exist_ok=True)
    with open_board(loopback("asyncssh")) as machine:
        (folder / "exports.yaml").write_text(
            f"shelf:\n  NetworkService:\n    address: 127.0.0.1\n    port: {machine.config.port}\n"
            f"    username: {machine.config.user}\n{resources}"
        )
        coordinator = f"127.0.0.1:{free_port()}"
        commands = (
            ["coordinator", "-l", coordinator],
            ["exporter", "-c", coordinator, "-n", "host", "--hostname", "127.0.0.1", "exports.yaml"],
        )
        config = BoardConfig(
            name="place", kind="labgrid", place=PLACE, coordinator=coordinator, key=machine.config.key,
            known_hosts=machine.config.known_hosts, python=machine.config.python, workdir=str(folder / "work"),
        )  # fmt: skip
        running = []
        try:
            for name, *arguments in commands:
                with (folder / f"{name}.log").open("wb") as log:
                    argv = [program(name), *arguments]
                    running.append(subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log))
                eventually(
                    config, "places" if name == "coordinator" else "resources", "" if len(running) == 1 else "shelf"
                )
            for command in (["create"], ["add-match", "host/shelf/*"]):
                made = client(config, *command)
                assert made.returncode == 0, made.stderr
            yield replace(config)
        finally:
            for process in running[::-1]:
                process.terminate()
                process.wait(timeout=10)


def eventually(config: BoardConfig, action: str, wanted: str) -> None:
    """Until the client answers so."""
    deadline = time.monotonic() + START_S
    while True:
        said = client(config, action)
        if said.returncode == 0 and wanted in said.stdout:
            return
        assert time.monotonic() < deadline, said.stderr
        time.sleep(0.1)
