"""Verifies a bundle on the board that it is meant for: its files, its model, its golden outputs.

    python3 verify_bundle.py DIR [--delegate PATH] [--delegate-option KEY=VALUE ...] [--threads N] [--runs N]

Needs Python 3.9, numpy and a TFLite runtime. Prints one JSON line per check, {"check", "ok", "detail"}, and a
last one, {"verified", "latency_us", ...}. Exit 0: verified; 1: a check failed; 2: wrong call.

manifest.json: {"format": "hilnas-bundle/2" (or 1), "name", "files": {relative path: {"sha256", "bytes"}},
"model": relative path, "golden": [{"input", "output", "max_mismatch", "max_abs_diff"}], "class_map"?: {"sizes":
[[height, width], ...]}, "variants"?: [{"place": "delegate" or "cpu", "model", "golden", "class_map"?}], ...}; a name
that is none of KNOWN is refused. Of several variants the one for what is given here is run. A golden output holds when
the fraction of differing elements is at most max_mismatch and, unless max_abs_diff is null (class maps: a distance
between classes means nothing), no element differs by more than max_abs_diff. With "class_map" the golden
output is the class map, which the CPU makes of the file's logits unless "sizes" is empty; the latency is from the
image's bytes to it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from board_scripts.class_map import are_sizes, class_map
from board_scripts.image_bytes import image_setter
from board_scripts.places import PLACES, chosen
from board_scripts.unpack_model import Damaged, is_packed, unpack

os.environ.setdefault("OMP_NUM_THREADS", "1")

FORMATS = ("hilnas-bundle/1", "hilnas-bundle/2")
KNOWN = frozenset((
    "schema_version", "format", "name", "model", "labels", "preprocessing", "measurement", "facts", "golden", "files",
    "accuracy", "class_map", "latency_tolerance", "budgets", "variants",
))  # fmt: skip
MANIFEST = "manifest.json"
LONGEST_NAME = 255
SIGNATURE = "manifest.json.sig"  # of ssh-keygen, where the bundle is signed
RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite")


class NotVerified(Exception):  # noqa: N818
    """A check did not hold; its text is the detail."""


def require(holds: bool, detail: str) -> None:
    if not holds:
        raise NotVerified(detail)


def read_manifest(root: Path) -> dict[str, Any]:
    try:
        manifest: Any = json.loads((root / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise NotVerified(f"cannot read {MANIFEST}: {error}") from error
    require(isinstance(manifest, dict), f"{MANIFEST} is not an object")
    require(
        manifest.get("format") in FORMATS,
        f"format is {manifest.get('format')!r}, this verifier reads {' and '.join(FORMATS)}",
    )
    unknown = sorted(set(manifest) - KNOWN)
    require(not unknown, f"{str(unknown)[:100]} is unknown to this verifier; take that of the hilnas it is of")
    require(isinstance(manifest.get("files"), dict), '"files" is not an object')
    variants = manifest.get("variants", [])
    require(isinstance(variants, list), '"variants" is not a list')
    for entry in (manifest, *variants):
        require_model(entry)
    for entry in variants:
        require(entry.get("place") in PLACES, f"the place of a variant is none of {', '.join(PLACES)}")
    return dict(manifest)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require_model(entry: Any) -> None:
    require(isinstance(entry, dict), "a variant is not an object")
    require(isinstance(entry.get("model"), str), '"model" is not a path')
    require(isinstance(entry.get("golden", []), list), '"golden" is not a list')
    left = entry.get("class_map")
    require(left is None or (isinstance(left, dict) and are_sizes(left.get("sizes"))), '"class_map" has no sizes')


def named_paths(manifest: dict[str, Any]) -> list[str]:
    entries = [manifest, *manifest.get("variants", [])]
    named = [*manifest["files"], *(entry["model"] for entry in entries)]
    for golden in (pair for entry in entries for pair in entry.get("golden", [])):
        require(isinstance(golden, dict), "a golden entry is not an object")
        require(is_number(golden.get("max_mismatch")), "a golden entry lacks max_mismatch")
        require("max_abs_diff" in golden, "a golden entry lacks max_abs_diff (null: not applied)")
        largest = golden["max_abs_diff"]
        require(largest is None or is_number(largest), "max_abs_diff of a golden entry is no number")
        named += [golden.get("input"), golden.get("output")]
    return named


def check_paths(root: Path, manifest: dict[str, Any]) -> str:
    """Every path stays inside the bundle, through symlinks too, and is listed with its hash."""
    for name in named_paths(manifest):
        plain = isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= LONGEST_NAME
        require(plain, f"{str(name)[:100]!r} is not a path")
        pure = PurePosixPath(name)
        require(
            not pure.is_absolute() and ".." not in pure.parts and "\\" not in name,
            f"{name!r} leaves the bundle",
        )
        resolved = (root / name).resolve()
        require(resolved.is_relative_to(root), f"{name!r} is a link out of the bundle")
        require(name in manifest["files"], f"{name!r} is used but not listed in files")
    return f"{len(manifest['files'])} paths stay inside"


def check_file(root: Path, name: str, listed: Any) -> str:
    path = root / name
    require(isinstance(listed, dict) and {"sha256", "bytes"} <= set(listed), f"{name}: no sha256 and bytes listed")
    require(path.is_file(), f"{name}: missing")
    size = path.stat().st_size
    require(size == listed["bytes"], f"{name}: {size} bytes, {listed['bytes']} listed")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    require(digest.hexdigest() == listed["sha256"], f"{name}: sha256 is {digest.hexdigest()}, not the listed one")
    return f"{name}: {size} bytes"


def check_unlisted(root: Path, manifest: dict[str, Any]) -> str:
    present = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}
    extra = sorted(present - set(manifest["files"]) - {MANIFEST, SIGNATURE})
    require(not extra, f"not listed: {', '.join(extra[:5])}: move what is not of the bundle out of its folder")
    return "nothing unlisted"


def import_runtime() -> Any:
    tried = []
    for name in RUNTIMES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            tried.append(f"{name}: {error}")
            continue
        if not hasattr(module, "load_delegate"):  # tensorflow keeps it in a submodule
            module.load_delegate = module.experimental.load_delegate  # type: ignore[attr-defined]
        return module
    raise NotVerified("no TFLite runtime: " + "; ".join(tried))


def make_interpreter(model: Path, options: argparse.Namespace) -> Any:
    runtime = import_runtime()
    missing = "/" in options.delegate and not Path(options.delegate).exists()
    require(not missing, f"no delegate {options.delegate} on this machine")
    try:
        delegates = None
        if options.delegate:
            delegates = [runtime.load_delegate(options.delegate, dict(options.delegate_option))]
        content = model.read_bytes()
        interpreter = runtime.Interpreter(
            model_content=unpack(content) if is_packed(content) else content,
            num_threads=options.threads,
            experimental_delegates=delegates,
        )
        check_sizes(interpreter.get_input_details())
        interpreter.allocate_tensors()
    except (Damaged, OSError, RuntimeError, ValueError) as error:
        raise NotVerified(f"{model.name} does not load: {error}") from error
    return interpreter


def check_sizes(inputs: Sequence[Any]) -> None:
    """A golden pair shows nothing of a model that its user runs at another size."""
    for detail in inputs:
        signature = [int(size) for size in detail.get("shape_signature", detail["shape"])]
        open_sizes = [size for size in signature[1 if len(signature) > 1 else 0 :] if size < 1]  # a batch alone is 1
        require(not open_sizes, f"the model leaves sizes of its input {detail['name']} open: {signature}")


def feed(interpreter: Any, data: bytes) -> None:
    import numpy

    used = 0
    for detail in interpreter.get_input_details():
        dtype, shape = numpy.dtype(detail["dtype"]), tuple(detail["shape"])
        size = int(numpy.prod(shape)) * dtype.itemsize
        require(used + size <= len(data), f"the input has {len(data)} bytes, fewer than the model reads")
        array = numpy.frombuffer(data[used : used + size], dtype.newbyteorder("<")).astype(dtype)
        interpreter.set_tensor(detail["index"], array.reshape(shape))
        used += size
    require(used == len(data), f"the input has {len(data)} bytes, the model reads {used}")


def results_of(interpreter: Any, left: Any) -> list[Any]:
    """The outputs, or the class map that is `left` to the CPU."""
    import numpy

    outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    if left is None:
        return outputs
    require(len(outputs) == 1, f"a class map is made of one output, and the model has {len(outputs)}")
    return [class_map(numpy, outputs[0], left["sizes"])]


def check_golden(interpreter: Any, root: Path, golden: dict[str, Any], left: Any) -> str:
    import numpy

    feed(interpreter, (root / golden["input"]).read_bytes())
    try:
        interpreter.invoke()
    except RuntimeError as error:
        raise NotVerified(f"{golden['input']}: the inference fails: {error}") from error
    data, used, elements, differing, largest = (root / golden["output"]).read_bytes(), 0, 0, 0, 0.0
    for output in results_of(interpreter, left):
        require(used + output.nbytes <= len(data), f"{golden['output']} has fewer bytes than the outputs")
        expected = numpy.frombuffer(data, output.dtype.newbyteorder("<"), output.size, used).reshape(output.shape)
        wide = numpy.float64 if output.dtype.kind == "f" else numpy.int64
        difference = numpy.abs(output.astype(wide) - expected.astype(wide))
        require(not numpy.isnan(difference).any(), f"{golden['output']}: NaN among the outputs")
        elements, used = elements + output.size, used + output.nbytes
        differing += int((difference != 0).sum())
        largest = max(largest, float(difference.max(initial=0)))
    require(used == len(data), f"{golden['output']} has {len(data)} bytes, the outputs have {used}")
    detail_text = f"{golden['output']}: {differing} of {elements} elements differ, by {largest:g} at most"
    require(differing <= golden["max_mismatch"] * elements, detail_text)
    require(golden["max_abs_diff"] is None or largest <= golden["max_abs_diff"], detail_text)
    return detail_text


def measure_latency(interpreter: Any, runs: int, left: Any) -> dict[str, float]:
    """Of the inference, or from the image's bytes to the class map, as hilnas measures."""
    import numpy

    latencies_us, details = [], interpreter.get_input_details() if left is not None else ()
    inputs = [(detail["index"], interpreter.get_tensor(detail["index"])) for detail in details]
    set_images = image_setter(numpy, interpreter, inputs)
    for _ in range(runs):
        begin = time.monotonic_ns()
        set_images()
        interpreter.invoke()
        if left is not None:
            results_of(interpreter, left)
        latencies_us.append((time.monotonic_ns() - begin) / 1000)
    latencies_us.sort()
    # nearest rank: the smallest sample that at least that share of samples do not exceed
    median, p90 = (latencies_us[max(0, -(-share * runs // 100) - 1)] for share in (50, 90))
    return {"median": median, "p90": p90, "n": runs}


def verify(root: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record per check; stops at the first that makes the next ones meaningless or unsafe."""

    def attempt(name: str, check: Any, *arguments: Any) -> tuple[Any, dict[str, Any]]:
        try:
            value = check(*arguments)
        except (NotVerified, OSError) as error:
            return None, {"check": name, "ok": False, "detail": str(error)}
        detail = value if isinstance(value, str) else "well"
        return value, {"check": name, "ok": True, "detail": detail}

    summary: dict[str, Any] = {"verified": False, "latency_us": None}
    manifest, record = attempt("manifest", read_manifest, root)
    yield record
    well = record["ok"]
    if well:
        summary["name"] = manifest.get("name")
        _, record = attempt("paths", check_paths, root, manifest)
        yield record
        well = record["ok"]
    if well:
        records = [attempt("file", check_file, root, name, listed)[1] for name, listed in manifest["files"].items()]
        records.append(attempt("unlisted", check_unlisted, root, manifest)[1])
        yield from records
        well = all(record["ok"] for record in records)  # a file that changed is never given to the runtime
    interpreter = None
    if well:
        entry, why = chosen(manifest, delegate=bool(options.delegate))
        if manifest.get("variants"):
            yield {"check": "variant", "ok": True, "detail": why}
        interpreter, record = attempt("model", make_interpreter, root / entry["model"], options)
        yield record
        well = record["ok"]
    if interpreter is not None:
        left = entry.get("class_map")
        for golden in entry.get("golden", []):
            _, record = attempt("golden", check_golden, interpreter, root, golden, left)
            yield record
            well = well and record["ok"]
        summary["latency_us"] = measure_latency(interpreter, options.runs, left)
    yield {**summary, "verified": well}


def key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="verify a hilnas bundle on this machine")
    parser.add_argument("bundle", type=Path, metavar="DIR")
    parser.add_argument("--delegate", default="", help="shared library of the delegate, /usr/lib/libvx_delegate.so")
    parser.add_argument("--delegate-option", type=key_value, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--runs", type=positive, default=30, help="timed inferences (default: 30)")
    options = parser.parse_args(arguments)
    if not options.bundle.is_dir():
        parser.error(f"{options.bundle} is not a folder")
    protocol = os.dup(1)
    os.dup2(2, 1)  # C code of the runtime prints where it likes
    try:
        verified = False
        for record in verify(options.bundle.resolve(), options):
            os.write(protocol, (json.dumps(record) + "\n").encode())
            verified = bool(record.get("verified", False))
    finally:
        os.dup2(protocol, 1)
        os.close(protocol)
    return 0 if verified else 1


if __name__ == "__main__":
    sys.exit(main())
