"""How long the INT8 tables of Table I take on this machine: a measured part, and what follows for all of them.

    .venv/bin/python -m tests.benchmarks.table1_minutes [--size 180x240] [--images 32] [--calibration 16] [--workers 2]

measures, on one thread, each layer of each block with each of its choices (108 steps of the descents) and six leaves a
block (NSR and file), with random weights and noise for maps: times depend on neither. A descent takes the step to
layer i (from 1) with a choice once for every prefix before it: 6^(i - 1) times. Sub-trees share nothing, so `--workers`
divide the sum where each has a core of its own. Processor time is counted, so that busy neighbours are not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from deploy.compile.artifact import model_metadata
from deploy.compile.weights import Origin
from deploy.formats.tflite.writer import write
from nas.noise import NsrReference
from nas.nsr import BATCH, Tree, source_tensor
from nas.quant import simulate
from nas.space import SearchSpace, Subnet
from nas.training.device import CPU
from nas.training.threads import one_thread

SPACE = Path(__file__).parents[2] / "nas/spaces/table1.toml"
BITS = 8


@dataclass(frozen=True)
class Walk:
    """How the table is computed: how many images of each kind, where, and how many at a time."""

    calibration: int
    images: int
    device: torch.device = CPU
    batch: int = BATCH

    def now(self) -> float:
        """Processor seconds, so that busy neighbours do not count; on a GPU the clock, with nothing under way."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.monotonic()

    def maps(self, count: int, *shape: int) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(0)
        return torch.randn(count, *shape, generator=generator, device=self.device)


def block_seconds(origin: Origin, block: int, walk: Walk) -> tuple[float, float]:
    """Seconds that one block's sub-trees take in all (extrapolated), and that were measured."""
    space, supernet = origin.space, deepcopy(origin.supernet(block)).to(walk.device)
    channels, size = space.input_channels(block), origin.map_size(block)
    x, evaluation = (walk.maps(n, channels, *size) for n in (walk.calibration, walk.images))
    tree = Tree(supernet, batch=walk.batch)
    root = tree.root(x, source_tensor(x), [BITS], evaluation)
    del evaluation
    tree.extend(root, space.choices[0], [BITS])  # the first one is slower
    prefixes = [root] * len(space.choices)
    total = measured = 0.0
    for layer in range(len(supernet.layers)):
        start = walk.now()
        prefixes = [tree.extend(p, c, [BITS]) for p, c in zip(prefixes, space.choices, strict=True)]
        seconds = walk.now() - start
        measured += seconds
        total += seconds * len(space.choices) ** layer
    target = NsrReference(walk.maps(walk.images, *prefixes[0].x.shape[1:]))
    start = walk.now()
    for prefix in prefixes:
        subnet, q = Subnet(block, prefix.choices, BITS), prefix.widths[BITS].q
        assert q is not None
        target.nsr(simulate.dequantize(part.float(), prefix.tensors[prefix.name]) for part in q.split(tree.batch))
        write(prefix.graph(BITS), model_metadata(prefix.graph(BITS), str(subnet), "key"))
    seconds = walk.now() - start
    return total + seconds * len(space.choices) ** (len(supernet.layers) - 1), measured + seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="180x240", help="of the image, HxW")
    parser.add_argument("--images", type=int, default=32, help="that the NSR is computed on")
    parser.add_argument("--calibration", type=int, default=16, help="images")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args(argv)
    height, width = map(int, arguments.size.split("x"))
    space = SearchSpace.load(SPACE)
    origin = Origin(space, (height, width))
    whole = part = 0.0
    with one_thread():
        for block in range(1, len(space.blocks) + 1):
            total, measured = block_seconds(origin, block, Walk(arguments.calibration, arguments.images))
            count = sum(1 for _ in space.subnets(block, BITS))
            print(f"block {block}: {count} subnets, {total:.0f} s on one core (measured {measured:.1f} s of them)")
            whole, part = whole + total, part + measured
    minutes = whole / arguments.workers / 60
    print(
        f"{space.count()} subnets, {arguments.images} images of {arguments.size}: {minutes:.1f} minutes on "
        f"{arguments.workers} cores, extrapolated from {part:.0f} s"
    )


if __name__ == "__main__":
    main()
