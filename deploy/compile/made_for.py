"""For which hardware the golden output of an imported network's file was made, and what to do on other hardware."""

from __future__ import annotations

from pathlib import Path

from deploy.formats.tflite.read import read
from deploy.targets.inspection import inspect_model
from hil.boards.config import BoardConfig

MADE_FOR = "target"
"""The key in the metadata of an imported network's file: whose arithmetic its golden output is of; none: a CPU's."""
NPU = "imx8mp-vx"  # of a board that names no target


def other_arithmetic(model: Path, board: BoardConfig) -> str:
    """What to do where the golden output of an imported network's file is of other hardware than the board; or ""."""
    found = inspect_model(read(model)).hilnas or {}
    if not str(found.get("scheme", "")).startswith("tensor uint8"):
        return ""  # int8 is the same under all arithmetics
    made_for, target = found.get(MADE_FOR), board.target or NPU
    if board.delegate and made_for != target:
        return (
            f"the golden pair was made for {made_for or 'a CPU'}, whose uint8 rounds otherwise than an NPU's: make it "
            f"again with `hilnas quantize --target {target}`"
        )
    if made_for and not board.delegate:
        return f"the golden pair was made for {made_for}, and this board has no delegate: quantize without --target"
    return ""
