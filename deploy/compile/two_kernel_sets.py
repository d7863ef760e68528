"""A program: run a .tflite file of one image on LiteRT's XNNPACK and reference kernels, keep both sets of outputs.

    python two_kernel_sets.py MODEL.tflite OUT.npz [SIZE ...] -- INPUT.bin ...

The sizes are the input's where they are not those of the file. OUT has `xnnpack_0_0`, `reference_0_0`, ... by input and
output. It runs as a file, and imports nothing of ours. The runtime writes to stderr, and a model that crashes it ends
this process alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

KERNELS = {"xnnpack": OpResolverType.AUTO, "reference": OpResolverType.BUILTIN_REF}


def outputs(
    content: bytes, sources: list[bytes], shape: list[int], kernels: OpResolverType
) -> Iterator[list[NDArray[np.generic]]]:
    """The outputs for the bytes of the one input, one after the other."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    if shape:
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    for data in sources:
        interpreter.set_tensor(detail["index"], np.frombuffer(data, detail["dtype"]).reshape(detail["shape"]))
        interpreter.invoke()
        yield [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def main(model: str, out: str, *words: str) -> None:
    between = words.index("--")
    sources = [Path(path).read_bytes() for path in words[between + 1 :]]
    content, shape = Path(model).read_bytes(), [int(size) for size in words[:between]]
    found: dict[str, Any] = {
        f"{name}_{number}_{i}": output
        for name, kernels in KERNELS.items()
        for number, answer in enumerate(outputs(content, sources, shape, kernels))
        for i, output in enumerate(answer)
    }
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
