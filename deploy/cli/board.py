"""`hilnas board ...`: the boards of boards.toml, their health, who has them, their power."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.cli import console
from hil.boards.catalog import all_boards, find_board
from hil.boards.config import BoardConfig, open_board, trust
from hil.errors import BoardError, ModelError, UsageError

if TYPE_CHECKING:
    from hil.boards.board import Board

Arguments = argparse.Namespace
OF_ITS_OWN = ("loopback", "qemu", "replay")  # kinds without a machine that others could want too


def run(arguments: Arguments) -> int:
    if arguments.action == "list":
        return _list(arguments)
    if arguments.action == "qemu":
        return _qemu(arguments)
    config = find_board(arguments.boards, arguments.name)
    if arguments.action == "check":
        return _check(config, arguments.json)
    if arguments.action == "trust":
        console.say(f"pinned {trust(config)} for {config.name}: compare it with the one on the board's own console")
    elif arguments.action == "power":
        _power(config, arguments.switch)
    else:
        _reservation(config, arguments)
    return 0


def _list(arguments: Arguments) -> int:
    for config in all_boards(arguments.boards).values():
        console.board(config, _who_has(config) if arguments.probe else "")
    return 0


def _who_has(config: BoardConfig) -> str:
    """In words; for a board that does not answer, why not."""
    from hil.reservation import occupancy

    if config.kind in OF_ITS_OWN and not config.workdir:
        return "free"
    try:
        with open_board(config) as board:
            return str(occupancy(board))
    except (BoardError, UsageError) as error:
        return f"not known: {error}"


def _check(config: BoardConfig, as_json: bool) -> int:
    from deploy.cli.doctor import MODEL, check_board

    findings = []
    for finding in check_board(config):
        findings.append(finding)
        if not as_json:
            console.finding(finding)
    if as_json:
        print(json.dumps({"board": config.name, "findings": [finding.to_json() for finding in findings]}, indent=1))
    failed = [finding for finding in findings if finding.state == "failed"]
    if failed:
        kind = ModelError if failed[0].check == MODEL else BoardError
        said = str(failed[0]).removeprefix(f"board {config.name}: ")
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise kind(f"board {config.name}: {said}{more}")
    return 0


def _qemu(arguments: Arguments) -> int:
    from hil.boards import qemu
    from hil.boards.qemu_image import build, default_folder, find_image

    folder = arguments.dir.resolve() if arguments.dir else default_folder()
    begin = time.monotonic()
    if arguments.step == "build":
        for step in build(folder):
            console.say(step)
        size_mb, seconds = find_image(folder).size_bytes() / 1e6, time.monotonic() - begin
        console.say(f"{folder}: {size_mb:.0f} MB, ready after {seconds:.0f} s")
    elif arguments.step == "start":
        machine = qemu.start(folder)
        console.say(f"it answers after {time.monotonic() - begin:.0f} s and runs until `hilnas board qemu stop`")
        options = f"-i {machine.key} -o UserKnownHostsFile={machine.known_hosts} -p {machine.port}"
        console.say(f"ssh {options} root@127.0.0.1")
    else:
        qemu.stop(folder)
        console.say("it is off, and its disk forgotten")
    return 0


def _power(config: BoardConfig, action: str) -> None:
    from hil.boards.power import switch

    if config.kind == "labgrid":
        with open_board(config) as board:  # the place's own power hook
            switch(board.config, action)
    else:
        switch(config, action)
    console.say(f"{config.name}: power {action}")


def _reservation(config: BoardConfig, arguments: Arguments) -> None:
    from hil.reservation import release, reserve, seconds_of

    if arguments.action == "reserve":
        seconds = seconds_of(arguments.for_)
        with _shared(config) as board:
            console.say(f"{config.name}: {reserve(board, seconds, arguments.note)}")
        return
    with _shared(config) as board:
        release(board, force=arguments.force)
    console.say(f"{config.name}: released")


@contextmanager
def _shared(config: BoardConfig) -> Iterator[Board]:
    """A board that outlives this command."""
    if config.kind in OF_ITS_OWN and not config.workdir:
        raise UsageError(f"board {config.name} is a {config.kind}, nobody's but ours: there is nothing to reserve")
    with open_board(config) as board:
        yield board
