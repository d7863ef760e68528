"""How far two kernel sets are apart on a full network: LiteRT's on this machine, for whatever runs it elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from deploy.compile.tails import class_map_of, classes_of
from deploy.formats.tflite.read import read
from hil.errors import ModelError
from hil.input_shape import InputShape
from hil.spread import KernelSpread

PROGRAM = Path(__file__).with_name("two_kernel_sets.py")
DEADLINE_S = 600.0
IMAGE_CHANNELS = 3


def kernel_spread(model: Path, source: Path, shapes: tuple[InputShape, ...] = ()) -> KernelSpread | None:
    """Of a .tflite file and the bytes of its input; None where that is no image, and so the file no full network.

    Of one that leaves its class map to the CPU it is the map's. `shapes`: of its inputs where they are not those of the
    file. None too where this runtime cannot run the file at these sizes.
    """
    return _computed(model, source, shapes, (model.stat().st_mtime_ns, source.stat().st_mtime_ns))


@lru_cache(maxsize=256)
def _computed(
    model: Path, source: Path, shapes: tuple[InputShape, ...], _written_ns: tuple[int, int]
) -> KernelSpread | None:
    """Once per file: every round of measuring asks."""
    try:
        read_by = [entry.shape for entry in shapes] or _inputs(model)
        if len(read_by) != 1 or len(read_by[0]) != 4 or read_by[0][3] != IMAGE_CHANNELS:
            return None  # by the shape alone, so that blocks cost no run
        fast, slow = _answers(model, source, read_by[0] if shapes else ())
        left = class_map_of(model)
    except (ModelError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    if left is not None:
        fast, slow = [classes_of(fast[0], left)], [classes_of(slow[0], left)]
    apart = np.concatenate([np.abs(a.astype(float) - b.astype(float)).ravel() for a, b in zip(fast, slow, strict=True)])
    classes = any(output.dtype in (np.int32, np.int64) for output in fast)
    return KernelSpread(float(np.mean(apart != 0)), None if classes else float(apart.max(initial=0)))


def _answers(
    model: Path, source: Path, shape: Sequence[int]
) -> tuple[list[NDArray[np.generic]], list[NDArray[np.generic]]]:
    """The file's outputs by XNNPACK and by the reference kernels, from a process of its own."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "outputs.npz"
        program = [sys.executable, "-P", str(PROGRAM), str(model), str(source), str(out), *map(str, shape)]
        subprocess.run(program, capture_output=True, timeout=DEADLINE_S, check=True)
        with np.load(out, allow_pickle=False) as found:
            count = len(found.files) // 2
            xnnpack, reference = (
                [found[f"{kernels}_{i}"] for i in range(count)] for kernels in ("xnnpack", "reference")
            )
    return xnnpack, reference


def _inputs(model: Path) -> list[Sequence[int]]:
    info = read(model)
    return [info.tensors[index].shape for index in info.inputs]
