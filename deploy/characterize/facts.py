"""What is asked of a board: pairs of files of which rules say whether one costs more, and files whose outputs count.

A board's latency says nothing of where an operator ran, but two files that do the same work on the same input differ in
what their rules differ in. Every file has a golden pair as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import get_args

from deploy.characterize import graphs
from deploy.characterize.graphs import Shape
from deploy.formats.tflite.operators import Form
from hil.errors import UsageError
from nas.quant.arithmetic import Activations, Arithmetic
from nas.quant.integer_graph import Activation, IntegerGraph

SIZE = (96, 128)
CHANNELS = 32
CLASSES = 19
OUTPUT_STRIDE = 8
SMALLEST = 24  # the dilated kernels are 17 wide
RESIZED = (6, 8, CHANNELS)
KINDS = (("convolution", "conv3", False), ("depthwise", "depthwise3", True))
ACTIVATIONS: tuple[Activation, ...] = ("relu", "relu6")
FACTORS = (2, 3, 4, 5, 6, 8, 16)  # of RESIZE_BILINEAR


@dataclass(frozen=True, eq=False)
class Probe:
    """A file to measure; two with one name are the same file.

    `arithmetic` is the one that its expected outputs follow; None: the target's.
    """

    name: str
    graph: IntegerGraph
    activations: Activations = "int8"
    arithmetic: Arithmetic | None = None

    @property
    def form(self) -> Form:
        return Form(activations=self.activations)


@dataclass(frozen=True, eq=False)
class Fact:
    """One question.

    Attributes:
        name: what is asked.
        probe: the file in question.
        base: what its latency is compared with; None: only its outputs are compared.
    """

    name: str
    probe: Probe
    base: Probe | None = None


def facts(size: tuple[int, int] = SIZE) -> tuple[Fact, ...]:
    """All of them, on maps of `size`; raises UsageError for one that is too small, or odd."""
    if min(size) < SMALLEST or any(n % 2 for n in size):
        raise UsageError(f"--size {size[0]}x{size[1]}: give even sizes of {SMALLEST} and more")
    shape = (*size, CHANNELS)
    return (*_granularity(shape), *_kernels(shape), *_joins(shape), *_windows(shape), *_resizes(), *_ends(shape))


def _granularity(shape: Shape) -> Iterator[Fact]:
    for kernel in (1, 3, 5, 7):
        tensor = Probe(f"conv{kernel}", graphs.convolution(shape, kernel))
        channel = Probe(f"conv{kernel}-channel", graphs.convolution(shape, kernel, per_channel=True))
        yield Fact(f"convolution {kernel}x{kernel}: per channel", channel, tensor)
    tensor = Probe("depthwise3", graphs.convolution(shape, 3, depthwise=True))
    channel = Probe("depthwise3-channel", graphs.convolution(shape, 3, depthwise=True, per_channel=True))
    yield Fact("depthwise 3x3: per channel", channel, tensor)
    width = min(1024, prod(shape) // 64)
    tensor = Probe("fully", graphs.fully_connected(width, width))
    channel = Probe("fully-channel", graphs.fully_connected(width, width, per_channel=True))
    yield Fact("fully connected: per channel", channel, tensor)


def _kernels(shape: Shape) -> Iterator[Fact]:
    """Dilations, strides, and a kernel, whose work is counted."""
    for word, name, depthwise in KINDS:
        plain = Probe(name, graphs.convolution(shape, 3, depthwise=depthwise))
        for dilation in (2, 4, 7, 8):
            dilated = graphs.convolution(shape, 3, depthwise=depthwise, dilation=dilation)
            yield Fact(f"{word} 3x3: dilation {dilation}", Probe(f"{name}-d{dilation}", dilated), plain)
        strided = graphs.convolution(shape, 3, depthwise=depthwise, stride=2)
        yield Fact(f"{word} 3x3: stride 2", Probe(f"{name}-s2", strided), plain)
    five, seven = (Probe(f"depthwise{k}", graphs.convolution(shape, k, depthwise=True)) for k in (5, 7))
    yield Fact("depthwise: 7x7", seven, five)


def _joins(shape: Shape) -> Iterator[Fact]:
    """Additions, activations at an output, a concatenation."""
    equal = Probe("add", graphs.addition(shape))
    for apart in (16, 30):
        added = Probe(f"add-{apart}", graphs.addition(shape, apart=apart))
        yield Fact(f"addition: scales {apart} times apart", added, equal)
    yield Fact("addition: RELU6 at an output", Probe("add-relu6", graphs.addition(shape, activation="relu6")), equal)
    plain = Probe("conv1", graphs.convolution(shape, 1))
    for activation in ACTIVATIONS:
        ended = Probe(f"conv1-{activation}", graphs.convolution(shape, 1, activation=activation))
        yield Fact(f"convolution: {activation.upper()} at an output", ended, plain)
    wide = Probe("conv1-wide", graphs.convolution(shape, 1, widen=2))
    yield Fact("concatenation of equal scales", Probe("concat", graphs.concatenation(shape)), wide)


def _windows(shape: Shape) -> Iterator[Fact]:
    """Every element is read once, or the windows' elements are counted."""
    average = Probe("average2", graphs.average_pool(shape, 2, 2))
    for kernel in (3, 8):
        pooled = Probe(f"average{kernel}", graphs.average_pool(shape, kernel, kernel))
        yield Fact(f"average pooling {kernel}x{kernel}", pooled, average)
    yield Fact("mean over the map", Probe("mean", graphs.mean(shape)), average)
    largest = Probe("max2", graphs.max_pool(shape, 2, 2))
    yield Fact("max pooling 3x3", Probe("max3", graphs.max_pool(shape, 3, 2)), largest)
    yield Fact("padding", Probe("pad", graphs.pad(shape)), largest)


def _resizes() -> Iterator[Fact]:
    height, width, channels = RESIZED
    for factor in FACTORS:
        resized = graphs.resize(RESIZED, (height * factor, width * factor))
        yield Fact(f"resize by {factor}", Probe(f"resize{factor}", resized))
    yield Fact("resize by 3/2", Probe("resize-fraction", graphs.resize(RESIZED, (height * 3 // 2, width * 3 // 2))))
    yield Fact("resize by 2 and 4", Probe("resize-unequal", graphs.resize(RESIZED, (height * 2, width * 4))))
    yield Fact("resize of 1x1", Probe("resize-one", graphs.resize((1, 1, channels), (height, width))))


def _ends(shape: Shape) -> Iterator[Fact]:
    """The graph's inputs and outputs."""
    for word, name, depthwise in KINDS:
        graph = graphs.convolution(shape, 3, depthwise=depthwise)
        int8, uint8 = Probe(name, graph), Probe(f"{name}-uint8", graph, "uint8")
        yield Fact(f"{word} 3x3: int8 inputs and outputs", int8, uint8)
        yield Fact(f"{word} 3x3: uint8", uint8, int8)
    yield from _tails((*shape[:2], CLASSES))


def _tails(shape: Shape) -> Iterator[Fact]:
    """A class map at the logits' resolution; up-scaled logits, and their class map."""
    logits, classes = Probe("logits", graphs.tail(shape, classes=False)), Probe("class-map", graphs.tail(shape))
    yield Fact("class map", classes, logits)
    small = (shape[0] // OUTPUT_STRIDE, shape[1] // OUTPUT_STRIDE, CLASSES)
    low = Probe("logits-low", graphs.tail(small, classes=False))
    scaled = Probe("logits-scaled", graphs.tail(small, OUTPUT_STRIDE, classes=False))
    yield Fact("up-scaled logits", scaled, low)
    yield Fact("class map of up-scaled logits", Probe("class-map-scaled", graphs.tail(small, OUTPUT_STRIDE)), scaled)


def rounding(size: tuple[int, int] = SIZE) -> tuple[Probe, ...]:
    """One uint8 file, in which the arithmetics round otherwise, with the expected outputs of each."""
    graph = graphs.convolution((*size, CHANNELS), 3, depthwise=True)
    return tuple(Probe(f"depthwise3-uint8-{a}", graph, "uint8", a) for a in get_args(Arithmetic))
