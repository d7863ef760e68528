"""How far two kernel sets are apart on a full network: LiteRT's on this machine, for whatever runs it elsewhere."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.compile.tails import class_map_of, classes_of
from hil.spread import KernelSpread

IMAGE_CHANNELS = 3


def kernel_spread(model: Path, source: Path) -> KernelSpread | None:
    """Of a .tflite file and the bytes of its input; None where that is no image, and so the file no full network.

    Of one that leaves its class map to the CPU it is the map's. None too where this runtime cannot run the file at
    the sizes that it states.
    """
    return _computed(model, source, (model.stat().st_mtime_ns, source.stat().st_mtime_ns))


@lru_cache(maxsize=256)
def _computed(model: Path, source: Path, _written_ns: tuple[int, int]) -> KernelSpread | None:
    """Once per file: every round of measuring asks."""
    from ai_edge_litert.interpreter import OpResolverType

    content, data = model.read_bytes(), source.read_bytes()
    try:
        fast = _outputs(content, data, OpResolverType.AUTO)
        slow = _outputs(content, data, OpResolverType.BUILTIN_REF)
    except (RuntimeError, ValueError):
        return None
    if not fast:
        return None
    left = class_map_of(model)
    if left is not None:
        fast, slow = [classes_of(fast[0], left)], [classes_of(slow[0], left)]
    apart = np.concatenate([np.abs(a.astype(float) - b.astype(float)).ravel() for a, b in zip(fast, slow, strict=True)])
    labels = any(output.dtype in (np.int32, np.int64) for output in fast)
    return KernelSpread(float(np.mean(apart != 0)), None if labels else float(apart.max(initial=0)))


def _outputs(content: bytes, data: bytes, kernels: object) -> list[NDArray[np.generic]]:
    """The outputs for these bytes; none where the one input is no image."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    first, *others = interpreter.get_input_details()
    shape, dtype = [int(size) for size in first["shape"]], np.dtype(first["dtype"])
    if others or len(shape) != 4 or shape[3] != IMAGE_CHANNELS or math.prod(shape) * dtype.itemsize != len(data):
        return []
    interpreter.allocate_tensors()
    interpreter.set_tensor(first["index"], np.frombuffer(data, dtype).reshape(shape))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
