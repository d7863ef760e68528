"""Power lost while a bundle is installed on an emulated board: what its kernel had not written to the disk is gone.

By default 3 losses; HILNAS_KILLS=30 is the whole of it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.ship.install import InstallFolder, current, installed
from deploy.ship.verification import identity, verify_there
from hil.boards import qemu
from hil.boards.kinds import open_board
from hil.boards.qemu import QemuBoard
from hil.errors import BoardError
from hil.sessions import open_session
from tests.deploy.ship.small_bundles import small_bundle
from tests.hil.measuring_benches import settings_of

LOSSES = int(os.environ.get("HILNAS_KILLS", "3"))
TO = "/opt/model"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[QemuBoard]:
    """Nobody switches it on again by itself."""
    with settings_of("qemu", tmp_path / "qemu") as config, open_board(config) as opened:
        assert isinstance(opened, QemuBoard)
        opened.config = replace(opened.config, power=())
        yield opened


def power_again(board: QemuBoard) -> None:
    board.machine.off()
    board.machine.on()
    qemu.wait_for_ssh(board.machine)


@pytest.mark.qemu
def test_power_lost_at_any_moment_leaves_the_old_bundle_or_the_new_one(board: QemuBoard, tmp_path: Path) -> None:
    rng = random.Random(0)
    bundles = [small_bundle(tmp_path / f"bundle{number}", 3 + number, pairs=2) for number in range(2)]
    with open_session(board) as session:
        folder = InstallFolder(board, TO, session.conditions)
    folder.install(bundles[0])
    begun = time.monotonic()
    folder.install(bundles[1])
    length_s, before = time.monotonic() - begun, identity(bundles[1])
    switched = 0
    for number in range(LOSSES):
        cut = threading.Timer(rng.uniform(0.3, 1.05) * length_s, board.machine.off)
        cut.start()
        with suppress(BoardError):  # where the power went first
            folder.install(bundles[number % 2])
        cut.join()
        power_again(board)
        releases = installed(board, TO)
        now = current(releases)
        assert now is not None and now.identity in (before, identity(bundles[number % 2])), releases
        for release in releases:
            verify_there(
                board, f"{TO}/releases/{release.folder}", release.identity, f"{release.folder}, loss {number}", 1
            )
        before, switched = now.identity, switched + (now.identity != before)
    assert 0 < switched < LOSSES or LOSSES < 10  # some came before the switch, some after it
    assert identity(bundles[0]) == folder.install(bundles[0]).release.identity
