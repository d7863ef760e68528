"""A runner over pipes, and a model with golden files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.board_scripts.script_programs import Runner
from tests.hil import tiny_model


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    started = Runner(tmp_path / "runner.pyz")
    yield started
    if started.process.poll() is None:
        started.close()


@pytest.fixture
def golden(tmp_path: Path) -> Callable[..., tuple[Path, Path, Path]]:
    """Makes model, input and expected output of y = x + 3, `wrong` elements of it off by `by`."""

    def make(wrong: int = 0, by: int = 1) -> tuple[Path, Path, Path]:
        given = np.random.default_rng(0).integers(-100, 100, tiny_model.SHAPE, dtype=np.int8)
        wanted = given + np.int8(3)
        wanted.reshape(-1)[:wrong] += np.int8(by)
        (tmp_path / "input.bin").write_bytes(given.tobytes())
        (tmp_path / "expected.bin").write_bytes(wanted.tobytes())
        return tiny_model.int8_add(tmp_path / "add.tflite"), tmp_path / "input.bin", tmp_path / "expected.bin"

    return make
