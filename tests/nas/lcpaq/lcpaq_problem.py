"""Networks small enough for their full Hessian: every kind of layer, a residual addition, an unused output."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nas.data.sample import IGNORE
from nas.lcpaq.hessian import Problem, forward
from nas.lcpaq.losses import loss_of, squared_distance
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    Concat,
    Const,
    Conv,
    FullyConnected,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Mean,
    Mul,
    Node,
    PRelu,
    Reshape,
    Resize,
    Sigmoid,
    Softmax,
    Sub,
    Tanh,
    TransposedConv,
)
from nas.tasks.task import TASKS

CROSS_ENTROPY, PIXEL_CROSS_ENTROPY = loss_of(TASKS["classification"]), loss_of(TASKS["segmentation"])


def small_nodes(seed: int = 0) -> list[Node]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return 0.4 * torch.randn(*shape, generator=generator)

    return [
        Conv("stem", INPUT, drawn(4, 3, 3, 3), drawn(4), 2, 1, "relu6"),
        Conv("depthwise", "stem", 2 * drawn(4, 1, 3, 3), drawn(4), 1, 1, "relu6"),
        Conv("project", "depthwise", drawn(4, 4, 1, 1), drawn(4)),
        Add("add", "stem", "project"),
        Mean("mean", "add"),
        FullyConnected("logits", "mean", 2 * drawn(3, 4), drawn(3)),
        Softmax("probabilities", "logits"),
    ]


def small_problem(seed: int = 0, counts: tuple[int, ...] = (6, 4)) -> Problem:
    """A classifier and batches of `counts` images."""
    generator = torch.Generator().manual_seed(seed + 1)
    batches = [
        (2 * torch.randn(count, 3, 8, 8, generator=generator), torch.randint(3, (count,), generator=generator))
        for count in counts
    ]
    return Problem(small_nodes(seed), batches, CROSS_ENTROPY)


def dense_problem() -> Problem:
    """A segmenter: a pooled branch that is enlarged and joined, and a loss over labelled pixels, enlarged."""
    generator = torch.Generator().manual_seed(2)
    stem, depthwise, *_ = small_nodes(2)
    nodes = [
        stem,
        depthwise,
        Mean("pool", "depthwise"),
        Conv("pooled", "pool", torch.randn(2, 4, 1, 1, generator=generator), torch.ones(2), activation="relu6"),
        Resize("broadcast", "pooled", (4, 4)),
        Concat("joined", ("depthwise", "broadcast")),
        Conv("logits", "joined", torch.randn(3, 6, 1, 1, generator=generator), torch.zeros(3)),
        Resize("upsampled", "logits", (8, 8)),
        ArgMax("classes", "upsampled"),
    ]
    images, labels = torch.randn(4, 3, 8, 8, generator=generator), torch.randint(3, (4, 8, 8), generator=generator)
    labels[:, :3, 2:5] = IGNORE
    return Problem(nodes, [(images, labels)], PIXEL_CROSS_ENTROPY)


def residual_problem() -> Problem:
    """A small ResNet: a pooled stem, RELU after a convolution and after the addition of a down-sampled map."""
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape: int) -> Tensor:
        return 0.5 * torch.randn(*shape, generator=generator)

    nodes = [
        Conv("stem", INPUT, drawn(3, 2, 3, 3), drawn(3), activation="relu"),
        MaxPool("pool", "stem", 3, 2),
        Conv("conv1", "pool", drawn(4, 3, 3, 3), drawn(4), 2, activation="relu"),
        Conv("conv2", "conv1", drawn(4, 4, 3, 3), drawn(4)),
        Conv("downsample", "pool", drawn(4, 3, 1, 1), drawn(4), 2),
        Add("add", "conv2", "downsample", "relu"),
        Mean("mean", "add"),
        FullyConnected("logits", "mean", 2 * drawn(3, 4), drawn(3)),
    ]
    images, labels = torch.randn(5, 2, 9, 8, generator=generator), torch.randint(3, (5,), generator=generator)
    return Problem(nodes, [(images, labels)], CROSS_ENTROPY)


def curved_problem() -> Problem:
    """What imported networks have besides: curves, products of maps, tensors of other ranks, two outputs.

    The loss is the squared distance of the outputs to their own values.
    """
    generator = torch.Generator().manual_seed(6)

    def drawn(*shape: int) -> Tensor:
        return 0.5 * torch.randn(*shape, generator=generator)

    nodes: list[Node] = [
        Conv("stem", INPUT, drawn(4, 3, 3, 3), drawn(4), 2),
        HardSwish("swish", "stem"),
        Conv("grouped", "swish", drawn(4, 2, 1, 1), drawn(4)),
        PRelu("prelu", "grouped", drawn(1, 4, 1, 1).abs()),
        Mean("pool", "prelu"),
        FullyConnected("squeeze", "pool", drawn(4, 4), drawn(4), "relu"),
        Sigmoid("gate", "squeeze"),
        Mul("gated", "prelu", "gate"),
        TransposedConv("up", "gated", drawn(3, 4, 2, 2), drawn(3), 2),
        LeakyRelu("leaky", "up", 0.1),
        Const("shift", drawn(1, 3, 1, 1)),
        Sub("shifted", "shift", "leaky", "relu6"),
        Reshape("rows", "shifted", (8, 24)),
        FullyConnected("mixed", "rows", drawn(5, 24), drawn(5)),
        Tanh("tanh", "mixed"),
        FullyConnected("last", "tanh", drawn(2, 5), drawn(2)),
        Softmax("softmax", "last"),
        ArgMax("classes", "softmax"),
    ]
    images, outputs = torch.randn(4, 3, 8, 8, generator=generator), ("gated", "softmax")
    span = float(images.min()), float(images.max())
    own = Problem(nodes, [(images, torch.zeros(4))], squared_distance(torch.ones(1)), outputs, span)
    labels = own.logits(forward(own.needed, {}, images))
    return replace(own, batches=[(images, labels)], loss=squared_distance(torch.ones(labels.shape[1])))


def exact_blocks(problem: Problem) -> dict[str, Tensor]:
    """Each layer's block of the full Hessian of the mean loss, float64, by differentiating twice."""
    layers = problem.layers
    sizes = [layer.weight.numel() for layer in layers]

    def loss(flat: Tensor) -> Tensor:
        parts = zip(layers, flat.split(sizes), strict=True)
        weights = {layer.name: part.view_as(layer.weight) for layer, part in parts}
        summed = [len(x) * problem.loss_of(weights, x, y) for x, y in problem.batches]
        return torch.stack(summed).sum() / problem.images

    flat = torch.cat([layer.weight.flatten() for layer in layers])
    hessian = torch.autograd.functional.hessian(loss, flat).double()
    blocks, start = {}, 0
    for layer, size in zip(layers, sizes, strict=True):
        blocks[layer.name] = hessian[start : start + size, start : start + size]
        start += size
    return blocks


every_problem = pytest.mark.parametrize(
    "problem",
    [small_problem(), dense_problem(), residual_problem(), curved_problem()],
    ids=["classifier", "segmenter", "residual", "curved"],
)
"""Runs a test of one `problem` on each of them."""
