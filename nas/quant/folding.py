"""Networks as float operators, with batch normalization folded into the convolutions.

Block weights take the bit widths of an `architecture`, everything else 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from nas.networks.blocks import ConvBN, MBConv
from nas.networks.classifier import Classifier
from nas.networks.resnet import ResidualBlock, ResNet
from nas.networks.segmenter import Encoder, Segmenter
from nas.quant.float_graph import (
    INPUT,
    Add,
    ArgMax,
    Concat,
    Conv,
    FullyConnected,
    MaxPool,
    Mean,
    Node,
    Resize,
    Softmax,
    Weighted,
)
from nas.space import Architecture


def fold_conv(conv: ConvBN, name: str, x: str, bits: int = 8) -> Conv:
    weight, bias = conv.folded()
    return Conv(name, x, weight, bias, conv.stride, conv.dilation, conv.activation, bits)


def fold_mbconv(layer: MBConv, name: str, x: str, bits: int = 8) -> list[Node]:
    """The operators of one MBConv; the last one's result is what the next layer reads."""
    nodes: list[Node] = []
    last = x
    for part, conv in layer.convolutions().items():
        nodes.append(fold_conv(conv, f"{name}/{part}", last, bits))
        last = nodes[-1].name
    if layer.residual:
        nodes.append(Add(f"{name}/add", x, last))
    return nodes


def fold_layers(layers: Iterable[MBConv], name: str, x: str, bits: int = 8) -> list[Node]:
    """The operators of a block's layers, named `{name}/{layer}/...`."""
    nodes: list[Node] = []
    for i, layer in enumerate(layers):
        nodes += fold_mbconv(layer, f"{name}/{i}", nodes[-1].name if nodes else x, bits)
    return nodes


def fold_encoder(model: Encoder, architecture: Architecture | None = None) -> list[Node]:
    """From the image to the last block's map; block weights in `architecture`'s bits."""
    nodes: list[Node] = [fold_conv(model.stem, "stem", INPUT)]
    nodes += fold_mbconv(model.first, "first", "stem")
    for i, block in enumerate(model.blocks):
        bits = architecture.subnets[i].bits if architecture else 8
        layers = [layer for layer in block.children() if isinstance(layer, MBConv)]
        nodes += fold_layers(layers, f"b{i + 1}", nodes[-1].name, bits)
    return nodes


def fold_segmenter(model: Segmenter, size: tuple[int, int], architecture: Architecture | None = None) -> list[Node]:
    """The full network from the image to the class map at `size`; block weights in `architecture`'s bits."""
    nodes = fold_encoder(model, architecture)
    head, x = model.head, nodes[-1].name
    stride = model.space.output_stride
    map_size = (-(-size[0] // stride), -(-size[1] // stride))
    branches: list[Node] = [fold_conv(head.pointwise, "head/pointwise", x)]
    for i, branch in enumerate(head.dilated):
        assert isinstance(branch, ConvBN)  # noqa: S101 (for the type checker)
        branches.append(fold_conv(branch, f"head/dilated{i}", x))
    pooled: list[Node] = [
        Mean("head/mean", x),
        fold_conv(head.pooled, "head/pooled", "head/mean"),
        Resize("head/broadcast", "head/pooled", map_size),
    ]
    classifier = head.classifier
    assert classifier.bias is not None  # noqa: S101
    return [
        *nodes,
        *branches,
        *pooled,
        Concat("head/concat", (*(node.name for node in branches), "head/broadcast")),
        fold_conv(head.bottleneck, "head/bottleneck", "head/concat"),
        Conv("logits", "head/bottleneck", classifier.weight.detach(), classifier.bias.detach()),
        Resize("upsampled", "logits", size),
        ArgMax("classes", "upsampled"),
    ]


def fold_classifier(
    model: Classifier, architecture: Architecture | None = None, *, probabilities: bool = False
) -> list[Node]:
    """The full network from the image to `logits`, or to their softmax; block weights in `architecture`'s bits."""
    nodes = fold_encoder(model, architecture)
    linear = model.classifier
    nodes += [
        fold_conv(model.features, "features", nodes[-1].name),
        Mean("mean", "features"),
        FullyConnected("logits", "mean", linear.weight.detach(), linear.bias.detach()),
    ]
    return [*nodes, Softmax("probabilities", "logits")] if probabilities else nodes


def fold_resnet(model: ResNet) -> list[Node]:
    """The full network from the image to `logits`; layers are named `layer1/0/conv1`, `layer2/0/downsample`."""
    nodes: list[Node] = [fold_conv(model.stem, "stem", INPUT)]
    if model.pooled:
        nodes.append(MaxPool("pool", "stem", 3, 2))
    for i, stage in enumerate(model.stages, start=1):
        for j, block in enumerate(stage.children()):
            assert isinstance(block, ResidualBlock)  # noqa: S101 (for the type checker)
            nodes += _fold_block(block, f"layer{i}/{j}", nodes[-1].name)
    linear = model.classifier
    last = nodes[-1].name
    return [
        *nodes,
        Mean("mean", last),
        FullyConnected("logits", "mean", linear.weight.detach(), linear.bias.detach()),
    ]


def _fold_block(block: ResidualBlock, name: str, x: str) -> list[Node]:
    nodes: list[Node] = []
    for i, convolution in enumerate(block.convolutions, start=1):
        assert isinstance(convolution, ConvBN)  # noqa: S101 (for the type checker)
        nodes.append(fold_conv(convolution, f"{name}/conv{i}", nodes[-1].name if nodes else x))
    last, shortcut = nodes[-1].name, x
    if block.downsample is not None:
        nodes.append(fold_conv(block.downsample, f"{name}/downsample", x))
        shortcut = nodes[-1].name
    return [*nodes, Add(f"{name}/add", shortcut, last, "relu")]


def layers_by_name(model: Encoder) -> dict[str, ConvBN | nn.Conv2d | nn.Linear]:
    """The modules whose weights `fold_segmenter` and `fold_classifier` give the nodes of these names."""
    layers: dict[str, ConvBN | nn.Conv2d | nn.Linear] = {"stem": model.stem}
    blocks = [("first", model.first)]
    for i, block in enumerate(model.blocks, start=1):
        blocks += [(f"b{i}/{j}", layer) for j, layer in enumerate(block.children()) if isinstance(layer, MBConv)]
    for name, layer in blocks:
        layers |= {f"{name}/{part}": conv for part, conv in layer.convolutions().items()}
    if isinstance(model, Classifier):
        return layers | {"features": model.features, "logits": model.classifier}
    if isinstance(model, Segmenter):
        head = model.head
        dilated = {f"head/dilated{i}": branch for i, branch in enumerate(head.dilated) if isinstance(branch, ConvBN)}
        layers |= {"head/pointwise": head.pointwise, **dilated, "head/pooled": head.pooled}
        layers |= {"head/bottleneck": head.bottleneck, "logits": head.classifier}
    return layers


@torch.no_grad()
def unfold(model: Encoder, nodes: Iterable[Node]) -> None:
    """Give `model` the weights of folded `nodes`: folding it again gives them.

    A batch norm then changes nothing but the bias, and its statistics are those of its rescaled input.
    """
    layers = layers_by_name(model)
    for node in nodes:
        if not isinstance(node, Weighted):
            continue
        layer, bias = layers[node.name], node.bias
        if isinstance(layer, ConvBN):
            bn = layer.bn
            assert bn.running_mean is not None and bn.running_var is not None  # noqa: S101 (for the type checker)
            factor = bn.weight / torch.sqrt(bn.running_var + bn.eps)
            bn.running_mean *= factor
            bn.running_var *= factor.square()
            bn.weight.copy_(torch.sqrt(bn.running_var + bn.eps))
            bn.bias.copy_(bias + bn.running_mean)
        else:
            assert layer.bias is not None  # noqa: S101 (for the type checker)
            layer.bias.copy_(bias)
        layer.weight.copy_(node.weight)
