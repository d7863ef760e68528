"""A program: run a .tflite file of one image on LiteRT's XNNPACK and reference kernels, print how far they are apart.

    python two_kernel_sets.py MODEL.tflite INPUT.bin

Prints {"share", "max_abs_diff"} as `hil.spread.KernelSpread` has them. It runs as a file, and imports nothing of ours.
The runtime writes to stderr, and a model that crashes it ends this process alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray


def outputs(content: bytes, data: bytes, kernels: OpResolverType) -> list[NDArray[np.generic]]:
    """The outputs for the bytes of the one input."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (detail,) = interpreter.get_input_details()
    interpreter.set_tensor(detail["index"], np.frombuffer(data, detail["dtype"]).reshape(detail["shape"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def main(model: Path, source: Path) -> None:
    content, data = model.read_bytes(), source.read_bytes()
    fast = outputs(content, data, OpResolverType.AUTO)
    slow = outputs(content, data, OpResolverType.BUILTIN_REF)
    apart = np.concatenate([np.abs(a.astype(float) - b.astype(float)).ravel() for a, b in zip(fast, slow, strict=True)])
    classes = any(output.dtype in (np.int32, np.int64) for output in fast)
    most = None if classes else float(apart.max(initial=0))
    print(json.dumps({"share": float(np.mean(apart != 0)), "max_abs_diff": most}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
