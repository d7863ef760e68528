"""One sub-tree of the tables as a task that runs anywhere: evaluate its subnets, compile them, return their NSRs.

A sub-tree is one block's subnets with the same first choice, at all bit widths. What a task reads and writes is in the
run's folder, so tasks on other machines need it under the same path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from deploy.compile.artifact import Artifact, kernels_of, model_metadata, stored
from deploy.formats.files import write_atomically
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from nas.networks.blocks import SuperBlock
from nas.networks.segmenter import Encoder
from nas.noise import BlockNoise
from nas.nsr import BlockData, evaluate, golden_input
from nas.quant.arithmetic import LITERT, Arithmetic
from nas.quant.scheme import Scheme
from nas.space import Choice, SearchSpace, Subnet
from nas.training.threads import one_thread
from nas.training.train import save

IMAGES = 16  # that the teacher sees at a time


@dataclass(frozen=True)
class SubTree:
    """Subnets of one block that share their first choice: all of them, or those that are missing.

    Attributes:
        bits: the one width of these subnets; None: several widths.
    """

    block: int
    first: Choice
    subnets: tuple[Subnet, ...]
    bits: int | None = None

    def __str__(self) -> str:
        return f"b{self.block}_{self.first}" + (f"_w{self.bits}" if self.bits else "")


def sub_trees(space: SearchSpace, done: Collection[Subnet] = (), bits: Sequence[int] | None = None) -> list[SubTree]:
    """Sub-trees of the subnets not in `done`; the largest blocks first, so that the last ones to run are short.

    With `bits`: one for each of these widths. Without: one for all of the space's.
    """
    trees = []
    for block in sorted(range(1, len(space.blocks) + 1), key=lambda b: -space.blocks[b - 1].layers):
        for width in (None,) if bits is None else bits:
            missing = [subnet for subnet in space.subnets(block, width) if subnet not in done]
            for choice in space.choices:
                below = tuple(subnet for subnet in missing if subnet.choices[0] == choice)
                trees += [SubTree(block, choice, below, width)] if below else []
    return trees


def artifact(folder: Path, subnet: Subnet) -> Artifact:
    return Artifact.at(folder, str(subnet), shared_input=f"b{subnet.block}")


@dataclass(frozen=True)
class Population:
    """The task. `folder` is the run's subnets/; `key` goes into the files' metadata; `arithmetic`: of who runs them."""

    space: SearchSpace
    scheme: Scheme
    folder: Path
    key: str
    form: Form = field(default=Form(), kw_only=True)
    arithmetic: Arithmetic = field(default=LITERT, kw_only=True)

    def __call__(self, sub_tree: SubTree) -> dict[Subnet, BlockNoise]:
        """The noise of each subnet, whose files are there when this returns."""
        values = {}
        with one_thread():
            supernet, data = self._supernet(sub_tree.block), self.data(sub_tree.block)
            kernels = kernels_of(self.form, self.arithmetic)
            for evaluated in evaluate(supernet, data, sub_tree.subnets, self.scheme, applied=kernels):
                target = artifact(self.folder, evaluated.subnet)
                metadata = model_metadata(evaluated.graph, str(evaluated.subnet), self.key)
                write_atomically(target.expected, stored(evaluated.golden_output, self.form), durable=False)
                write_atomically(target.model, write(evaluated.graph, metadata, self.form), durable=False)
                values[evaluated.subnet] = evaluated.noise
        return values

    def prepare(
        self,
        teacher: Encoder,
        supernets: Iterable[SuperBlock],
        calibration: Iterable[Tensor],
        evaluation: Iterable[Tensor],
        weights: Sequence[Tensor] = (),
    ) -> None:
        """Write what tasks read, from images (N, 3, H, W) in batches: the teacher's maps, the supernets' weights.

        `weights`: by block, what each channel of its output counts in the weighted NSR; none: no weighted one.
        """
        self.inputs.mkdir(parents=True, exist_ok=True)
        with one_thread():
            self._save_maps("calibration", boundaries(teacher, calibration))
            self._save_maps("evaluation", boundaries(teacher, evaluation))
        for block, channels in enumerate(weights, start=1):
            np.save(self._weights(block), channels.numpy())
        for supernet in supernets:
            save(self.inputs / f"supernet{supernet.block}.pt", supernet.state_dict())
            golden = golden_input(self.data(supernet.block), self.scheme)
            write_atomically(self.folder / f"b{supernet.block}.input.bin", stored(golden, self.form))

    @property
    def inputs(self) -> Path:
        return self.folder / "inputs"

    def data(self, block: int) -> BlockData:
        """Maps that stay on disk until they are read."""
        calibration, evaluation, target = (
            torch.from_numpy(np.load(self.inputs / f"{name}.npy", mmap_mode="c"))
            for name in (f"calibration{block - 1}", f"evaluation{block - 1}", f"evaluation{block}")
        )
        path = self._weights(block)
        weights = torch.from_numpy(np.load(path)) if path.exists() else None
        return BlockData(calibration, evaluation, target, weights)

    def _weights(self, block: int) -> Path:
        return self.inputs / f"weights{block}.npy"

    def _supernet(self, block: int) -> SuperBlock:
        """A copy of the block's: traversals overwrite its batch norms."""
        with torch.device("meta"):
            supernet = SuperBlock(self.space, block)
        supernet.load_state_dict(torch.load(self.inputs / f"supernet{block}.pt", weights_only=True), assign=True)
        return supernet.eval()

    def _save_maps(self, name: str, batches: Iterable[list[Tensor]]) -> None:
        """One .npy file per boundary, (N, C, H, W) float32, written batch by batch."""
        count = 0
        with ExitStack() as files:
            opened: list[BinaryIO] = []
            for maps in batches:
                if not opened:
                    paths = [self.inputs / f"{name}{i}.npy" for i in range(len(maps))]
                    opened = [files.enter_context(path.open("w+b")) for path in paths]
                    for file, x in zip(opened, maps, strict=True):
                        _write_header(file, (0, *x.shape[1:]))
                for file, x in zip(opened, maps, strict=True):
                    file.write(x.contiguous().numpy().tobytes())
                count += len(maps[0])
            for file, x in zip(opened, maps, strict=True):
                file.seek(0)
                _write_header(file, (count, *x.shape[1:]))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The header's length does not depend on the count: NumPy pads it so that the first axis may grow."""
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


@torch.no_grad()
def boundaries(teacher: Encoder, images: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The maps at the block boundaries for each batch of images (N, 3, H, W)."""
    for batch in images:
        yield teacher.boundaries(batch)
