"""A node of an ONNX graph as its importer sees it: typed attributes, and inputs that are tensors or constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.formats.importers.builder import NodeBuilder
from deploy.formats.importers.network import Array, Operand, Unsupported, Value
from deploy.formats.importers.onnx_graph import OnnxNode


@dataclass(frozen=True, eq=False)
class Op:
    """Attributes:
    inputs: None where one is left out.
    """

    node: OnnxNode
    inputs: Sequence[Operand | None]
    builder: NodeBuilder
    opset: int

    @property
    def name(self) -> str:
        """For the float node: that of the result."""
        return self.node.outputs[0]

    def operand(self, index: int) -> Operand:
        operand = self.inputs[index] if index < len(self.inputs) else None
        if operand is None:
            raise Unsupported(f"its input {index} is missing")
        return operand

    def value(self, index: int = 0) -> Value:
        operand = self.operand(index)
        if not isinstance(operand, Value):
            raise Unsupported(f"its input {index} is a constant and another one is not; exchange or fold them")
        return operand

    def image(self) -> Value:
        """The first input, which has to be a map (1, C, H, W)."""
        value = self.value()
        if len(value.shape) != 4 or value.shape[0] != 1:
            raise Unsupported(f"it reads {list(value.shape)}: maps (1, C, H, W) are supported; export a batch of 1")
        return value

    def array(self, index: int) -> Array:
        operand = self.operand(index)
        if isinstance(operand, Value):
            raise Unsupported(
                f"its input {index}, '{self.node.inputs[index]}', is computed from the network's input: it has to be "
                "a constant"
            )
        return operand

    def optional_array(self, index: int) -> Array | None:
        return None if index >= len(self.inputs) or self.inputs[index] is None else self.array(index)

    def sizes(self, index: int) -> tuple[int, ...]:
        """A constant list of whole numbers."""
        return tuple(int(n) for n in np.asarray(self.array(index)).reshape(-1))

    def integer(self, name: str, default: int) -> int:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise Unsupported(f"{name} {value!r} is no whole number")
        return value

    def real(self, name: str, default: float) -> float:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int | float):
            raise Unsupported(f"{name} {value!r} is no number")
        return float(value)

    def text(self, name: str, default: str) -> str:
        return str(self.node.attributes.get(name, default))

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        value = self.node.attributes.get(name)
        if value is None:
            return tuple(default)
        if not isinstance(value, tuple):
            raise Unsupported(f"{name} {value!r} are no whole numbers")
        return tuple(int(n) for n in value)

    def axes_or_input(self, name: str, index: int, since: int) -> tuple[int, ...] | None:
        """What is an attribute below opset `since` and an input from there on; None where it is left out."""
        if self.opset < since:
            return self.integers(name, ()) if name in self.node.attributes else None
        return None if self.optional_array(index) is None else self.sizes(index)

    def axis(self, axis: int, rank: int) -> int:
        """From 0 on; `Unsupported` beyond the rank."""
        if not -rank <= axis < rank:
            raise Unsupported(f"axis {axis} of a tensor of {rank}")
        return axis % rank

    def only(self, **allowed: object) -> None:
        """`Unsupported` unless these attributes, where they are given, have these values."""
        for name, value in allowed.items():
            given = self.node.attributes.get(name, value)
            if given != value:
                raise Unsupported(f"{name} {given!r} is not supported")


Handler = Callable[[Op], Sequence[Operand]]
Handlers = Mapping[str, Handler]
