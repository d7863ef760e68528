"""What tests of failing commands share: exit codes, paths, and ways to damage a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.deploy.tiny_experiment import REPOSITORY, record

BOARDS = str(REPOSITORY / "boards.toml")
SUBNET = "b1_k3e2_w8.tflite"
USAGE, BOARD, MODEL = 2, 3, 4

Fails = Callable[..., None]


def profile(tmp_path: Path, model: Path, boards: str = BOARDS, board: str = "loopback") -> list[Any]:
    """A short `hilnas profile`."""
    store = tmp_path / "store.sqlite"
    return ["profile", model, "--boards", boards, "--board", board, "--store", store, "--runs", 2, "--rounds", 1]


def changed(path: Path, change: Callable[[Any], object]) -> None:
    """Edit a JSON file."""
    content = record(path)
    change(content)
    path.write_text(json.dumps(content))


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
