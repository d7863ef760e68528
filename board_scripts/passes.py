"""A model's memory, its layers and its outputs, each in a separate pass, beside the timed run. Called in a child.

Needs Python 3.9, numpy and a TFLite runtime, nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import Any

from board_scripts.interpret import (
    MachineFault,
    cool_down,
    make_inputs,
    make_interpreter,
    parts_of,
    read_file,
    read_outputs,
    use_graph_cache,
)
from board_scripts.timing import timed

PASSES = ("time", "memory", "layers", "outputs")
VENDOR_LOG = {"CNN_PERF": "1", "VIV_VX_DEBUG_LEVEL": "1"}  # VeriSilicon's driver then prints the time of each layer
TEXT_BYTES = 256 << 10
LEFT_OUT = "[... left out here: %d bytes ...]"


def clip(text: bytes, limit: int = TEXT_BYTES, lost: int = 0) -> str:
    """Its beginning and its end where it is longer than the limit, with a line in place of the middle.

    `lost`: bytes that the caller has cut out of the middle already, of a text no shorter than the limit.
    """
    if lost or len(text) > limit:
        cut = (LEFT_OUT % (len(text) - limit + lost)).encode()
        text = b"\n".join([text[: limit // 2], cut, text[len(text) - limit // 2 :]])
    return text.decode("utf-8", "replace")


def kilobytes(path: str, key: str) -> int | None:
    """The value of a line `key: N kB`; None where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1])
    return None


def digest_of(path: str) -> str:
    return hashlib.sha256(read_file(path)).hexdigest()


def prepared(runtime: Any, job: dict[str, Any]) -> Any:
    """An interpreter with its inputs set."""
    import numpy

    data = read_file(job["input"]) if job.get("input") else None
    interpreter, _ = make_interpreter(runtime, job)
    interpreter.allocate_tensors()
    for index, array in make_inputs(numpy, interpreter, data):
        interpreter.set_tensor(index, array)
    return interpreter


def run_memory(runtime: Any, job: dict[str, Any], mark: Callable[[str], None]) -> dict[str, Any]:
    """The child's resident peak (kB) before loading and after two inferences, and by how much the CMA shrank (kB)."""
    import numpy  # noqa: F401 - its own pages belong to neither

    proc, digest = job.get("proc", "/proc"), digest_of(job["model"])
    status, meminfo = f"{proc}/self/status", f"{proc}/meminfo"
    use_graph_cache(job)
    with contextlib.suppress(OSError), open(f"{proc}/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the peak so far was of reading the file
    before_kb, cma_kb = kilobytes(status, "VmHWM"), kilobytes(meminfo, "CmaFree")
    interpreter = prepared(runtime, job)
    loaded_kb = kilobytes(status, "VmHWM")
    mark("first")
    interpreter.invoke()
    mark("run")
    interpreter.invoke()
    free_kb = kilobytes(meminfo, "CmaFree")
    return {
        "model_sha256": digest,
        "before_kb": before_kb,
        "loaded_kb": loaded_kb,
        "peak_kb": kilobytes(status, "VmHWM"),
        "cma_kb": None if cma_kb is None or free_kb is None else max(0, cma_kb - free_kb),
    }


def run_layers(runtime: Any, job: dict[str, Any], mark: Callable[[str], None]) -> dict[str, Any]:
    """What the driver's library printed during one steady inference."""
    digest = digest_of(job["model"])
    os.environ.update(VENDOR_LOG)
    use_graph_cache(job)
    libc = ctypes.CDLL(None)
    with tempfile.TemporaryFile() as log:
        fcntl.fcntl(log, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied under its writers; no mode sets this
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        interpreter = prepared(runtime, job)
        mark("first")
        interpreter.invoke()
        libc.fflush(None)
        os.ftruncate(log.fileno(), 0)  # the first inference verifies and compiles
        mark("run")
        interpreter.invoke()
        libc.fflush(None)
        log.seek(0)
        return {"model_sha256": digest, "log": clip(log.read())}


def run_outputs(runtime: Any, job: dict[str, Any], mark: Callable[[str], None]) -> dict[str, Any]:
    """The outputs for each of `runs` inputs, which the input file holds one after the other, and each one's time.

    Each input has the deadline of the steady runs.
    """
    import numpy

    digest, count = digest_of(job["model"]), job["runs"]
    if not job.get("input"):
        raise MachineFault("the pass 'outputs' was asked for without an input")
    content = read_file(job["input"])
    use_graph_cache(job)
    begin = time.monotonic_ns()
    interpreter, delegated = make_interpreter(runtime, job)
    interpreter.allocate_tensors()
    load_us = (time.monotonic_ns() - begin) // 1000
    size, left = divmod(len(content), count)
    if left or not size:
        raise ValueError(f"input file has {len(content)} bytes, which are no {count} inputs of one size")
    mark("first")
    outputs: list[bytes] = []
    invoke_us: list[int] = []
    for start in range(0, len(content), size):
        for index, array in make_inputs(numpy, interpreter, content[start : start + size]):
            interpreter.set_tensor(index, array)
        if len(invoke_us) == 1:
            mark("cool")
            cool_down(job, job.get("sys", "/sys"))
        if invoke_us:
            mark("run")  # its deadline begins anew
        invoke_us.append(timed(interpreter.invoke) // 1000)
        arrays = read_outputs(numpy, interpreter)
        outputs.append(b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays))
    return {
        "model_sha256": digest,
        "load_us": load_us,
        "invoke_us": invoke_us,
        "sizes": [len(output) for output in outputs],
        "outputs": base64.b64encode(zlib.compress(b"".join(outputs), 1)).decode("ascii"),
        "delegated_nodes": len(parts_of(delegated or [])),
    }
