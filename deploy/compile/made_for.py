"""For which hardware the golden output of an imported network's file was made, and what to do on other hardware."""

from __future__ import annotations

from pathlib import Path

from deploy.formats.tflite.read import read
from deploy.targets.inspection import inspect_model
from hil.boards.config import BoardConfig

MADE_FOR = "target"
"""The key in the metadata of an imported network's file: the target whose arithmetic gave its golden output, where that
is not a CPU's."""
NPU = "imx8mp-vx"  # of a board that names no target


def other_arithmetic(model: Path, board: BoardConfig) -> str:
    """What to do where the golden output of an imported network's file is of other hardware than the board; or ""."""
    found = inspect_model(read(model)).hilnas or {}
    if not str(found.get("scheme", "")).startswith("tensor uint8"):
        return ""  # int8 is the same under all arithmetics
    made_for = found.get(MADE_FOR)
    if board.delegate and not made_for:
        return (
            "the golden pair was made for a CPU, whose uint8 rounds otherwise than an NPU's: make it again with "
            f"`hilnas quantize --target {board.target or NPU}`"
        )
    if made_for and not board.delegate:
        return f"the golden pair was made for {made_for}, and this board has no delegate: quantize without --target"
    return ""
