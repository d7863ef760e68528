"""Loopback boards and jobs for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hil.boards.config import BoardConfig
from hil.boards.loopback import find_sshd
from hil.measure import Job
from tests.hil import tiny_model

SERVERS = [
    pytest.param("sshd", id="loopback-sshd", marks=pytest.mark.system),
    pytest.param("asyncssh", id="loopback-asyncssh"),
]


def loopback(server: str = "auto", **settings: object) -> BoardConfig:
    if server == "sshd" and find_sshd() is None:
        pytest.skip("no sshd here: apt install openssh-server")
    return BoardConfig(name="bench", kind="loopback", server=server, **settings)  # type: ignore[arg-type]


def add_job(folder: Path, constant: int, *, wrong: int = 0) -> Job:
    """y = x + constant with its golden files, `wrong` elements of which are off by one."""
    given = np.random.default_rng(constant).integers(-100, 100, tiny_model.SHAPE, dtype=np.int8)
    wanted = (given + constant).astype(np.int8)
    wanted.reshape(-1)[:wrong] += 1
    (folder / f"x{constant}").write_bytes(given.tobytes())
    (folder / f"y{constant}-{wrong}").write_bytes(wanted.tobytes())
    model = tiny_model.int8_add(folder / f"add{constant}.tflite", constant=constant)
    return Job(model, f"add{constant}", folder / f"x{constant}", folder / f"y{constant}-{wrong}")
