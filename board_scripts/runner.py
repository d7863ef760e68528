"""Runs models on the board: one JSON job a line on stdin, one JSON answer a line on stdout, talk on stderr.

Needs Python 3.9, numpy and a TFLite runtime, nothing else. The runtime is imported once; every job runs in a
forked child in its own process group, so a crash or a hang costs that child and nothing more.

Job:    {"id", "model", "input"?, "expected"?, "warmup_runs", "runs", "threads", "kernels", "delegate"?,
         "delegate_options"?, "compile_deadline_s", "run_deadline_s"}
Answer: {"id", "ok": true, "load_us", "first_us", "latencies_us", "parity", "operators", "delegated_nodes"}
   or   {"id", "ok": false, "failure": {"kind": "model" | "board" | "harness", "stage", "reason"}}

The first line that it writes is {"ready": true, "runtime"} or {"ready": false, "reason"}. Input and expected
files hold the tensors' raw little-endian bytes, one after the other. Ends when stdin does.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would not survive the fork

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")
RESOLVERS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
REQUIRED = (
    "id",
    "model",
    "warmup_runs",
    "runs",
    "threads",
    "kernels",
    "compile_deadline_s",
    "run_deadline_s",
)
PR_SET_PDEATHSIG = 1
STAGES = {"load": "loading the model", "first": "its first inference", "run": "its steady runs"}


def write_line(fd: int, record: dict[str, Any]) -> None:
    data = (json.dumps(record) + "\n").encode()
    while data:
        data = data[os.write(fd, data) :]


class BoardFault(Exception):  # noqa: N818
    """Something on the board is missing or refuses: not the model's fault."""


def import_runtime() -> Any:
    """The first TFLite runtime that this Python has. Raises ImportError naming what was tried."""
    tried = []
    for name in RUNTIMES:
        try:
            module = importlib.import_module(name)
            # tensorflow keeps these two in submodules
            return module if hasattr(module, "load_delegate") else _tensorflow(module)
        except ImportError as error:
            tried.append(f"{name}: {error}")
    raise ImportError("no TFLite runtime: " + "; ".join(tried))


def _tensorflow(lite: Any) -> Any:
    lite.load_delegate = lite.experimental.load_delegate
    lite.OpResolverType = lite.experimental.OpResolverType
    return lite


# --- in the child -------------------------------------------------------------------------------------------


def read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        raise BoardFault(f"cannot read {path}: {error.strerror}") from error


def make_interpreter(runtime: Any, job: dict[str, Any]) -> tuple[Any, int | None]:
    """(interpreter, number of parts that the configured delegate took, or None without one)."""
    delegates = None
    if job.get("delegate"):
        try:
            delegates = [runtime.load_delegate(job["delegate"], job.get("delegate_options") or {})]
        except (OSError, ValueError) as error:
            raise BoardFault(f"cannot load delegate {job['delegate']}: {error}") from error
    interpreter = runtime.Interpreter(
        model_path=job["model"],
        num_threads=job["threads"],
        experimental_delegates=delegates,
        experimental_op_resolver_type=getattr(runtime.OpResolverType, RESOLVERS[job["kernels"]]),
    )
    # XNNPACK takes what is left when tensors are allocated, so what the delegate took is counted before
    return interpreter, count_delegated(interpreter) if delegates else None


def node_names(interpreter: Any) -> list[str]:
    details = getattr(interpreter, "_get_ops_details", None)
    return [str(node["op_name"]) for node in details()] if details else []


def count_delegated(interpreter: Any) -> int:
    return node_names(interpreter).count("DELEGATE")


def make_inputs(numpy: Any, interpreter: Any, data: bytes | None) -> list[tuple[int, Any]]:
    """[(tensor index, array)] from raw bytes, or random ones that fit. Raises ValueError."""
    rng, inputs, used = numpy.random.default_rng(0), [], 0
    for detail in interpreter.get_input_details():
        dtype, shape = numpy.dtype(detail["dtype"]), tuple(detail["shape"])
        count = int(numpy.prod(shape))
        if data is not None:
            part = data[used : used + count * dtype.itemsize]
            used += len(part)
            if len(part) < count * dtype.itemsize:
                raise ValueError(f"input file has {len(data)} bytes, fewer than {detail['name']} needs")
            array = numpy.frombuffer(part, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
        elif dtype.kind == "f":
            array = rng.random(shape).astype(dtype)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            span = numpy.iinfo(dtype)
            array = rng.integers(span.min, span.max, size=shape, dtype=dtype, endpoint=True)
        else:
            array = rng.integers(0, 2, size=shape).astype(dtype)  # an index must stay within its table
        inputs.append((detail["index"], array))
    if data is not None and used != len(data):
        raise ValueError(f"input file has {len(data)} bytes, the model reads {used}")
    return inputs


def read_outputs(numpy: Any, interpreter: Any) -> list[Any]:
    outputs = [interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details()]
    for number, output in enumerate(outputs):
        if output.dtype.kind == "f" and numpy.isnan(output).any():
            raise ValueError(f"output {number} holds {int(numpy.isnan(output).sum())} NaN of {output.size} elements")
    return outputs


def compare(numpy: Any, outputs: list[Any], data: bytes | None) -> dict[str, Any]:
    """{"elements", "mismatched": how many differ at all, "max_abs_diff"}; nothing without expected bytes."""
    if data is None:
        return {}
    wanted = sum(output.nbytes for output in outputs)
    if wanted != len(data):
        raise ValueError(f"expected file has {len(data)} bytes, the outputs have {wanted}")
    elements, mismatched, largest, used = 0, 0, 0.0, 0
    for output in outputs:
        expected = numpy.frombuffer(data, output.dtype.newbyteorder("<"), output.size, used).reshape(output.shape)
        wide = numpy.float64 if output.dtype.kind == "f" else numpy.int64
        difference = numpy.abs(output.astype(wide) - expected.astype(wide))
        elements, used = elements + output.size, used + output.nbytes
        mismatched += int((difference != 0).sum())
        largest = max(largest, float(difference.max(initial=0)))
    return {"elements": elements, "mismatched": mismatched, "max_abs_diff": largest}


def timed(call: Callable[[], object]) -> int:
    begin = time.monotonic_ns()
    call()
    return (time.monotonic_ns() - begin) // 1000


def run_job(runtime: Any, job: dict[str, Any], mark: Callable[[str], None]) -> dict[str, Any]:
    """The answer's fields; `mark(stage)` tells the parent how far it is. Raises what the model provokes."""
    import numpy

    read_file(job["model"])  # a missing file is the board's fault, and the page cache is warm now
    data = read_file(job["input"]) if job.get("input") else None
    expected = read_file(job["expected"]) if job.get("expected") else None
    begin = time.monotonic_ns()
    interpreter, delegated = make_interpreter(runtime, job)
    interpreter.allocate_tensors()
    load_us = (time.monotonic_ns() - begin) // 1000
    names = node_names(interpreter)
    for index, array in make_inputs(numpy, interpreter, data):
        interpreter.set_tensor(index, array)
    mark("first")
    first_us = timed(interpreter.invoke)
    mark("run")
    parities = [compare(numpy, read_outputs(numpy, interpreter), expected)]
    for _ in range(job["warmup_runs"]):
        interpreter.invoke()
    latencies_us = [timed(interpreter.invoke) for _ in range(job["runs"])]
    parities.append(compare(numpy, read_outputs(numpy, interpreter), expected))
    return {
        "load_us": load_us,
        "first_us": first_us,
        "latencies_us": latencies_us,
        "parity": max(parities, key=lambda found: int(found["mismatched"])) if expected is not None else None,
        "operators": [name for name in names if name != "DELEGATE"],
        "delegated_nodes": names.count("DELEGATE") if delegated is None else delegated,
    }


def child_main(runtime: Any, job: dict[str, Any], pipe: int) -> NoReturn:
    """Never returns. One JSON line a mark, and a last one with the result."""
    stage = "load"

    def mark(name: str) -> None:
        nonlocal stage
        stage = name
        write_line(pipe, {"mark": name})

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed runner leaves no child behind
    try:
        write_line(pipe, {"result": dict(run_job(runtime, job, mark), ok=True)})
    except BaseException as error:  # whatever it is, the parent must hear it
        kind = "board" if isinstance(error, (BoardFault, MemoryError)) else "model"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        write_line(pipe, {"result": failure(kind, stage, f"failed in {STAGES[stage]}: {reason}")})
    os._exit(0)


# --- in the parent ------------------------------------------------------------------------------------------


def failure(kind: str, stage: str, reason: str) -> dict[str, Any]:
    return {"ok": False, "failure": {"kind": kind, "stage": stage, "reason": reason}}


class Lines:
    """Lines of a file descriptor, read without ever blocking longer than asked."""

    def __init__(self, fd: int) -> None:
        self.fd, self.buffer, self.ended = fd, b"", False

    def fill(self) -> None:
        data = os.read(self.fd, 65536)
        self.ended = not data
        self.buffer += data

    def next(self) -> bytes | None:
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            return None
        self.buffer = rest
        return line


def supervise(runtime: Any, job: dict[str, Any], stdin: Lines) -> dict[str, Any]:
    """Forks the job's child and brings back its answer: a result, a crash or a missed deadline."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(reader)
        child_main(runtime, job, writer)
    os.close(writer)
    with contextlib.suppress(OSError):  # the child was faster
        os.setpgid(pid, pid)
    try:
        return watch(job, Lines(reader), stdin, pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # whatever it forked
        os.close(reader)


def watch(job: dict[str, Any], child: Lines, stdin: Lines, pid: int) -> dict[str, Any]:
    stage, deadline = "load", time.monotonic() + job["compile_deadline_s"]
    while True:
        sources = [child.fd] if stdin.ended else [child.fd, stdin.fd]
        ready = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))[0]
        if stdin.fd in ready:
            stdin.fill()
        if stdin.ended:  # nobody is left to hear the answer
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            sys.exit(0)
        if child.fd in ready:
            child.fill()
        line = child.next()
        while line is not None:
            record = json.loads(line)
            if "result" in record:
                os.waitpid(pid, 0)
                result: dict[str, Any] = record["result"]
                return result
            stage = record["mark"]
            if stage == "run":
                deadline = time.monotonic() + job["run_deadline_s"]
            line = child.next()
        if child.ended:
            return failure("model", stage, f"{ending(os.waitpid(pid, 0)[1])} in {STAGES[stage]}")
        if time.monotonic() >= deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            limit = job["run_deadline_s"] if stage == "run" else job["compile_deadline_s"]
            return failure("model", stage, f"no end of {STAGES[stage]} within {limit:g} s")


def ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"the process ended with status {os.WEXITSTATUS(status)}"


def parse(line: bytes) -> dict[str, Any]:
    """The job in a line. Raises ValueError saying what is wrong with it."""
    job = json.loads(line)
    if not isinstance(job, dict):
        raise ValueError("a job is a JSON object")
    missing = [name for name in REQUIRED if name not in job]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    if job["kernels"] not in RESOLVERS:
        raise ValueError(f"kernels {job['kernels']!r} is none of {', '.join(RESOLVERS)}")
    for name in REQUIRED[2:5]:
        if not isinstance(job[name], int) or job[name] < (0 if name == "warmup_runs" else 1):
            raise ValueError(f"{name} is {job[name]!r}: give a whole number")
    for name in REQUIRED[6:]:
        if not isinstance(job[name], (int, float)) or job[name] <= 0:
            raise ValueError(f"{name} is {job[name]!r}: give seconds")
    return job


def main() -> int:
    # C code prints where it likes: keep the protocol's two ends for ourselves, give it stderr and /dev/null
    protocol, stdin = os.dup(1), Lines(os.dup(0))
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)

    try:
        runtime = import_runtime()
    except ImportError as error:
        write_line(protocol, {"ready": False, "reason": str(error)})
        return 1
    write_line(protocol, {"ready": True, "runtime": runtime.__name__})
    while True:
        line = stdin.next()
        if line is None:
            if stdin.ended:
                return 0
            stdin.fill()
            continue
        try:
            job = parse(line)
        except ValueError as error:  # json's error is one too
            write_line(protocol, dict(failure("harness", "parse", f"malformed job: {error}"), id=None))
            continue
        write_line(protocol, dict(supervise(runtime, job, stdin), id=job["id"]))


if __name__ == "__main__":
    sys.exit(main())
