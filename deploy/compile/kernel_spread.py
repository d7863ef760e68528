"""How far two kernel sets are apart on a full network: LiteRT's on this machine, for whatever runs it elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploy.compile.tails import class_map_of, classes_of
from deploy.formats.tflite.read import read
from hil.errors import ModelError
from hil.input_shape import InputShape
from hil.spread import KernelSpread
from nas.quant.tails import Sizes

PROGRAM = Path(__file__).with_name("two_kernel_sets.py")
DEADLINE_S = 600.0
IMAGE_CHANNELS = 3
Outputs: TypeAlias = list[NDArray[np.generic]]


def kernel_spread(model: Path, source: Path, shapes: tuple[InputShape, ...] = ()) -> KernelSpread | None:
    """Of a .tflite file and the bytes of its input; None where that is no image, and so the file no full network.

    Of one that leaves its class map to the CPU it is the map's. `shapes`: of its inputs where they are not those of the
    file. None too where this runtime cannot run the file at these sizes.
    """
    found = each_kernel_spread(model, (source,), shapes)
    return found[0] if found else None


def each_kernel_spread(
    model: Path, sources: tuple[Path, ...], shapes: tuple[InputShape, ...] = ()
) -> tuple[KernelSpread, ...]:
    """Of each of several inputs; none where `kernel_spread` has none of one."""
    return _computed(model, sources, shapes, tuple(path.stat().st_mtime_ns for path in (model, *sources)))


@lru_cache(maxsize=256)
def _computed(
    model: Path, sources: tuple[Path, ...], shapes: tuple[InputShape, ...], _written_ns: tuple[int, ...]
) -> tuple[KernelSpread, ...]:
    """Once per file: every round of measuring asks."""
    try:
        read_by = [entry.shape for entry in shapes] or _inputs(model)
        if len(read_by) != 1 or len(read_by[0]) != 4 or read_by[0][3] != IMAGE_CHANNELS:
            return ()  # by the shape alone, so that blocks cost no run
        left = class_map_of(model)
        return tuple(_apart(*pair, left) for pair in _answers(model, sources, read_by[0] if shapes else ()))
    except (ModelError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return ()


def _apart(fast: Outputs, slow: Outputs, left: Sizes | None) -> KernelSpread:
    if left is not None:
        fast, slow = [classes_of(fast[0], left)], [classes_of(slow[0], left)]
    apart = np.concatenate([np.abs(a.astype(float) - b.astype(float)).ravel() for a, b in zip(fast, slow, strict=True)])
    classes = any(output.dtype in (np.int32, np.int64) for output in fast)
    return KernelSpread(float(np.mean(apart != 0)), None if classes else float(apart.max(initial=0)))


def _answers(model: Path, sources: Sequence[Path], shape: Sequence[int]) -> list[tuple[Outputs, Outputs]]:
    """By input the file's outputs by XNNPACK and by the reference kernels, from a process of its own."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "outputs.npz"
        program = [sys.executable, "-P", str(PROGRAM), str(model), str(out), *map(str, shape), "--", *map(str, sources)]
        subprocess.run(program, capture_output=True, timeout=DEADLINE_S * len(sources), check=True)
        with np.load(out, allow_pickle=False) as found:
            count = len(found.files) // (2 * len(sources))
            return [
                (
                    [found[f"xnnpack_{number}_{i}"] for i in range(count)],
                    [found[f"reference_{number}_{i}"] for i in range(count)],
                )
                for number in range(len(sources))
            ]


def _inputs(model: Path) -> list[Sequence[int]]:
    info = read(model)
    return [info.tensors[index].shape for index in info.inputs]
