"""The QDQ model under construction: its nodes, its constants, and every map in the order in which operators read it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploy.formats.tflite.operators import Form
from nas.quant.integer_graph import IntegerGraph
from nas.quant.integer_operators import QConstant
from nas.quant.names import unused

Order: TypeAlias = Literal["file", "image"]
"""Of a map's axes: the deployed file's (N, H, W, C), or (N, C, H, W), in which ONNX has convolutions, poolings and
resizes. A vector is a 1 x 1 map in the latter; tensors of other ranks have the file's order only."""
Scale: TypeAlias = tuple[NDArray[np.float32], int]
"""Of constants: one or one for each entry of an axis, and the zero point."""
PERMUTATIONS: dict[Order, tuple[int, ...]] = {"image": (0, 3, 1, 2), "file": (0, 2, 3, 1)}
IMAGE_AXES = {-1: 1, -2: 3, -3: 2}


class QdqModel:
    """Each tensor of `graph` as integers and, once some operator asks, as real values, in one order or in both.

    What operators read and leave are real values: between DequantizeLinear and QuantizeLinear runtimes find a float
    operator, and fuse the three into an integer kernel. `reserved`: names that no inner tensor may have.
    """

    def __init__(self, graph: IntegerGraph, form: Form, reserved: Iterable[str]) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.graph, self.form = graph, form
        self.shift = 128 if form.activations == "uint8" else 0
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, str], Any] = {}
        self._taken = set(reserved)
        self._values = {op.name: op.values for op in graph.operators if isinstance(op, QConstant)}
        self._integers: dict[tuple[str, Order], str] = {}
        self._readers = 0
        self._reals: dict[tuple[str, Order], str] = {}

    def _name(self, wanted: str) -> str:
        name = unused(wanted, self._taken)
        self._taken.add(name)
        return name

    def node(self, kind: str, inputs: list[str], owner: str, **attributes: Any) -> str:
        """The result of a new node, which is part of the operator or tensor `owner`."""
        output = self._name(f"{owner}/{kind}")
        self.nodes.append(self.helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, owner: str, part: str, data: NDArray[Any] | np.generic) -> str:
        """The constant that was first asked for as this part of an operator or tensor; "": of the model."""
        if (owner, part) not in self.constants:
            array = np.ascontiguousarray(data).reshape(data.shape)
            name = self._name(f"{owner}/{part}" if owner else part)
            self.constants[owner, part] = self.numpy_helper.from_array(array, name)
        held: str = self.constants[owner, part].name
        return held

    def integers64(self, owner: str, part: str, values: Iterable[int]) -> str:
        """Shapes, axes and positions."""
        return self.constant(owner, part, np.array(list(values), np.int64))

    def stored(self, values: NDArray[np.int8] | np.int8) -> NDArray[np.int8 | np.uint8]:
        """int8's integers in the file's type."""
        return (np.asarray(values, np.int16) + self.shift).astype(self.form.activations)

    # Maps

    def order_of(self, names: Iterable[str]) -> Order:
        """In which an operator that may have either reads these: as images where one of them is one already."""
        tensors = self.graph.tensors
        images = (name for name in names if tensors[name].rank == 4 and name not in self._values)
        return "image" if any((name, "image") in self._integers for name in images) else "file"

    def shape(self, name: str, order: Order) -> tuple[int, ...]:
        tensor = self.graph.tensors[name]
        if order == "file":
            return tensor.file_shape
        height, width, channels = tensor.shape
        return 1, channels, height, width

    def axis(self, name: str, axis: int, order: Order) -> int:
        """Where a map has an axis of the file, which is counted from its last one."""
        return IMAGE_AXES[axis] if order == "image" else axis % self.graph.tensors[name].rank

    def integers(self, name: str, order: Order) -> str:
        if (name, order) not in self._integers:
            self._reorder(name, order)
        return self._integers[name, order]

    def real(self, name: str, order: Order) -> str:
        if name in self._values:  # for this reader: onnxruntime makes two uint8 copies of one name for two
            tensor, self._readers = self.graph.tensors[name], self._readers + 1
            scale = np.array([tensor.scale], np.float32), tensor.zero_point + self.shift
            return self.dequantized(name, f"{order}/{self._readers}", self._held(name, order), scale)
        if (name, order) not in self._reals:
            parameters = [self.integers(name, order), *self._parameters(name)]
            self._reals[name, order] = self.node("DequantizeLinear", parameters, name)
        return self._reals[name, order]

    def quantize(self, name: str, real: str, order: Order) -> None:
        """`real` is the network's input, or the result of the operator `name`."""
        self._integers[name, order] = self.node("QuantizeLinear", [real, *self._parameters(name)], name)

    def index(self, name: str, integers: str, order: Order) -> None:
        """`integers` are the network's input, or the result of the operator `name`."""
        self._integers[name, order] = integers

    def end(self, inner: str, output: str) -> None:
        """`inner` is the network's output of this name."""
        self.nodes.append(self.helper.make_node("Identity", [inner], [output], output))

    def rounded(self, name: str, real: str) -> str:
        """`real` to the integers of the tensor `name`, and back: where one operator becomes several."""
        integers = self.node("QuantizeLinear", [real, *self._parameters(name)], name)
        return self.node("DequantizeLinear", [integers, *self._parameters(name)], name)

    def move(self, kind: str, x: tuple[str, Order], y: tuple[str, Order], *constants: str, **attributes: Any) -> None:
        """A node that moves the elements of the tensor `x`, and makes `y` of them."""
        if self.graph.tensors[x[0]].dtype == "int32":
            self.index(y[0], self.node(kind, [self.integers(*x), *constants], y[0], **attributes), y[1])
        else:
            self.quantize(y[0], self.node(kind, [self.real(*x), *constants], y[0], **attributes), y[1])

    def _parameters(self, name: str) -> list[str]:
        tensor = self.graph.tensors[name]
        zero_point = self.stored(np.int8(tensor.zero_point))
        scale = self.constant(name, "scale", np.float32(tensor.scale))
        return [scale, self.constant(name, "zero_point", zero_point)]

    def _held(self, name: str, order: Order) -> NDArray[np.int8 | np.uint8]:
        """A constant of the graph, as it is stored."""
        values = self._values[name].reshape(self.graph.tensors[name].file_shape)
        if order == "image":
            values = values.transpose(PERMUTATIONS[order]) if values.ndim == 4 else values[..., None, None]
        return self.stored(values)

    def _reorder(self, name: str, order: Order) -> None:
        """Make the integers of `name` that have the other order have this one."""
        if name in self._values:
            self._integers[name, order] = self.constant(name, order, self._held(name, order))
            return
        other: Order = "file" if order == "image" else "image"
        if self.graph.tensors[name].rank == 4:
            self.move("Transpose", (name, other), (name, order), perm=PERMUTATIONS[order])
        else:
            shape = self.integers64(name, order, self.shape(name, order))
            self.move("Reshape", (name, other), (name, order), shape)

    # Constants with scales

    def dequantized(self, owner: str, part: str, values: NDArray[Any], scale: Scale, axis: int = 0) -> str:
        """Constant integers, as they are stored, with one scale or one for each entry of an axis."""
        scales, zero_point = scale
        scales = scales.reshape(()) if len(scales) == 1 else scales
        parts = [self.constant(owner, part, values), self.constant(owner, f"{part}/scale", scales)]
        parts.append(self.constant(owner, f"{part}/zero_point", np.full(scales.shape, zero_point, values.dtype)))
        return self.node("DequantizeLinear", parts, f"{owner}/{part}", **({"axis": axis} if scales.shape else {}))
