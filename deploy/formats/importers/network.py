"""A network as it was imported: its float nodes, and how its input and outputs lie in the file that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hil.errors import ModelError, UsageError
from hil.input_shape import InputShape
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.float_graph import INPUT, Node, last_reads

Axes = tuple[int | None, ...]
Array = NDArray[np.generic]


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

    @property
    def _held(self) -> list[int]:
        """The axes of the file that are longer than 1, in the deployed order."""
        return [axis for axis in self.axes if axis is not None and self.shape[axis] > 1]

    @property
    def _batched(self) -> bool:
        return self.shape[:1] == (1,)

    def to_torch(self, array: NDArray[np.float32]) -> Tensor:
        """What the float network reads for `array` of `shape`; its first axis may be longer than the file's 1."""
        batch = array.shape[:1] if self._batched else ()
        if array.shape != (*batch, *self.shape[len(batch) :]):
            raise UsageError(f"the network's input has the shape {_by(self.shape)}, not {_by(array.shape)}")
        held, order = self._held, sorted(self._held)
        flat = array.reshape(-1, *(self.shape[axis] for axis in order))
        ordered = flat.transpose(0, *(1 + order.index(axis) for axis in held))
        return from_file_order(torch.from_numpy(ordered.reshape(len(flat), *self.deployed_shape).copy()))

    def to_array(self, y: Tensor) -> NDArray[np.float32]:
        """The network's result `y` with `shape`; of several images with a first axis for them."""
        held = self._held
        flat = to_file_order(y).reshape(len(y), *(self.shape[axis] for axis in held))
        ordered = flat.permute(0, *(1 + held.index(axis) for axis in sorted(held)))
        array: NDArray[np.float32] = ordered.reshape(len(y), *self.shape[1 if self._batched else 0 :]).numpy()
        return array if self._batched or len(y) > 1 else array[0]


Operand = Value | Array
Sizes = tuple[int | None, ...]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """Attributes:
    nodes: they read `INPUT`; every one of them is needed for some output.
    input: the one input that images go to.
    outputs: by their names in the file, in its order.
    input_name: its name in the file.
    """

    nodes: tuple[Node, ...]
    input: Value
    outputs: dict[str, Value]
    input_name: str

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
        f"{where}: {count} cannot be imported: {listed}; change the network, cut it before them with --outputs NAME, "
        "or behind them with --input NAME"
    )


def static(where: str, name: str, sizes: Sizes, shapes: Shapes) -> tuple[int, ...]:
    """The input's shape: as `shapes` gives it, else the file's with a batch of 1 where it leaves that open."""
    if unknown := [other for other in shapes if other != name]:
        raise UsageError(f"{where}: --input-shape {unknown[0]}: the network's input is '{name}'")
    if name in shapes:
        given = shapes[name]
        fits = len(given) == len(sizes) and all(n in (None, m) for n, m in zip(sizes[1:], given[1:], strict=True))
        if not fits:
            raise UsageError(f"{where}: --input-shape {InputShape(name, given)} does not fit the file's {_by(sizes)}")
        return given
    known = [1 if i == 0 and n is None else n for i, n in enumerate(sizes)]
    shape = tuple(n for n in known if n is not None)
    if len(shape) < len(known):
        wanted = f"{InputShape(name, ())}{_by(known)}"
        raise ModelError(
            f"{where}: the file leaves sizes of its input open: add --input-shape {wanted}, with yours for N"
        )
    return shape


def _by(shape: Sequence[int | None]) -> str:
    return "x".join("N" if n is None else str(n) for n in shape) or "a scalar"
