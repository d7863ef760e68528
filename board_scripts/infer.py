"""Runs a bundle's model on images, from their files to the result: what an application starts from.

    python3 infer.py IMAGE|FOLDER ... [--out DIR] [--top K] [--delegate PATH] [--delegate-option KEY=VALUE ...]
                     [--require-delegate] [--threads N] [--runs N]

Lies in the bundle. Needs Python 3.9, numpy and a TFLite runtime (ai-edge-litert or tflite_runtime); images are read by
Pillow or OpenCV, binary PPM without either; an input may be FILE.npy, real values, or FILE.bin, the model's bytes.
Prints each image's classes with their shares, its K best labels with their scores, or each output's shape and range,
then how long an image takes. --out writes NAME.classes.png (its pixels are classes) and NAME.overlay.png; of a model
without labels the outputs as real values, NAME.0.npy, NAME.1.npy, ...

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

    size: (H, W) of its input; None where that is no image. labels: of the classes; none where the outputs are no
    classes. colours: uint8 (classes, 3); None where an image has one class, or none.
    """

    def __init__(self, numpy: Any, bundle: Path, options: argparse.Namespace) -> None:
        self.numpy = numpy
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        self.interpreter, self.entry = loaded(bundle, manifest, options)
        steps = json.loads((bundle / self.entry["preprocessing"]).read_bytes())
        self.steps, self.size = steps, steps.get("size")
        self.labels = (bundle / manifest["labels"]).read_text(encoding="utf8").split("\n")[:-1]
        colours = bundle / "colours.txt"
        self.colours = None
        if colours.exists():
            rows = [bytes.fromhex(line[1:]) for line in colours.read_text().split()]
            self.colours = numpy.frombuffer(b"".join(rows), numpy.uint8).reshape(-1, 3)
        (self.source,), self.sinks = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.table = stored_levels(numpy, steps, self.source["dtype"]) if self.size else None

    def before(self, image: Any) -> Any:
        """The model's input of an image (h, w, 3) uint8, of real values in its shape, or of its bytes."""
        numpy, shape, kind = self.numpy, self.source["shape"], self.source["dtype"]
        if isinstance(image, bytes):
            return numpy.frombuffer(image, kind).reshape(shape)
        if image.dtype != numpy.uint8:
            return quantized(numpy, image, self.steps, kind).reshape(shape)
        if self.table is None:
            raise Unreadable("this model's input is no image: give FILE.npy or FILE.bin")
        whole = self.steps.get("middle_of")
        if not whole or list(image.shape[:2]) == self.size:
            whole = self.size
        pixels = channels(numpy, fitted(numpy, image, whole), self.steps)
        top, left = ((n - m) // 2 for n, m in zip(pixels.shape, self.size))  # noqa: B905
        pixels = pixels[top : top + self.size[0], left : left + self.size[1]]
        return self.table[pixels, numpy.arange(pixels.shape[2])][None]

    def run(self, data: Any) -> Any:
        """The outputs, as the model stores them."""
        self.interpreter.set_tensor(self.source["index"], data)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(sink["index"]) for sink in self.sinks]

    def after(self, outputs: Any) -> Any:
        """The class map (H, W), the scores (classes,) as real numbers, or of a model without labels all outputs."""
        numpy = self.numpy
        if self.colours is None:
            found = [real(numpy, output, sink) for output, sink in zip(outputs, self.sinks)]  # noqa: B905
            return found[0].reshape(-1) if self.labels else found
        left = self.entry.get("class_map")
        output = class_map(numpy, outputs[0], left["sizes"]) if left else outputs[0]
        return output.reshape(self.size)

    def timed(self, image: Any) -> tuple[Any, list[float]]:
        """(the result, the seconds of each of STEPS)."""
        value, seconds = image, []
        for step in (self.before, self.run, self.after):
            begin = time.perf_counter()
            value = step(value)
            seconds.append(time.perf_counter() - begin)
        return value, seconds


def stored_levels(numpy: Any, steps: dict[str, Any], kind: Any) -> Any:
    """(256, C): what the model's input stores for each level of each channel, by preprocessing.json."""
    count = 1 if steps.get("colours") == "grey" else 3
    mean, std = (numpy.array(steps.get(name) or (128,), numpy.float32) for name in ("mean", "std"))
    levels = (numpy.arange(256, dtype=numpy.float32)[:, None] - mean) / std
    return quantized(numpy, numpy.broadcast_to(levels, (256, count)), steps, kind)


def quantized(numpy: Any, values: Any, steps: dict[str, Any], kind: Any) -> Any:
    """Real values as the model's input stores them; ties to even, in single precision as where it was quantized."""
    limits = numpy.iinfo(kind)
    found = numpy.rint(values.astype(numpy.float32) / numpy.float32(steps["scale"])) + steps["zero_point"]
    return found.clip(limits.min, limits.max).astype(kind)


def channels(numpy: Any, image: Any, steps: dict[str, Any]) -> Any:
    """An RGB image's channels as the model reads them; grey by ITU-R 601, as Pillow rounds it."""
    if steps.get("colours") == "grey":
        red, green, blue = (image[..., c].astype(numpy.uint32) for c in range(3))
        return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(numpy.uint8)[..., None]
    return image[..., ::-1] if steps.get("colours") == "bgr" else image


def real(numpy: Any, output: Any, sink: dict[str, Any]) -> Any:
    """An output's real values; of indices, and of real values, itself."""
    scale, zero_point = sink["quantization"]
    return (output.astype(numpy.float32) - zero_point) * numpy.float32(scale) if scale else output


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


def read_input(numpy: Any, path: Path) -> Any:
    """An image, the bytes of FILE.bin, or the array of FILE.npy."""
    if path.suffix == ".bin":
        return path.read_bytes()
    if path.suffix == ".npy":
        try:
            return numpy.load(path, allow_pickle=False).astype(numpy.float32)
        except ValueError as error:
            raise Unreadable(f"{path}: no array that numpy reads ({error})") from None
    return read_image(numpy, path)


def said(model: Model, result: Any, top: int) -> str:
    if not model.labels:
        return ", ".join(map(described, model.sinks, result))
    if model.colours is None:
        best = model.numpy.argsort(-result, kind="stable")[:top]
        return ", ".join(f"{model.labels[label]} {result[label]:.3f}" for label in best)
    shares = model.numpy.bincount(result.reshape(-1), minlength=len(model.labels)) / result.size
    order = model.numpy.argsort(-shares, kind="stable")
    return ", ".join(f"{model.labels[label]} {shares[label]:.1%}" for label in order if shares[label])


def described(sink: dict[str, Any], values: Any) -> str:
    return f"{sink['name']} {'x'.join(map(str, values.shape))} [{values.min():.4g}, {values.max():.4g}]"


def write_result(model: Model, image: Any, result: Any, target: Path) -> None:
    """Pictures of a class map, or the outputs that are no classes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if model.colours is not None and not isinstance(image, bytes) and image.dtype == model.numpy.uint8:
        write_pictures(model, image, result, target)
    for number, values in enumerate(() if model.labels else result):
        model.numpy.save(target.with_name(f"{target.name}.{number}.npy"), values)


def write_pictures(model: Model, image: Any, result: Any, target: Path) -> None:
    numpy = model.numpy
    for kind, content in (
        ("classes", png(numpy, result.astype(numpy.uint8), model.colours)),
        ("overlay", png(numpy, overlay(numpy, image, result, model.colours))),
    ):
        target.with_name(f"{target.name}.{kind}.png").write_bytes(content)


def run_all(model: Model, options: argparse.Namespace) -> list[list[float]]:
    """The seconds of each step, of every image but for its first run, which may compile the graph."""
    seconds = []
    for path in images_in(options.images):
        image = read_input(model.numpy, path)
        for number in range(1 + options.runs):
            result, took = model.timed(image)
            seconds += [took] if number else []
        print(f"{path}: {said(model, result, options.top)}")
        if options.out:
            write_result(model, image, result, options.out / path.stem)
    return seconds


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    import numpy

    parser = argparse.ArgumentParser(description="run the bundle's model on images")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE|FOLDER")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write class maps and overlays there, or .npy outputs")
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
