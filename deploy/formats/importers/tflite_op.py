"""One operator of a .tflite file with its inputs, as its handler reads it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.formats.importers.arithmetic import clipped
from deploy.formats.importers.builder import NodeBuilder
from deploy.formats.importers.network import Array, Axes, Operand, Unsupported, Value
from deploy.formats.tflite.read import OperatorInfo

MAP: Axes = (1, 2, 3)
LIMITS = {"RELU": (0.0, math.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}


@dataclass(frozen=True, eq=False)
class TfliteOp:
    """An operator with its inputs: None where one is left out.

    Attributes:
        name: for the float node: that of the result.
        shape: of the result.
    """

    info: OperatorInfo
    inputs: Sequence[Operand | None]
    name: str
    shape: tuple[int, ...]
    b: NodeBuilder

    def operand(self, index: int) -> Operand:
        operand = self.inputs[index] if index < len(self.inputs) else None
        if operand is None:
            raise Unsupported(f"its input {index} is missing")
        return operand

    def value(self, index: int = 0) -> Value:
        operand = self.operand(index)
        if not isinstance(operand, Value):
            raise Unsupported(f"its input {index} is a constant")
        return operand

    def array(self, index: int) -> Array:
        operand = self.operand(index)
        if isinstance(operand, Value):
            raise Unsupported(f"its input {index} is computed from the network's input: it has to be a constant")
        return operand

    def optional_array(self, index: int) -> Array | None:
        return None if index >= len(self.inputs) or self.inputs[index] is None else self.array(index)

    def sizes(self, index: int) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array(index).reshape(-1))

    def option(self, name: str) -> int:
        return int(self.info.options.others.get(name, 0))

    @property
    def same(self) -> bool:
        return self.option("Padding") == 0

    def activated(self, y: Value) -> Value:
        """With the operator's fused activation."""
        kind = self.info.options.activation
        if kind == "NONE":
            return y
        if kind not in LIMITS:
            raise Unsupported(f"the fused activation {kind}")
        return clipped(self.b, self.name, y, *LIMITS[kind])

    def map(self, index: int = 0) -> tuple[Value, Axes]:
        value = self.value(index)
        if len(value.shape) != 4 or value.shape[0] != 1:
            raise Unsupported(f"it reads {list(value.shape)}: maps (1, H, W, C) are supported")
        return value, MAP


Handler = Callable[[TfliteOp], Sequence[Operand]]
