"""Shapes of feature maps, (H, W, C), along a list of float operators, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nas.errors import QuantizationError
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    FullyConnected,
    MaxPool,
    Mean,
    Node,
    Pad,
    Resize,
    Softmax,
    inputs_of,
)

Shape = tuple[int, ...]


def output_shape(node: Node, shapes: Sequence[Shape]) -> Shape:
    """The result's shape, where `shapes` are those of the inputs of `node`."""
    height, width, channels = shapes[0]
    match node:
        case Conv():
            return -(-height // node.stride), -(-width // node.stride), node.weight.shape[0]
        case MaxPool():
            return -(-height // node.stride), -(-width // node.stride), channels
        case FullyConnected():
            return 1, 1, node.weight.shape[0]
        case Mean():
            return 1, 1, channels
        case AveragePool():
            return (height - node.kernel) // node.stride + 1, (width - node.kernel) // node.stride + 1, channels
        case Pad():
            return height + sum(node.rows), width + sum(node.columns), channels
        case Flatten():
            return 1, 1, height * width * channels
        case Resize():
            return *node.size, channels
        case Concat():
            return height, width, sum(shape[2] for shape in shapes)
        case ArgMax():
            return height, width, 1
        case Add() | Softmax():
            return shapes[0]


def _check_fit(node: Node, shapes: Sequence[Shape]) -> None:
    """`QuantizationError` naming `node` and its inputs where their shapes do not fit."""
    maps = ", ".join(f"'{name}' {'x'.join(map(str, s))}" for name, s in zip(inputs_of(node), shapes, strict=True))
    channels = shapes[0][2]
    if isinstance(node, Conv):
        outputs, inputs = node.weight.shape[:2]
        if inputs != channels and not (inputs == 1 and outputs == channels):
            raise QuantizationError(
                f"convolution '{node.name}' has weights for {inputs} channels and reads {maps}: "
                "only convolutions over all channels and depthwise ones are supported"
            )
    elif isinstance(node, FullyConnected) and shapes[0] != (1, 1, node.weight.shape[1]):
        raise QuantizationError(
            f"fully connected '{node.name}' has weights for {node.weight.shape[1]} inputs and reads {maps}: "
            "flatten or average the map first"
        )
    elif isinstance(node, Add) and len(set(shapes)) > 1:
        raise QuantizationError(f"addition '{node.name}' reads maps of different shapes ({maps}): give them one shape")
    elif isinstance(node, Concat) and len({shape[:2] for shape in shapes}) > 1:
        raise QuantizationError(
            f"concatenation '{node.name}' reads maps of different sizes ({maps}): give them one height and width"
        )


def shapes_of(nodes: Iterable[Node], input_shape: Shape) -> dict[str, Shape]:
    """The shape of every tensor of `nodes`, which read `INPUT`.

    Raises `QuantizationError` naming the operator whose inputs do not fit together.
    """
    shapes = {INPUT: input_shape}
    for node in nodes:
        unknown = [name for name in inputs_of(node) if name not in shapes]
        if unknown:
            raise QuantizationError(f"'{node.name}' reads '{unknown[0]}', which no operator before it computes")
        read = [shapes[name] for name in inputs_of(node)]
        _check_fit(node, read)
        shapes[node.name] = output_shape(node, read)
        if min(shapes[node.name]) < 1:
            raise QuantizationError(f"'{node.name}' leaves an empty map, {shapes[node.name]}: give it a larger input")
    return shapes
