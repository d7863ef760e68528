"""How far two kernel sets are apart on a full network: LiteRT's on this machine, for whatever runs it elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from deploy.formats.tflite.read import read
from hil.errors import ModelError
from hil.spread import KernelSpread

PROGRAM = Path(__file__).with_name("two_kernel_sets.py")
DEADLINE_S = 600.0
IMAGE_CHANNELS = 3


def kernel_spread(model: Path, source: Path) -> KernelSpread | None:
    """Of a .tflite file and the bytes of its input; None where that is no image, and so the file no full network.

    None too where this runtime cannot run the file at the sizes that it states.
    """
    return _computed(model, source, (model.stat().st_mtime_ns, source.stat().st_mtime_ns))


@lru_cache(maxsize=256)
def _computed(model: Path, source: Path, _written_ns: tuple[int, int]) -> KernelSpread | None:
    """Once per file: every round of measuring asks."""
    program = [sys.executable, "-P", str(PROGRAM), str(model), str(source)]
    try:
        if not _reads_an_image(model):
            return None
        done = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    except (ModelError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return KernelSpread(**json.loads(done.stdout))


def _reads_an_image(model: Path) -> bool:
    """By the file alone, so that blocks cost no run."""
    info = read(model)
    shapes = [info.tensors[index].shape for index in info.inputs]
    return len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] == IMAGE_CHANNELS
