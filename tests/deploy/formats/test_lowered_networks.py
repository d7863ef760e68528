"""Float networks of any operators, quantized and written: LiteRT's outputs are the simulations', byte for byte."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import assume, given, settings

from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from nas.errors import QuantizationError
from nas.quant import reference, simulate, uint8
from nas.quant.file_order import to_file_order
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    AveragePool,
    Clip,
    Concat,
    Const,
    Conv,
    DepthToSpace,
    FullyConnected,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    PRelu,
    Reshape,
    Resize,
    Sigmoid,
    Slice,
    Softmax,
    SpaceToDepth,
    Sub,
    Tanh,
    Transpose,
    TransposedConv,
)
from nas.quant.integer_graph import IntegerGraph
from nas.quant.post_training import quantize
from nas.quant.ranges import minmax
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.shapes import shapes_of
from nas.quant.windows import UNPADDED
from tests.deploy.exactness import seeds

SHAPE = (8, 10, 4)


class Made:
    """A network under construction: each method adds operators to the end of `nodes`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.nodes: list[Node] = []
        self.last = INPUT

    def name(self) -> str:
        return f"n{len(self.nodes)}"

    def add(self, kind, *arguments, **options) -> str:
        name = self.name()
        self.nodes.append(kind(name, *arguments, **options))
        self.last = name
        return name

    @property
    def shape(self) -> tuple[int, ...]:
        return shapes_of(self.nodes, SHAPE)[self.last]

    def values(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def constant(self, *shape: int) -> str:
        last = self.last
        name = self.add(Const, self.values(*shape))
        self.last = last
        return name

    def activation(self) -> str:
        return self.random.choice(("none", "relu", "relu6"))

    # Layers

    def conv(self) -> None:
        channels, kernel = self.shape[2], self.random.choice(((3, 3), (1, 3), (2, 2), (1, 1)))
        groups = self.random.choice([g for g in (1, 2, channels) if channels % g == 0])
        outputs = groups * self.random.choice((1, 2)) if groups > 1 else self.random.choice((4, 6))
        padding = self.random.choice(("same", UNPADDED, (1, 1, 1, 1), (0, 1, 1, 0)))
        stride, dilation = self.random.choice(((1, 1), (2, 1), ((1, 2), 1), (1, 2)))
        weight, bias = self.values(outputs, channels // groups, *kernel), self.values(outputs)
        self.add(Conv, self.last, weight, bias, stride, dilation, self.activation(), padding=padding)

    def transposed_conv(self) -> None:
        weight, bias = self.values(4, self.shape[2], 3, 3), self.values(4)
        padding = self.random.choice((UNPADDED, (1, 1, 1, 1), (0, 1, 0, 1), (1, 0, 1, 0)))
        self.add(TransposedConv, self.last, weight, bias, 2, padding, self.activation())

    def squeeze_and_excite(self) -> None:
        x, channels = self.last, self.shape[2]
        if keep := self.random.random() < 0.5:
            self.add(Mean, x)
            self.add(Conv, self.last, self.values(channels, channels, 1, 1), self.values(channels))
        else:
            self.add(Mean, x, keep_dims=False)
            self.add(FullyConnected, self.last, self.values(channels, channels), self.values(channels), "relu")
        self.hard_sigmoid(1) if self.random.random() < 0.5 else self.add(Sigmoid, self.last)
        self.add(Mul, x, self.last)
        assert keep or self.shape[2] == channels

    # Single elements

    def hard_sigmoid(self, size: int = 1) -> None:
        self.add(Add, self.last, self.number(3.0), "relu6")
        self.add(Mul, self.last, self.number(1 / 6))

    def number(self, value: float) -> str:
        last = self.last
        name = self.add(Const, torch.full((1, 1, 1, 1), value))
        self.last = last
        return name

    def silu(self) -> None:
        x = self.last
        self.add(Sigmoid, x)
        self.add(Mul, x, self.last)

    def unary(self) -> None:
        kind = self.random.choice((Sigmoid, Tanh, HardSwish, Softmax))
        self.add(kind, self.last)

    def rectified(self) -> None:
        slope = self.values(1, self.shape[2], 1, 1) / 4
        kinds = (lambda: self.add(LeakyRelu, self.last, 0.1), lambda: self.add(PRelu, self.last, slope))
        self.random.choice(kinds)()

    def clip(self) -> None:
        low, high = self.random.choice(((0, math.inf), (0, 6), (-1, 1), (-math.inf, 2), (0.5, 3), (-2, -0.25)))
        self.add(Clip, self.last, float(low), float(high))

    def arithmetic(self) -> None:
        _, width, channels = self.shape
        shape = self.random.choice(((1, channels, 1, 1), (1, 1, 1, 1), (1, channels, 1, width)))
        pair = [self.last, self.constant(*shape)]
        self.random.shuffle(pair)
        self.add(self.random.choice((Add, Sub, Mul)), *pair, self.activation())

    def residual(self) -> None:
        x, channels = self.last, self.shape[2]
        self.add(Conv, x, self.values(channels, channels, 3, 3), self.values(channels), activation="relu6")
        self.add(self.random.choice((Add, Sub, Mul)), x, self.last)

    # Places

    def pool(self) -> None:
        kind, padding = self.random.choice((AveragePool, MaxPool)), self.random.choice(("same", UNPADDED, (1, 1, 1, 1)))
        self.add(kind, self.last, self.random.choice((2, (3, 2))), self.random.choice((1, 2)), padding)

    def resize(self) -> None:
        size = (self.random.randint(4, 12), self.random.randint(4, 12))
        mode = self.random.choice(("bilinear", "nearest"))
        self.add(Resize, self.last, size, mode, self.random.choice(("half_pixel", "align_corners", "asymmetric")))

    def pad(self) -> None:
        self.add(Pad, self.last, (1, 0), (0, 2), self.random.choice(((0, 0), (1, 1))))

    def join(self) -> None:
        x = self.last
        self.unary()
        self.add(Concat, (x, self.last), self.random.choice((-1, -2)))

    def join_constant(self) -> None:
        height, width, _ = self.shape
        constant = self.constant(1, 2, height, width)
        self.add(Concat, (self.last, constant, self.last))

    def part(self) -> None:
        height, width, channels = self.shape
        self.add(Slice, self.last, (1, 0, 0), (height - 1, (width + 1) // 2, channels), (1, 2, 1))

    def blocks(self) -> None:
        height, width, channels = self.shape
        if channels % 4 == 0:
            self.add(DepthToSpace, self.last, 2)
        elif height % 2 == 0 and width % 2 == 0:
            self.add(SpaceToDepth, self.last, 2)

    def sequence(self) -> None:
        """As attention has it: positions in a row, and back."""
        height, width, channels = self.shape
        self.add(Reshape, self.last, (height * width, channels))
        self.add(Transpose, self.last, (-1, -2))
        self.add(Softmax, self.last)
        self.add(Transpose, self.last, (-1, -2))
        self.add(Mul, self.last, self.constant(1, 1, channels))
        self.add(Reshape, self.last, (height, width, channels))

    def turn(self) -> None:
        self.add(Transpose, self.last, self.random.choice(((-1, -3, -2), (-2, -3, -1), (-2, -1, -3))))

    # Ends

    def end(self) -> None:
        kind = self.random.randint(0, 3)
        if kind == 0:
            self.add(ArgMax, self.last)
        elif kind == 1:
            self.add(Mean, self.last, keep_dims=False)
            self.add(FullyConnected, self.last, self.values(5, self.shape[2]), self.values(5))
            self.add(Add, self.last, self.constant(1, 5, 1, 1))
            self.add(Softmax, self.last)
        elif kind == 2:
            self.add(Reshape, self.last, (-1,))


STEPS = (
    Made.conv,
    Made.transposed_conv,
    Made.squeeze_and_excite,
    Made.hard_sigmoid,
    Made.silu,
    Made.unary,
    Made.rectified,
    Made.clip,
    Made.arithmetic,
    Made.residual,
    Made.pool,
    Made.resize,
    Made.pad,
    Made.join,
    Made.join_constant,
    Made.part,
    Made.blocks,
    Made.sequence,
    Made.turn,
)


def made(seed: int, length: int = 4) -> tuple[list[Node], tuple[str, ...]]:
    """A network and its outputs: its last tensor and another one."""
    made = Made(seed)
    for step in made.random.choices(STEPS, k=length):
        if min(made.shape[:2]) >= 4 and max(made.shape) < 40:
            step(made)
    middle = made.last
    made.end()
    return made.nodes, tuple(dict.fromkeys((made.last, middle))) if middle != INPUT else (made.last,)


def read_all(content: bytes, q: np.ndarray, kernels: OpResolverType) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], q)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def agree(graph, answers, results, shift: int = 0) -> None:
    for name, answer in zip(graph.outputs, answers, strict=True):
        assert answer.shape == graph.tensors[name].file_shape
        wanted = to_file_order(results[name]).numpy().reshape(answer.shape).astype(np.int64)
        wanted = wanted + (shift if graph.tensors[name].dtype == "int8" else 0)
        np.testing.assert_array_equal(answer, wanted, name)


def data(seed: int) -> torch.Tensor:
    height, width, channels = SHAPE
    return torch.randn(4, channels, height, width, generator=torch.Generator().manual_seed(seed))


def quantized(seed: int, scheme: Scheme = DEFAULT) -> tuple[IntegerGraph, torch.Tensor]:
    """A network, and integers of its input."""
    nodes, outputs = made(seed)
    x = data(seed)
    try:
        graph = quantize(nodes, [x], SHAPE, scheme, minmax(x), outputs=outputs)
    except QuantizationError as error:
        assume("is zero on all calibration images" not in str(error))  # clipped twice
        raise
    return graph, simulate.quantize(x[:1], graph.tensors[INPUT])


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_networks_of_any_operators(seed):
    graph, q = quantized(seed)
    given, content = to_file_order(q).numpy().astype(np.int8), write(graph)
    agree(graph, read_all(content, given, OpResolverType.AUTO), simulate.outputs_of(graph, q))
    agree(graph, read_all(content, given, OpResolverType.BUILTIN_REF), reference.outputs_of(graph, q))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_networks_of_any_operators_in_uint8(seed):
    graph, q = quantized(seed, Scheme("tensor"))
    given = (to_file_order(q).numpy() + 128).astype(np.uint8)
    answers = read_all(write(graph, form=Form("uint8")), given, OpResolverType.AUTO)
    agree(graph, answers, simulate.outputs_of(graph, q, uint8.apply), shift=128)
