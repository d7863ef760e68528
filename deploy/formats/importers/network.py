"""A network as it was imported: its float nodes, and how its input and outputs lie in the file that it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.errors import ModelError, UsageError
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.float_graph import INPUT, Node, last_reads

Axes = tuple[int | None, ...]


class Unsupported(Exception):  # noqa: N818 (caught by the importers, which name all at once)
    """A node of the file has no float node that does the same; the message says why."""


@dataclass(frozen=True)
class Value:
    """A tensor of the imported file, and the tensor of the float network that holds it.

    The two orders of axes may differ, so that a transposition costs nothing until somebody needs the other order.

    Attributes:
        tensor: its name in the float network.
        shape: in the imported file, all of it; the batch, where it has one, is a first axis of size 1.
        axes: for each axis of the deployed tensor but the batch, the axis in the imported file that it holds; None for
            one of size 1 that holds none. Axes of size 1 need not be held.
    """

    tensor: str
    shape: tuple[int, ...]
    axes: Axes

    @property
    def deployed_shape(self) -> tuple[int, ...]:
        """Without the batch."""
        return tuple(1 if axis is None else self.shape[axis] for axis in self.axes)

    def to_torch(self, array: NDArray[np.float32]) -> Tensor:
        """What the float network reads for `array` of `shape`; its first axis may be longer than the file's 1."""
        batch = len(array) if self.shape[:1] == (1,) else 1
        if array.shape != (*([batch] if self.shape[:1] == (1,) else self.shape[:1]), *self.shape[1:]):
            raise UsageError(f"the network's input has the shape {_by(self.shape)}, not {_by(array.shape)}")
        shape = self.shape if batch == 1 else (1, *self.shape[1:])
        held = [axis for axis in self.axes if axis is not None and shape[axis] > 1]
        flat = array.reshape((batch, *(n for n in shape if n > 1)))
        ranks = sorted(held)
        ordered = flat.transpose(0, *(1 + ranks.index(axis) for axis in held))
        return from_file_order(torch.from_numpy(np.ascontiguousarray(ordered.reshape(batch, *self.deployed_shape))))

    def to_array(self, y: Tensor) -> NDArray[np.float32]:
        """The network's result `y` with `shape`; its first axis is as long as the batch."""
        batch = len(y)
        deployed = to_file_order(y).reshape(batch, *self.deployed_shape)
        held = [axis for axis in self.axes if axis is not None and self.shape[axis] > 1]
        flat = deployed.reshape(batch, *(self.shape[axis] for axis in held))
        ordered = flat.permute(0, *(1 + held.index(axis) for axis in sorted(held)))
        rest = self.shape[1:] if self.shape[:1] == (1,) else self.shape
        array: NDArray[np.float32] = ordered.reshape(batch, *rest).numpy()
        return array if batch > 1 or self.shape[:1] == (1,) else array[0]


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """Attributes:
    nodes: they read `INPUT`; every one of them is needed for some output.
    input: the one input that images go to.
    outputs: by their names in the file, in its order.
    """

    nodes: tuple[Node, ...]
    input: Value
    outputs: dict[str, Value]

    @torch.no_grad()
    def run(self, array: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The outputs for one input, or a batch of them, laid out as in the file."""
        env = {INPUT: self.input.to_torch(array)}
        kept = {value.tensor for value in self.outputs.values()}
        for node, done in zip(self.nodes, last_reads(self.nodes), strict=True):
            env[node.name] = node(env)
            for name in done:
                if name not in kept:
                    del env[name]
        return {name: value.to_array(env[value.tensor]) for name, value in self.outputs.items()}


def refused(where: str, reasons: Sequence[tuple[str, str]]) -> ModelError:
    """One line for all nodes, each (name and kind, why), that could not be imported."""
    listed = "; ".join(f"{node}: {why}" for node, why in reasons)
    count = "a node" if len(reasons) == 1 else f"{len(reasons)} nodes"
    return ModelError(
        f"{where}: {count} cannot be imported: {listed}; change the network, or cut it before them with --outputs NAME"
    )


def elements(shape: Sequence[int]) -> int:
    return math.prod(shape)


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
