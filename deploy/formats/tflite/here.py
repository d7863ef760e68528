"""A .tflite file run by this machine's runtime, in this process: for files that this kit wrote itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

STDERR = 2


class RunHere:
    """The file of these bytes, with one input, on one thread."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _without_notes():
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        (self._source,), self._sinks = self._interpreter.get_input_details(), self._interpreter.get_output_details()

    def outputs(self, data: bytes) -> bytes:
        """Of all outputs, one after the other, for the raw bytes of the input."""
        values = np.frombuffer(data, self._source["dtype"]).reshape(self._source["shape"])
        self._interpreter.set_tensor(self._source["index"], values)
        self._interpreter.invoke()
        found = [self._interpreter.get_tensor(sink["index"]) for sink in self._sinks]
        return b"".join(np.ascontiguousarray(output).tobytes() for output in found)


@contextmanager
def _without_notes() -> Iterator[None]:
    """The runtime writes to stderr, past Python, that it found a delegate."""
    kept, nowhere = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)
        os.close(nowhere)
