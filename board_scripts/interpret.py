"""Runs one model once through: loads it, checks its outputs, warms it up, times it. Called by runner.py in a child.

Needs Python 3.9, numpy and a TFLite runtime, nothing else but the runner's other parts.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import hashlib
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from board_scripts.class_map import class_map
from board_scripts.image_bytes import image_setter
from board_scripts.input_shapes import set_shapes
from board_scripts.neighbours import cores, counters, others_busy
from board_scripts.timing import batch_of, clock_step_ns, sample_us, timed, warm_up

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")
RESOLVERS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
GATE_POLL_S = 0.25
FINISHES = 5  # how often the part after the inference is timed by itself
GRAPH_CACHE = "VIV_VX_CACHE_BINARY_GRAPH_DIR"
DELEGATE_CACHE = "cache_file_path"


class MachineFault(Exception):  # noqa: N818
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


def read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise MachineFault(f"cannot read {path}: {error.strerror}") from error


def numbers(pattern: str) -> Iterator[int]:
    """The whole numbers in the files that match; what cannot be read is left out."""
    for path in sorted(glob.glob(pattern)):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            yield int(file.read())


def readings(sysfs: str) -> dict[str, Any]:
    """The hottest zone (degrees Celsius) and the fastest core's clock (kHz), each null where there is none."""
    hottest = max(numbers(f"{sysfs}/class/thermal/thermal_zone*/temp"), default=None)
    clock = max(numbers(f"{sysfs}/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"), default=None)
    return {"temperature_c": None if hottest is None else hottest / 1000, "frequency_khz": clock}


def cool_down(job: dict[str, Any], sysfs: str) -> None:
    """Waits until the board is cool enough. Raises BoardFault when it does not get there in time."""
    limit, deadline = job.get("max_temperature_c"), time.monotonic() + job.get("cool_down_s", 0)
    while limit is not None:
        now = readings(sysfs)["temperature_c"]
        if now is None or now <= limit:
            return
        if time.monotonic() >= deadline:
            raise MachineFault(
                f"still {now:g} C after {job.get('cool_down_s', 0):g} s, allowed are {limit:g}: cool the board"
            )
        time.sleep(GATE_POLL_S)


def use_graph_cache(job: dict[str, Any]) -> list[str]:
    """Where this model's compiled graph may be kept; nowhere where no cache is configured.

    The driver's folder is for this model, driver and environment alone, and it makes none itself; the delegate's own
    cache is one file, which the host names by the model.
    """
    places, own = [], (job.get("delegate_options") or {}).get(DELEGATE_CACHE)
    base, key = os.environ.get(GRAPH_CACHE), job.get("graph_cache")
    if base and key:
        folder = os.path.join(base, key)
        os.makedirs(folder, exist_ok=True)
        os.environ[GRAPH_CACHE] = folder
        places.append(folder)
    return [*places, own] if own else places


def is_kept(places: Sequence[str]) -> bool:
    """Whether a compiled graph is in one of them."""
    return any(os.listdir(place) if os.path.isdir(place) else os.path.exists(place) for place in places)


def cache_state(places: Sequence[str], kept_before: bool) -> str:
    """After a run; "unused": a cache is configured, and the driver has none."""
    if not places:
        return "none"
    return "warm" if kept_before else "cold" if is_kept(places) else "unused"


def make_interpreter(runtime: Any, job: dict[str, Any]) -> tuple[Any, list[dict[str, Any]] | None]:
    """(interpreter with the job's input sizes, its nodes once the configured delegate took its parts, or None)."""
    delegates: list[Any] = []
    resized = job.get("input_shapes") is not None
    if job.get("delegate"):
        try:
            delegates = [runtime.load_delegate(job["delegate"], job.get("delegate_options") or {})]
        except (OSError, ValueError) as error:
            raise MachineFault(f"cannot load delegate {job['delegate']}: {error}") from error
    interpreter = runtime.Interpreter(
        model_path=job["model"],
        num_threads=job["threads"],
        experimental_delegates=[] if resized else delegates,
        experimental_op_resolver_type=getattr(runtime.OpResolverType, RESOLVERS[job["kernels"]]),
    )
    set_shapes(interpreter, job)
    if resized:
        apply_delegates(interpreter, delegates)
    # XNNPACK takes what is left when tensors are allocated, so what the delegate took is looked at before
    return interpreter, nodes_of(interpreter) if delegates else None


def apply_delegates(interpreter: Any, delegates: Sequence[Any]) -> None:
    """As the interpreter itself does, but after its inputs have their sizes, which decide what a delegate takes."""
    try:
        for delegate in delegates:
            interpreter._interpreter.ModifyGraphWithDelegate(delegate._get_native_delegate_pointer())
        interpreter._delegates = list(delegates)  # they live as long as it does
    except AttributeError as error:
        raise MachineFault(f"this runtime applies no delegate to a model with other input sizes: {error}") from error


def nodes_of(interpreter: Any) -> list[dict[str, Any]]:
    """The model's operators, and a node named DELEGATE for each part that a delegate took."""
    details = getattr(interpreter, "_get_ops_details", None)
    return list(details()) if details else []


def parts_of(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [node for node in nodes if node["op_name"] == "DELEGATE"]


def left_to_cpu(nodes: list[dict[str, Any]]) -> list[str]:
    """The operators in no delegate's part: a part holds those between its inputs and its outputs."""
    operators = [node for node in nodes if node["op_name"] != "DELEGATE"]
    producer = {int(tensor): i for i, node in enumerate(operators) for tensor in node["outputs"]}
    taken: set[int] = set()
    for part in parts_of(nodes):
        inputs, wanted = {int(tensor) for tensor in part["inputs"]}, [int(tensor) for tensor in part["outputs"]]
        while wanted:
            tensor = wanted.pop()
            i = producer.get(tensor)
            if i is not None and tensor not in inputs and i not in taken:
                taken.add(i)
                wanted += [int(read) for read in operators[i]["inputs"]]
    return [str(node["op_name"]) for i, node in enumerate(operators) if i not in taken]


def make_inputs(numpy: Any, interpreter: Any, data: bytes | None) -> list[tuple[int, Any]]:
    """[(tensor index, array)] from raw bytes, or random ones that fit. Raises ValueError."""
    rng: Any = numpy.random.default_rng(0) if data is None else None
    inputs, used = [], 0
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


def results_of(numpy: Any, interpreter: Any, job: dict[str, Any]) -> list[Any]:
    """The outputs, or the class map where the job asks for one."""
    outputs = read_outputs(numpy, interpreter)
    if job.get("class_map") is None:
        return outputs
    if len(outputs) != 1:
        raise ValueError(f"a class map is made of one output, and the model has {len(outputs)}")
    return [class_map(numpy, outputs[0], job["class_map"])]


def end_to_end(numpy: Any, interpreter: Any, inputs: list[tuple[int, Any]], sizes: list[list[int]]) -> Any:
    """(a run from the image's bytes to the class map, the run's part after the inference)."""
    output = interpreter.get_output_details()[0]["index"]
    set_images = image_setter(numpy, interpreter, inputs)

    def finish() -> None:
        class_map(numpy, interpreter.get_tensor(output), sizes)

    def run() -> None:
        set_images()
        interpreter.invoke()
        finish()

    return run, finish


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
        elements, used = elements + output.size, used + output.nbytes
        if numpy.array_equal(output, expected):
            continue
        wide = numpy.float64 if output.dtype.kind == "f" else numpy.int64
        with numpy.errstate(invalid="ignore"):  # two equal infinities are equal, and what is no number is far off
            apart = numpy.abs(output.astype(wide) - expected.astype(wide))
            difference = numpy.nan_to_num(numpy.where(output == expected, 0, apart), nan=numpy.finfo("f8").max)
        mismatched += int((difference != 0).sum())
        largest = max(largest, float(difference.max(initial=0)))
    return {"elements": elements, "mismatched": mismatched, "max_abs_diff": largest}


def rehearse(sysfs: str, proc: str) -> None:
    """What every child would else do for the first time, as imports inside libraries; nothing of a runtime."""
    import numpy

    numpy.random.default_rng(0)
    numpy.iinfo(numpy.int8)
    compare(numpy, [numpy.zeros(1, numpy.int8)], b"\1")
    readings(sysfs)
    hashlib.sha256(repr(counters(proc)).encode()).hexdigest()
    cores(sysfs)
    clock_step_ns()
    gc.collect()
    gc.freeze()  # a collection in a child would copy the pages that it shares with its parent


def run_job(runtime: Any, job: dict[str, Any], mark: Callable[[str], None]) -> dict[str, Any]:
    """The answer's fields; `mark(stage)` reports progress to the parent. Raises what the model provokes."""
    import numpy

    sysfs, proc = job.get("sys", "/sys"), job.get("proc", "/proc")
    content = read_file(job["model"])  # a missing file is the board's fault, and the page cache is warm now
    data = read_file(job["input"]) if job.get("input") else None
    expected = read_file(job["expected"]) if job.get("expected") else None
    caches = use_graph_cache(job)
    kept_before = is_kept(caches)
    begin = time.monotonic_ns()
    interpreter, delegated = make_interpreter(runtime, job)
    interpreter.allocate_tensors()
    load_us = (time.monotonic_ns() - begin) // 1000
    nodes = nodes_of(interpreter)
    inputs, run, finish = make_inputs(numpy, interpreter, data), interpreter.invoke, None
    for index, array in inputs:
        interpreter.set_tensor(index, array)
    mark("first")
    first_us = timed(interpreter.invoke) // 1000
    parities = [compare(numpy, results_of(numpy, interpreter, job), expected)]
    if job.get("class_map") is not None:
        run, finish = end_to_end(numpy, interpreter, inputs, job["class_map"])
    mark("cool")
    cool_down(job, sysfs)
    mark("run")
    usable = cores(sysfs)
    before, since = readings(sysfs), counters(proc, job["threads"])
    warm_ns, steady = warm_up(job, run)
    clock_ns = clock_step_ns()
    batch = batch_of(run, warm_ns, clock_ns)
    latencies_us = [sample_us(run, batch.calls) for _ in range(job["runs"])]
    end, after = counters(proc, job["threads"]), readings(sysfs)
    parities.append(compare(numpy, results_of(numpy, interpreter, job), expected))
    finished_us = {} if finish is None else {"class_map_us": min(sample_us(finish, 1) for _ in range(FINISHES))}
    return {
        **finished_us,
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "load_us": load_us,
        "first_us": first_us,
        "warmup_us": (sum(warm_ns) + batch.tried_ns) // 1000,
        "warmup_runs": len(warm_ns) + batch.tried,
        "steady": steady,
        "latencies_us": latencies_us,
        "calls": batch.calls,
        "clock_ns": clock_ns,
        "parity": max(parities, key=lambda found: int(found["mismatched"])) if expected is not None else None,
        "operators": [str(node["op_name"]) for node in nodes if node["op_name"] != "DELEGATE"],
        "delegated_nodes": len(parts_of(nodes if delegated is None else delegated)),
        "cpu_operators": [] if delegated is None else left_to_cpu(delegated),
        "cache": cache_state(caches, kept_before),
        "before": before,
        "after": after,
        "others_busy": others_busy(since, end, crowded=job["threads"] > usable),
        "cores": usable,
    }
