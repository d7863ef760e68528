"""A program: run a .tflite file of one image on LiteRT's XNNPACK and reference kernels, keep both sets of outputs.

    python two_kernel_sets.py MODEL.tflite INPUT.bin OUT.npz [SIZE ...]

The sizes are the input's where they are not those of the file. OUT has `xnnpack_0`, `reference_0`, ... for each output.
It runs as a file, and imports nothing of ours. The runtime writes to stderr, and a model that crashes it ends this
process alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

KERNELS = {"xnnpack": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}


def outputs(content: bytes, data: bytes, shape: list[int], kernels: OpResolverType) -> list[NDArray[np.generic]]:
    """The outputs for the bytes of the one input."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    if shape:
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], np.frombuffer(data, detail["dtype"]).reshape(detail["shape"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def main(model: str, source: str, out: str, *sizes: str) -> None:
    content, data, shape = Path(model).read_bytes(), Path(source).read_bytes(), [int(size) for size in sizes]
    found: dict[str, Any] = {
        f"{name}_{i}": output
        for name, kernels in KERNELS.items()
        for i, output in enumerate(outputs(content, data, shape, kernels))
    }
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
