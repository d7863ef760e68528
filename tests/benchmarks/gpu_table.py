"""How long all INT8 entries of Table I take on a GPU: a measured part, what follows for all, and the roofline.

    .venv/bin/python -m tests.benchmarks.gpu_table [--peaks h100|h200] [--tb-per-s X] [--tops X] [--batch 16]

measures as `table1_minutes` does, each step and six leaves a block on all the images, but by the clock: a GPU has no
processor time. The paper (arXiv 2401.12350) took 14.87 h on an RTX 8000 for 500 images of 512x1024.
`--device cpu --size 180x240 --images 8` runs the same code without a GPU; only the rates of its roofline mean nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from deploy.cli.compile import parse_size
from deploy.compile.weights import Origin
from hil.errors import HilError
from nas.errors import NasError
from nas.space import SearchSpace
from nas.training.device import DEVICES, Compute
from nas.training.threads import one_thread
from tests.benchmarks.roofline import PEAKS, Peaks, block_least_seconds
from tests.benchmarks.table1_minutes import BITS, SPACE, Walk, block_seconds

PAPER_HOURS, AIM_HOURS = 14.87, 0.5


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="512x1024", help="of the image, HxW (default %(default)s)")
    parser.add_argument("--images", type=int, default=500, help="that the NSR is computed on (default %(default)s)")
    parser.add_argument("--calibration", type=int, default=16, help="images (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images at a time (default %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--peaks", choices=PEAKS, default="h200", help="the roofline's device (default %(default)s)")
    parser.add_argument("--tb-per-s", type=float, help="its memory's rate, if another")
    parser.add_argument("--tops", type=float, help="its dense int8 operations, 1e12 a second, if others")
    return parser.parse_args(argv)


def measure(arguments: argparse.Namespace) -> None:
    device = Compute(device=arguments.device).place()
    space = SearchSpace.load(SPACE)
    origin = Origin(space, parse_size(arguments.size))
    walk = Walk(arguments.calibration, arguments.images, device, arguments.batch)
    peaks = PEAKS[arguments.peaks]
    peaks = Peaks(
        arguments.tb_per_s * 1e12 if arguments.tb_per_s else peaks.bytes_per_s,
        arguments.tops * 1e12 / 2 if arguments.tops else peaks.macs_per_s,
    )
    whole = part = least = 0.0
    for block in range(1, len(space.blocks) + 1):
        seconds, measured = block_seconds(origin, block, walk)
        bound = block_least_seconds(origin, block, peaks, walk.images, walk.calibration)
        count = sum(1 for _ in space.subnets(block, BITS))
        print(f"block {block}: {count} subnets, {seconds:.1f} s (measured {measured:.1f} s), roofline {bound:.2f} s")
        whole, part, least = whole + seconds, part + measured, least + bound
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "one core of this machine"
    print(
        f"{space.count()} subnets, {walk.images} images of {arguments.size} on {name}: {whole / 3600:.3f} h, "
        f"extrapolated from {part:.0f} s; roofline {least / 3600:.4f} h ({peaks.bytes_per_s / 1e12:g} TB/s, "
        f"{2 * peaks.macs_per_s / 1e12:g} TOPS), a factor of {whole / least:.0f}; the paper {PAPER_HOURS} h, "
        f"the aim {AIM_HOURS} h on an H200"
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = options(argv)
    try:
        with one_thread():
            measure(arguments)
    except (HilError, NasError) as error:
        print(f"gpu_table: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
