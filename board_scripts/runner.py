"""Runs models on the board: one JSON job per line on stdin, one JSON answer per line on stdout, logs on stderr.

Needs Python 3.9, numpy and a TFLite runtime, nothing else. The runtime is imported once; every job runs in a
forked child in its own process group, so a crash or a hang costs that child and nothing more. With --program, a
benchmark_model, that program runs the models instead, and neither numpy nor a runtime is needed.

Job:    {"id", "model", "input"?, "expected"?, "warmup_runs", "warmup_runs_most"?, "runs", "threads", "kernels",
         "delegate"?, "delegate_options"?, "graph_cache"?, "max_temperature_c"?, "cool_down_s"?, "conditions"?,
         "compile_deadline_s", "run_deadline_s", "pass"?: "time" | "memory" | "layers" | "outputs",
         "class_map"?: [[height, width], ...]}
Answer: {"id", "ok": true, "model_sha256", "conditions", "load_us", "first_us", "warmup_us", "warmup_runs", "steady",
         "latencies_us", "parity", "operators", "delegated_nodes", "cpu_operators", "cache", "before", "after",
         "others_busy", "class_map_us"?}
   or, with --program, "texts" in place of the fields that they contain (hil/benchmark_model.py); the fields of the
        other passes are in board_scripts/passes.py
   or   {"id", "ok": false, "failure": {"kind": "model" | "board" | "harness", "stage", "reason"}}

The first line that it writes is {"ready": true, "runtime"} or {"ready": false, "reason"}. While a model runs, and
now and then when none does, {"beat": id or null, "stage"} shows that the board is alive. Input and expected files hold
the tensors' raw little-endian bytes, one after the other; for the pass "outputs" those of `runs` inputs. With
`class_map` a run is from the input's bytes to the class map (board_scripts/class_map.py), which the expected file
holds. Ends when stdin does.

With --workdir, every file must lie in it, only one runner serves it at a time, and an answer stays in its `spool`
until {"ack": [id, ...]} arrives: a job sent again after a lost link is answered, not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from board_scripts.benchmark import die_with_parent, run_benchmark
from board_scripts.class_map import are_sizes
from board_scripts.input_shapes import are_input_shapes
from board_scripts.interpret import RESOLVERS, MachineFault, import_runtime, rehearse, run_job
from board_scripts.kernel_log import KernelLog
from board_scripts.passes import PASSES, kilobytes, run_layers, run_memory, run_outputs
from board_scripts.reserve import reserved_by_another
from board_scripts.workdir import Busy, Stuck, Workdir, is_id, only_one, pinned_governor

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would not survive the fork

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
STAGES = {
    "load": "loading the model",
    "first": "its first inference",
    "cool": "waiting for the board to cool down",
    "run": "its steady runs",
}
LEAST_COUNT = {"warmup_runs": 0, "warmup_runs_most": 0, "runs": 1, "threads": 1}
MOST_THREADS, MOST_RUNS = 256, 10**9
LONGEST_S = 7 * 86400
LINE_BYTES = 1 << 20
SCARCE_CMA = 0.1
BEAT_S = 2.0
IDLE_BEAT_S = 30.0  # a link that died under an idle runner is noticed by writing to it


def write_line(fd: int, record: dict[str, Any]) -> None:
    data = (json.dumps(record) + "\n").encode()
    while data:
        data = data[os.write(fd, data) :]


def child_main(runtime: Any, job: dict[str, Any], pipe: int) -> NoReturn:
    """Never returns. One JSON line per mark, and a last one with the result."""
    stage = "load"

    def mark(name: str) -> None:
        nonlocal stage
        stage = name
        write_line(pipe, {"mark": name})

    scarce = scarce_cma(job["proc"]) if job.get("delegate") else ""  # before the model takes any of it
    try:
        write_line(pipe, {"result": dict(run_pass(runtime, job, mark), ok=True)})
    except BaseException as error:  # whatever it is, the parent must report it
        kind = "board" if scarce or isinstance(error, (MachineFault, MemoryError)) else "model"
        reason = " ".join(f"{type(error).__name__}: {error}{scarce}".split())
        write_line(pipe, {"result": failure(kind, stage, f"failed in {STAGES[stage]}: {reason}")})
    os._exit(0)


def run_pass(runtime: Any, job: dict[str, Any], mark: Callable[[str], None]) -> dict[str, Any]:
    if isinstance(runtime, str):
        return run_benchmark(runtime, job, mark)
    runs = {"time": run_job, "memory": run_memory, "layers": run_layers, "outputs": run_outputs}
    return runs[job.get("pass", "time")](runtime, job, mark)


def scarce_cma(proc: str) -> str:
    """That the memory which NPU and GPU allocate from is nearly used up; empty when it is not, or there is none."""
    total, free = (kilobytes(f"{proc}/meminfo", key) for key in ("CmaTotal", "CmaFree"))
    if not total or free is None or free >= SCARCE_CMA * total:
        return ""
    return f" (the board had only {free} kB of {total} kB CMA free beforehand: end what holds it, or reboot)"


def failure(kind: str, stage: str, reason: str) -> dict[str, Any]:
    return {"ok": False, "failure": {"kind": kind, "stage": stage, "reason": reason}}


class Lines:
    """Lines of a file descriptor, read without ever blocking longer than asked.

    Of a line longer than `limit` bytes only the beginning and the end are kept, longer than that still.
    """

    def __init__(self, fd: int, limit: int = 0) -> None:
        self.fd, self.limit, self.buffer, self.ended = fd, limit, b"", False

    def fill(self) -> None:
        data = os.read(self.fd, 65536)
        self.ended = not data
        if self.limit and len(self.buffer) > self.limit and b"\n" not in self.buffer:
            self.buffer = self.buffer[: self.limit + 1]
        self.buffer += data

    def next(self) -> bytes | None:
        line, newline, rest = self.buffer.partition(b"\n")
        if not newline:
            return None
        self.buffer = rest
        return line


def supervise(runtime: Any, job: dict[str, Any], stdin: Lines, beat: Callable[[str], None]) -> dict[str, Any]:
    """Forks the job's child and brings back its answer: a result, a crash or a missed deadline."""
    reader, writer = os.pipe()
    runner, pid = os.getpid(), os.fork()
    if pid == 0:
        die_with_parent(runner)  # a killed runner leaves no child behind
        os.setpgid(0, 0)
        os.close(reader)
        child_main(runtime, job, writer)
    os.close(writer)
    reap(but=pid)
    with contextlib.suppress(OSError):  # the child was faster
        os.setpgid(pid, pid)
    try:
        return watch(job, Lines(reader), stdin, pid, beat)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # and whatever it forked; reaped when the next one is at work
        os.close(reader)


def reap(but: int = 0) -> None:
    """Children that ended, or every one where `but` is none: giving their memory back takes the kernel milliseconds
    that no job has to wait for.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            status = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | (os.WNOHANG if but else 0))
            if status is None or status.si_pid == but:
                return
            os.waitpid(status.si_pid, 0)


def watch(job: dict[str, Any], child: Lines, stdin: Lines, pid: int, beat: Callable[[str], None]) -> dict[str, Any]:
    limits = {
        "load": job["compile_deadline_s"],  # for the first inference too: that is when an NPU compiles
        "cool": job.get("cool_down_s", 0) + BEAT_S,
        "run": job["run_deadline_s"],
    }
    stage, limit_s = "load", limits["load"]
    deadline, next_beat = time.monotonic() + limit_s, time.monotonic() + BEAT_S
    while True:
        sources = [child.fd] if stdin.ended else [child.fd, stdin.fd]
        wait_s = max(0.0, min(deadline, next_beat) - time.monotonic())
        ready = select.select(sources, [], [], wait_s)[0]
        if stdin.fd in ready:
            stdin.fill()
        if stdin.ended:  # nobody is left to read the answer
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            sys.exit(0)
        if child.fd in ready:
            child.fill()
        line = child.next()
        while line is not None:
            record = json.loads(line)
            if "result" in record:
                result: dict[str, Any] = record["result"]
                return result
            stage = record["mark"]
            if stage in limits:
                limit_s = limits[stage]
                deadline = time.monotonic() + limit_s
            line = child.next()
        if child.ended:
            return failure("model", stage, f"{ending(os.waitpid(pid, 0)[1])} in {STAGES[stage]}")
        now = time.monotonic()
        if now >= deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return failure("model", stage, f"no end of {STAGES[stage]} within {limit_s:g} s")
        if now >= next_beat:
            beat(stage)
            next_beat = now + BEAT_S


def ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"the process ended with status {os.WEXITSTATUS(status)}"


def parse(line: bytes) -> dict[str, Any]:
    """The job, or the acknowledgement, in a line. Raises ValueError saying what is wrong with it."""
    if len(line) > LINE_BYTES:
        raise ValueError(f"a line of more than {LINE_BYTES} bytes")
    job = json.loads(line)
    if not isinstance(job, dict):
        raise ValueError("a job is a JSON object")
    if set(job) == {"ack"}:
        if not isinstance(job["ack"], list) or not all(is_id(name) for name in job["ack"]):
            raise ValueError(f"ack is {str(job['ack'])[:200]}: give a list of ids")
        return job
    missing = [name for name in REQUIRED if name not in job]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    if not is_id(job["id"]):
        raise ValueError(f"id is {str(job['id'])[:200]!r}: give letters, digits, '_', '.', '-'")
    if job["kernels"] not in tuple(RESOLVERS):  # a tuple: what was sent may not hash
        raise ValueError(f"kernels {job['kernels']!r} is none of {', '.join(RESOLVERS)}")
    if job.get("pass", "time") not in PASSES:
        raise ValueError(f"pass is {str(job['pass'])[:200]!r}, none of {', '.join(PASSES)}")
    for name, least in LEAST_COUNT.items():
        value, most = job.get(name, 1), MOST_THREADS if name == "threads" else MOST_RUNS
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{name} is {str(value)[:200]}: give a whole number from {least} to {most}")
    for name in ("compile_deadline_s", "run_deadline_s", "cool_down_s"):
        value = job.get(name, 1)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= LONGEST_S:
            raise ValueError(f"{name} is {str(value)[:200]}: give seconds, {LONGEST_S} at most")
    for name in ("model", "input", "expected", "delegate", "graph_cache", "conditions"):
        text = job.get(name) or ""
        if not isinstance(text, str) or b"\0" in os.fsencode(text):
            raise ValueError(f"{name} is {str(job[name])[:200]!r}: give text")
    if not job["model"]:
        raise ValueError("model is empty: give a path")
    options = job.get("delegate_options") or {}
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise ValueError(f"delegate_options is {str(options)[:200]}: give texts by name")
    if job.get("graph_cache") and not is_id(job["graph_cache"]):
        raise ValueError(f"graph_cache is {job['graph_cache'][:200]!r}: give one plain name")
    shapes = job.get("input_shapes")
    if shapes is not None and not are_input_shapes(shapes):
        raise ValueError(f"input_shapes is {str(shapes)[:200]}: give [name, [sizes]] of each input")
    sizes = job.get("class_map")
    if sizes is not None and not are_sizes(sizes):
        raise ValueError(f"class_map is {str(sizes)[:200]}: give [height, width] of each resize")
    limit = job.get("max_temperature_c")
    if limit is not None and (not isinstance(limit, (int, float)) or not -300 < limit < 1000):
        raise ValueError(f"max_temperature_c is {str(limit)[:200]}: give degrees Celsius")
    return job


def serve(runtime: Any, protocol: int, stdin: Lines, workdir: Workdir | None, roots: dict[str, str]) -> None:
    """Answers until stdin ends. `roots`: where "sys", "proc" and "kmsg" are; no client decides that."""
    while True:
        line = stdin.next()
        if line is None:
            reap()
            if stdin.ended:
                return
            if select.select([stdin.fd], [], [], IDLE_BEAT_S)[0]:
                stdin.fill()
            else:
                write_line(protocol, {"beat": None, "stage": "idle"})
            continue
        try:
            job = parse(line)
        except (ValueError, RecursionError) as error:  # json's error is a ValueError too
            write_line(protocol, dict(failure("harness", "parse", f"malformed job: {error}"), id=None))
            continue
        if "ack" in job:
            if workdir is not None:
                workdir.forget(job["ack"])
            continue
        write_line(protocol, answer_to(runtime, {**job, **roots}, protocol, stdin, workdir))


def answer_to(
    runtime: Any, job: dict[str, Any], protocol: int, stdin: Lines, workdir: Workdir | None
) -> dict[str, Any]:
    job_id = job["id"]

    def beat(stage: str) -> None:
        write_line(protocol, {"beat": job_id, "stage": stage})

    if workdir is not None:
        refusal = workdir.refusal(job)
        if refusal is not None:
            return dict(failure("harness", "parse", refusal), id=job_id)
        kept = workdir.kept(job)
        if kept is not None:
            return kept
    with KernelLog(job["kmsg"]) as log:
        answer = dict(supervise(runtime, job, stdin, beat), id=job_id, conditions=job.get("conditions"))
        if not answer["ok"]:
            answer["failure"]["reason"] += log.complaints()
    if workdir is not None and (answer["ok"] or answer["failure"]["kind"] == "model"):
        workdir.keep(job, answer)
    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="run models: one JSON job per line in, one JSON answer per line out")
    parser.add_argument("--workdir", default="", help="the only folder whose files are read; it keeps the spool")
    parser.add_argument("--token", default="", help="secret of the client, which may replace its last runner")
    parser.add_argument("--owner", default="somebody", help="the client's name in messages to others")
    parser.add_argument("--governor", default="", help="pin the CPU governor while we run")
    parser.add_argument("--program", default="", help="a benchmark_model that runs the models instead of a runtime")
    parser.add_argument("--sys", default="/sys", help="root of sysfs (default: /sys)")
    parser.add_argument("--proc", default="/proc", help="root of procfs (default: /proc)")
    parser.add_argument("--kmsg", default="/dev/kmsg", help="the kernel's log (default: /dev/kmsg)")
    options = parser.parse_args(arguments)

    # C code prints where it likes: keep the protocol's two ends for ourselves, give it stderr and /dev/null
    protocol, stdin = os.dup(1), Lines(os.dup(0), LINE_BYTES)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was borrowed is given back

    with contextlib.ExitStack() as borrowed:
        workdir = None
        try:
            if options.workdir:
                workdir = Workdir(options.workdir)
                borrowed.enter_context(only_one(workdir.path, options.token, options.owner))
                workdir.sweep()
                reserved = reserved_by_another(workdir.path, options.owner)
                if reserved:
                    raise Busy(f"{reserved}: wait, or ask them")
                borrowed.enter_context(pinned_governor(options.governor, options.sys, workdir.path))
            runtime = options.program or import_runtime()
            if not options.program:
                rehearse(options.sys, options.proc)
        except (ImportError, Busy, Stuck, OSError) as error:
            why = {"busy": isinstance(error, Busy), "stuck": isinstance(error, Stuck)}
            write_line(protocol, {"ready": False, "reason": str(error), **why})
            return 1
        write_line(protocol, {"ready": True, "runtime": options.program or runtime.__name__})
        serve(runtime, protocol, stdin, workdir, {"sys": options.sys, "proc": options.proc, "kmsg": options.kmsg})
    return 0


if __name__ == "__main__":
    sys.exit(main())
