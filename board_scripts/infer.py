"""Runs a bundle's model on images, from their files to the result: what an application starts from.

    python3 infer.py IMAGE|FOLDER ... [--out DIR] [--top K] [--delegate PATH] [--delegate-option KEY=VALUE ...]
                     [--require-delegate] [--threads N] [--runs N]

Lies in the bundle. Needs Python 3.9, numpy and a TFLite runtime (ai-edge-litert or tflite_runtime); images are read by
Pillow or OpenCV, binary PPM without either. Prints each image's classes with their shares, or its K best labels with
their scores, then how long an image takes. --out writes NAME.classes.png (its pixels are classes) and NAME.overlay.png.

A delegate that does not load, or takes nothing of the model, is named on stderr and the CPU runs the model;
--require-delegate makes it an error. Exit 0: done; 1: an image cannot be read; 2: wrong call; 3: no runtime, or no such
delegate.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from board_scripts.class_map import class_map
from board_scripts.pictures import SUFFIXES, Unreadable, fitted, overlay, png, read_image
from board_scripts.places import chosen
from board_scripts.unpack_model import Damaged, is_packed, unpack

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")
STEPS = ("pre-processing", "model", "post-processing")


class NoMachine(Exception):  # noqa: N818
    """No runtime, or no delegate where one is required."""


def runtime() -> Any:
    for name in RUNTIMES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise NoMachine("no TFLite runtime: pip install ai-edge-litert, or the board's tflite_runtime")


class Model:
    """The bundle's model, ready to run.

    size: (H, W) of its input. labels: of the classes. colours: uint8 (classes, 3); None where an image has one class.
    """

    def __init__(self, numpy: Any, bundle: Path, options: argparse.Namespace) -> None:
        self.numpy = numpy
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        self.interpreter, self.entry = loaded(bundle, manifest, options)
        steps = json.loads((bundle / self.entry["preprocessing"]).read_bytes())
        self.size = steps["size"]
        self.labels = (bundle / manifest["labels"]).read_text(encoding="utf8").split("\n")[:-1]
        colours = bundle / "colours.txt"
        self.colours = None
        if colours.exists():
            rows = [bytes.fromhex(line[1:]) for line in colours.read_text().split()]
            self.colours = numpy.frombuffer(b"".join(rows), numpy.uint8).reshape(-1, 3)
        (self.source,), (self.sink,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.table = stored_levels(numpy, steps, self.source["dtype"])

    def before(self, image: Any) -> Any:
        """The model's input (1, H, W, 3) of an image (h, w, 3)."""
        return self.table[fitted(self.numpy, image, self.size)][None]

    def run(self, data: Any) -> Any:
        self.interpreter.set_tensor(self.source["index"], data)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.sink["index"])

    def after(self, output: Any) -> Any:
        """The class map (H, W), or the scores (classes,) as real numbers."""
        numpy = self.numpy
        if self.colours is None:
            scale, zero_point = self.sink["quantization"]
            return (output.reshape(-1).astype(numpy.float32) - zero_point) * (scale or 1.0)
        left = self.entry.get("class_map")
        return (class_map(numpy, output, left["sizes"]) if left else output).reshape(output.shape[0], *self.size)[0]

    def timed(self, image: Any) -> tuple[Any, list[float]]:
        """(the result, the seconds of each of STEPS)."""
        value, seconds = image, []
        for step in (self.before, self.run, self.after):
            begin = time.perf_counter()
            value = step(value)
            seconds.append(time.perf_counter() - begin)
        return value, seconds


def stored_levels(numpy: Any, steps: dict[str, Any], kind: Any) -> Any:
    """(256,): what the model's input stores for each level of a pixel, by preprocessing.json."""
    levels = numpy.rint((numpy.arange(256) - 128) / 128 / steps["scale"]) + steps["zero_point"]
    limits = numpy.iinfo(kind)
    return levels.clip(limits.min, limits.max).astype(kind)


def loaded(bundle: Path, manifest: dict[str, Any], options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """(the interpreter, what the manifest says of its model): with the delegate and the model for it, or without.

    A delegate that does not load, or takes nothing, is named on stderr.
    """
    lite, given = runtime(), dict(option.split("=", 1) for option in options.delegate_option)
    reason = ""
    if options.delegate:
        entry, _ = chosen(manifest, delegate=True)
        try:
            ctypes.CDLL(options.delegate)  # the wheel's own wrapper ends in a traceback where this fails
            made = lite.Interpreter(
                model_content=content_of(bundle / entry["model"]),
                num_threads=options.threads,
                experimental_delegates=[lite.load_delegate(options.delegate, given)],
            )
            taken = parts_taken(made)  # before allocation, in which the CPU's own delegate takes the rest
            if taken != 0:
                made.allocate_tensors()
                return made, entry
            reason = "it takes no operator of the model"
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
        if options.require_delegate:
            raise NoMachine(f"delegate {options.delegate}: {reason}")
        print(f"infer.py: delegate {options.delegate}: {reason}; the CPU runs the model", file=sys.stderr)
    entry, _ = chosen(manifest, delegate=False)
    made = lite.Interpreter(model_content=content_of(bundle / entry["model"]), num_threads=options.threads)
    made.allocate_tensors()
    return made, entry


def content_of(model: Path) -> bytes:
    """A .tflite file's bytes, those of a packed one restored."""
    content = model.read_bytes()
    return unpack(content) if is_packed(content) else content


def parts_taken(made: Any) -> Any:
    """How many parts of the model delegates took; None where this runtime does not say."""
    details = getattr(made, "_get_ops_details", None)
    return None if details is None else sum(node["op_name"] == "DELEGATE" for node in details())


def images_in(paths: Sequence[Path]) -> list[Path]:
    """The images themselves, and those in folders."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(entry for entry in path.iterdir()) if path.is_dir() else [path]
        found += [entry for entry in inside if entry == path or entry.suffix.lower() in SUFFIXES]
    return found


def said(model: Model, result: Any, top: int) -> str:
    if model.colours is None:
        best = model.numpy.argsort(-result, kind="stable")[:top]
        return ", ".join(f"{model.labels[label]} {result[label]:.3f}" for label in best)
    shares = model.numpy.bincount(result.reshape(-1), minlength=len(model.labels)) / result.size
    order = model.numpy.argsort(-shares, kind="stable")
    return ", ".join(f"{model.labels[label]} {shares[label]:.1%}" for label in order if shares[label])


def write_pictures(model: Model, image: Any, result: Any, target: Path) -> None:
    numpy = model.numpy
    target.parent.mkdir(parents=True, exist_ok=True)
    for kind, content in (
        ("classes", png(numpy, result.astype(numpy.uint8), model.colours)),
        ("overlay", png(numpy, overlay(numpy, image, result, model.colours))),
    ):
        target.with_name(f"{target.name}.{kind}.png").write_bytes(content)


def run_all(model: Model, options: argparse.Namespace) -> list[list[float]]:
    """The seconds of each step, of every image but for its first run, which may compile the graph."""
    seconds = []
    for path in images_in(options.images):
        image = read_image(model.numpy, path)
        for number in range(1 + options.runs):
            result, took = model.timed(image)
            seconds += [took] if number else []
        print(f"{path}: {said(model, result, options.top)}")
        if options.out and model.colours is not None:
            write_pictures(model, image, result, options.out / path.stem)
    return seconds


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    import numpy

    parser = argparse.ArgumentParser(description="run the bundle's model on images")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE|FOLDER")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the class maps and overlays there, as PNG")
    parser.add_argument("--top", type=positive, default=5, metavar="K", help="labels of an image (default: 5)")
    parser.add_argument("--delegate", default="", help="shared library of the delegate, /usr/lib/libvx_delegate.so")
    parser.add_argument("--delegate-option", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--require-delegate", action="store_true", help="no CPU in its place")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--runs", type=positive, default=1, help="timed runs of each image (default: 1)")
    options = parser.parse_args(arguments)
    if any("=" not in option for option in options.delegate_option):
        parser.error("--delegate-option: give KEY=VALUE")
    try:
        model = Model(numpy, Path(__file__).resolve().parent, options)
        seconds = run_all(model, options)
    except NoMachine as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 3
    except (Unreadable, Damaged, OSError) as error:
        print(f"infer.py: {error}", file=sys.stderr)
        return 1
    if seconds:
        medians = 1000 * numpy.median(numpy.array(seconds), axis=0)
        times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in zip(STEPS, medians))  # noqa: B905
        print(f"median of {len(seconds)} runs: {times}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
