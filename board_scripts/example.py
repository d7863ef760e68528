"""Runs a bundle's model on an image, from the image's bytes to the result: what an application does with it.

    python3 example.py IMAGE.ppm [--out CLASSES.pgm] [--delegate PATH] [--delegate-option KEY=VALUE ...]

Lies in the bundle. Needs Python 3.9, numpy and a TFLite runtime. The image is a binary PPM (P6) of the model's size.
Prints the share of each class in it, or the scores of an image's class, and how long that took.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from board_scripts.class_map import class_map

RUNTIMES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


def runtime() -> Any:
    for name in RUNTIMES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise SystemExit(f"no TFLite runtime: install one of {', '.join(RUNTIMES)}")


def read_ppm(numpy: Any, path: Path, size: Sequence[int]) -> Any:
    """The image's uint8 (H, W, 3)."""
    data = path.read_bytes()
    words = data.split(maxsplit=4)
    height, width = size
    if len(words) < 5 or words[:4] != [b"P6", b"%d" % width, b"%d" % height, b"255"]:
        raise SystemExit(f"{path}: give a binary PPM (P6) of {width} x {height} pixels")
    return numpy.frombuffer(data[-height * width * 3 :], numpy.uint8).reshape(height, width, 3)


def stored(numpy: Any, image: Any, steps: dict[str, Any], kind: Any) -> Any:
    """The model's input (1, H, W, 3), by preprocessing.json; from a table, since a pixel has 256 levels."""
    levels = numpy.rint((numpy.arange(256) - 128) / 128 / steps["scale"]) + steps["zero_point"]
    limits = numpy.iinfo(kind)
    return levels.clip(limits.min, limits.max).astype(kind)[image][None]


def main(arguments: Sequence[str] | None = None) -> int:
    import numpy

    parser = argparse.ArgumentParser(description="run the bundle's model on an image")
    parser.add_argument("image", type=Path, metavar="IMAGE.ppm")
    parser.add_argument("--out", type=Path, metavar="CLASSES.pgm", help="write the class map, a class a grey level")
    parser.add_argument("--delegate", default="", help="shared library of the delegate, /usr/lib/libvx_delegate.so")
    parser.add_argument("--delegate-option", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)

    bundle = Path(__file__).resolve().parent
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    steps = json.loads((bundle / manifest["preprocessing"]).read_bytes())
    labels = (bundle / manifest["labels"]).read_text(encoding="utf8").split("\n")[:-1]
    lite, delegates = runtime(), []
    if options.delegate:
        delegates = [lite.load_delegate(options.delegate, dict(o.split("=", 1) for o in options.delegate_option))]
    interpreter = lite.Interpreter(model_path=str(bundle / manifest["model"]), experimental_delegates=delegates)
    interpreter.allocate_tensors()
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    image = read_ppm(numpy, options.image, steps["size"])

    for _ in range(2):  # the first run may compile the graph
        begin = time.monotonic()
        interpreter.set_tensor(source["index"], stored(numpy, image, steps, source["dtype"]))
        interpreter.invoke()
        result = interpreter.get_tensor(sink["index"])
        if manifest.get("class_map") is not None:
            result = class_map(numpy, result, manifest["class_map"]["sizes"])
        took_ms = 1000 * (time.monotonic() - begin)

    if result.dtype == numpy.int32:
        shares = numpy.bincount(result.reshape(-1), minlength=len(labels)) / result.size
        print(", ".join(f"{labels[i]} {share:.1%}" for i, share in enumerate(shares) if share))
    else:
        print(", ".join(f"{labels[i]} {score}" for i, score in enumerate(result.reshape(-1))))
    if options.out and result.dtype == numpy.int32:
        height, width = result.shape[1:3]
        options.out.write_bytes(b"P5 %d %d 255\n" % (width, height) + result.astype(numpy.uint8).tobytes())
    print(f"{took_ms:.2f} ms from the image's bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
