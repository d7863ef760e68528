"""TFLite's `benchmark_model` as the driver, where a board has no Python runtime. Called by runner.py in a child.

The program checks no output and reports no single runs: the job's runs are split over a few invocations, each of
which the host reads as one sample. Needs Python 3.9 and its standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from board_scripts.input_shapes import program_arguments
from board_scripts.interpret import MachineFault, cache_state, cool_down, is_kept, readings, use_graph_cache
from board_scripts.neighbours import cores, counters, others_busy
from board_scripts.passes import TEXT_BYTES, VENDOR_LOG, clip, digest_of

PR_SET_PDEATHSIG = 1
INVOCATIONS = 5
ASKED_FOR = {
    "time": (),
    "memory": ("--report_peak_memory_footprint=true",),
    "layers": ("--enable_op_profiling=true", "--op_profiling_output_mode=csv"),
}
"""What a pass adds to the program's arguments."""

REACHED = (
    ("first", re.compile(rb"Initialized session in")),
    ("run", re.compile(rb"(?m)^(?:INFO: )?count=")),  # the warm-up's line; the program ends every line with a flush
)
"""The stages that its lines show, in order."""


class ProgramFailed(Exception):  # noqa: N818
    """The program ended with an error, or was killed."""


def die_with_parent(parent: int) -> None:
    """The kernel kills us when `parent` ends; where it ended before we could ask for that, we end here."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def split(runs: int) -> list[int]:
    """The runs of each invocation, as even as can be."""
    count = min(runs, INVOCATIONS)
    return [runs // count + (number < runs % count) for number in range(count)]


def arguments(program: str, job: dict[str, Any], runs: int) -> list[str]:
    """The argument vector. Delegates are applied in this order, so the CPU's gets what the other one left."""
    seconds = math.ceil(max(job["compile_deadline_s"], job["run_deadline_s"]))
    argv = [
        program,
        f"--graph={job['model']}",
        f"--num_threads={job['threads']}",
        f"--warmup_runs={job['warmup_runs'] + 1}",  # the first inference is one of them
        "--warmup_min_secs=0",
        f"--num_runs={runs}",
        "--min_secs=0",
        f"--max_secs={seconds}",  # our deadlines decide; its own would cut the runs short
        *program_arguments(job),
    ]
    if job.get("delegate"):
        argv.append(f"--external_delegate_path={job['delegate']}")
        options = ";".join(f"{key}:{value}" for key, value in (job.get("delegate_options") or {}).items())
        argv += [f"--external_delegate_options={options}"] if options else []
    argv.append(f"--use_xnnpack={'true' if job['kernels'] == 'xnnpack' else 'false'}")
    return [*argv, *ASKED_FOR[job.get("pass", "time")]]


def run_program(argv: Sequence[str], limit: int, mark: Callable[[str], None]) -> str:
    """What it printed on both outputs, clipped. Raises BoardFault when it does not start, ProgramFailed."""
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - the child that starts it has one thread
        )
    except OSError as error:
        raise MachineFault(f"cannot start {argv[0]}: {error.strerror}") from error
    os.close(writer)
    said, lost, ahead = bytearray(), 0, list(REACHED)
    while chunk := os.read(reader, 65536):
        said += chunk
        while ahead and ahead[0][1].search(bytes(said[-len(chunk) - 64 :])):
            mark(ahead.pop(0)[0])
        if len(said) > 2 * limit:
            lost += len(said) - limit
            del said[limit // 2 : len(said) - limit // 2]
    os.close(reader)
    text, code = clip(bytes(said), limit, lost), process.wait()
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        words = " | ".join([line.strip() for line in text.splitlines() if line.strip()][-3:])[-300:]
        raise ProgramFailed(f"{os.path.basename(argv[0])} {how}: {words or 'no output'}")
    return text


def run_benchmark(program: str, job: dict[str, Any], mark: Callable[[str], None]) -> dict[str, Any]:
    """The answer's fields, the program's texts among them; each invocation has the deadlines anew."""
    sysfs, proc, timing = job.get("sys", "/sys"), job.get("proc", "/proc"), job.get("pass", "time") == "time"
    digest = digest_of(job["model"])
    if job.get("delegate") and not os.path.exists(job["delegate"]):
        raise MachineFault(f"cannot load delegate {job['delegate']}: there is no such file")
    if job.get("pass") == "layers":
        os.environ.update(VENDOR_LOG)
    caches = use_graph_cache(job)
    kept_before = is_kept(caches)
    mark("cool")
    cool_down(job, sysfs)
    shares = split(job["runs"]) if timing else [1]
    before, since, texts = readings(sysfs), counters(proc), []
    for runs in shares:
        mark("load")
        texts.append(run_program(arguments(program, job, runs), TEXT_BYTES // len(shares), mark))
    return {
        "model_sha256": digest,
        "texts": texts,
        "cache": cache_state(caches, kept_before),
        "before": before,
        "after": readings(sysfs),
        "others_busy": others_busy(since, counters(proc), crowded=True),  # the program waits, not this process
        "cores": cores(sysfs),
    }
