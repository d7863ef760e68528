"""A stand-in for the i.MX8M Plus NPU: this machine's runtime, with a delegate that rounds uint8 as that NPU does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, load_delegate
from numpy.typing import NDArray

from hil.boards.config import BoardConfig


def npu_delegate(factory: pytest.TempPathFactory) -> Path:
    """The delegate's library, built once per session."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here: apt install gcc libc6-dev")
    library = factory.getbasetemp() / "libnpu_rounding.so"
    if not library.exists():
        source = Path(__file__).with_name("npu_rounding.c")
        command = ["cc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-lm"]
        subprocess.run(command, check=True, timeout=60)
    return library


def npu_board(library: Path) -> BoardConfig:
    """A board whose outputs have to be exact. int8 files, which XNNPACK rounds as the NPU does, fall back to it."""
    return BoardConfig("npu", "loopback", server="asyncssh", delegate=str(library), allow_fallback=True)


def answer_of_npu(library: Path, content: bytes, q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the stand-in answers to one input (1, H, W, C)."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_delegates=[load_delegate(library)])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], q)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
