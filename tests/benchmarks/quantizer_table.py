"""INT8 noise at the outputs of real networks: ours beside TensorFlow's and onnxruntime's quantizer, in one run.

    .venv/bin/python -m tests.benchmarks.quantizer_table MODELS --frames CAMVID [--out docs/results/quantizers.json]

Each network is quantized from the same float graph on the same examples, per channel, and all files run on other
examples; noise is the squared error against the float network in its own runtime over its squared values, in dB.
`MODELS` holds the files of `quantizer_networks.NETWORKS`, `CAMVID` the frames in train and val.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.formats.importers.files import import_network
from deploy.formats.importers.network import ImportedNetwork
from deploy.formats.tflite.writer import write
from deploy.quantize import quantize
from deploy.quantize.quantized import PER_CHANNEL
from deploy.quantize.scheme_option import OWN
from hil.errors import HilError
from nas.errors import NasError
from nas.quant.file_order import from_file_order
from nas.quant.scheme import Scheme
from nas.training.threads import one_thread
from tests.benchmarks import other_quantizers as others
from tests.benchmarks.quantizer_networks import NETWORKS, Images, Tried, examples

Array = NDArray[np.float32]
Run = Callable[[Array], list[Array]]
BATCH = 16
ADAPTIVE = replace(OWN, rounding="adaptive all")
ALLOWED_DB = 0.5  # above the other quantizer's noise


@dataclass(frozen=True)
class Row:
    """Noise in dB at one output of a network.

    Attributes:
        ours: by what `hilnas quantize` does; `minmax` with the ranges that the other quantizers take; `adaptive` with
            weights rounded adaptively, None: not tried.
        published: of the publisher's INT8 file.
        left: what the other quantizer leaves in float. Ours leaves nothing.
    """

    network: str
    output: str
    ours: float
    minmax: float
    adaptive: float | None
    against: str
    other: float
    published: float | None
    left: str


def noise_db(wanted: Sequence[list[Array]], found: Sequence[list[Array]]) -> list[float]:
    """Of each output."""
    result = []
    for real, quantized in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        pairs = [(a.astype(np.float64), b.reshape(a.shape)) for a, b in zip(real, quantized, strict=True)]
        error, value = sum(((a - b) ** 2).sum() for a, b in pairs), sum((a**2).sum() for a, _ in pairs)
        result.append(10 * math.log10(error / value))
    return result


def by_us(network: ImportedNetwork, calibration: Images, scheme: Scheme) -> Run:
    """Our file in LiteRT, its outputs laid out as in the float network's file."""
    batches = [np.stack(calibration[i : i + BATCH]) for i in range(0, len(calibration), BATCH)]
    deployed = others.in_litert(write(quantize(network, batches, PER_CHANNEL, scheme).graph))
    ends = list(network.outputs.values())

    def run(x: Array) -> list[Array]:
        answers = zip(ends, map(torch.from_numpy, deployed.run(x)), strict=True)
        return [end.to_array(from_file_order(y.reshape(1, *end.deployed_shape))) for end, y in answers]

    return run


def rows_of(tried: Tried, asked: argparse.Namespace, folder: Path) -> list[Row]:
    models: Path = asked.models
    path = models / tried.file
    network = import_network(path, tried.shapes, tried.outputs)
    calibration, measured = examples(tried, network, asked.frames, asked.images)
    if path.suffix == ".onnx":
        prepared, written = others.fixed_onnx(path, tried.shape, folder), folder / "int8.onnx"
        given, against = [x.transpose(2, 0, 1).copy() for x in measured], "onnxruntime"
        float_run = others.in_onnxruntime(prepared).run
        others.by_onnxruntime(prepared, [x.transpose(2, 0, 1).copy() for x in calibration], written)
        other = others.in_onnxruntime(written)
    else:
        content = others.float_tflite(path, tried.outputs)
        given, against, float_run = list(measured), "TensorFlow", others.in_litert(content).run
        other = others.in_litert(others.by_tensorflow(content, calibration))
    wanted = [float_run(x) for x in given]
    schemes = (OWN, Scheme(), *([ADAPTIVE] if asked.adaptive else []))
    ours, minmax, *adaptive = (
        noise_db(wanted, list(map(by_us(network, calibration, scheme), measured))) for scheme in schemes
    )
    theirs = noise_db(wanted, list(map(other.run, given)))
    published: list[float] | None = None
    if tried.published:
        run = others.in_litert((models / tried.published).read_bytes()).run
        published = noise_db(wanted, list(map(run, measured)))
    left = ", ".join(f"{n} {kind}" for kind, n in sorted(other.left.items()))
    return [
        Row(
            *(tried.file, name, ours[i], minmax[i], adaptive[0][i] if adaptive else None),
            *(against, theirs[i], published[i] if published else None, left),
        )
        for i, name in enumerate(network.outputs)
    ]


def show(row: Row) -> None:
    adaptive, published = ("" if x is None else f"{x:.1f}" for x in (row.adaptive, row.published))
    print(
        f"{row.network:38} {row.output[-24:]:24} {row.ours:6.1f} {row.minmax:8.1f} {adaptive:>8} {row.other:6.1f} "
        f"{published:>9}  {row.against}{f', in float: {row.left}' if row.left else ''}",
        flush=True,
    )


def verdict(rows: Sequence[Row]) -> bool:
    """Whether no output is more than `ALLOWED_DB` noisier than the other quantizer's, and the median is less noisy."""
    compared = [row.ours - row.other for row in rows]
    print(
        f"{len(compared)} outputs against the other quantizer, in dB: median {statistics.median(compared):+.1f}, "
        f"best {min(compared):+.1f}, worst {max(compared):+.1f} (asked: below 0, at most +{ALLOWED_DB})"
    )
    return max(compared) <= ALLOWED_DB and statistics.median(compared) < 0


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of the networks")
    parser.add_argument("--frames", type=Path, required=True, help="folder with images in train and val")
    parser.add_argument("--images", type=int, default=100, help="to calibrate on, as many to measure on (%(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="networks whose file's name contains it")
    parser.add_argument("--adaptive", action="store_true", help="by adaptive rounding, too; several times as long")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments, rows = options(argv), list[Row]()
    print(f"{'network':38} {'output':24} {'ours':>6} {'min-max':>8} {'adaptive':>8} {'other':>6} {'published':>9}")
    try:
        with one_thread(), tempfile.TemporaryDirectory() as folder:
            for tried in NETWORKS:
                if arguments.only in tried.file and (arguments.models / tried.file).exists():
                    found = rows_of(tried, arguments, Path(folder))
                    rows += found
                    for row in found:
                        show(row)
    except (HilError, NasError) as error:
        print(f"quantizer_table: {error}", file=sys.stderr)
        return error.exit_code
    if not rows:
        print(f"quantizer_table: {arguments.models}: none of the networks is here", file=sys.stderr)
        return 2
    holds = verdict(rows)
    if arguments.out:
        record = {"images": arguments.images, "holds": holds, "rows": [asdict(row) for row in rows]}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
