"""ResNet18 and ResNet50: their forms, their folding, what HAWQ-V3 publishes of them, their way to integers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nas.errors import ConfigError
from nas.lcpaq.options import options_of
from nas.lcpaq.policy import Policy, applied, layers_of, ties
from nas.lcpaq.program import solve
from nas.lcpaq.tied import ends_exempt
from nas.networks.blocks import recalibrate
from nas.networks.resnet import Depth, ResNet, ResNetForm
from nas.quant import post_training, simulate
from nas.quant.equalize import equalize
from nas.quant.float_graph import INPUT, Conv, run
from nas.quant.folding import fold_resnet
from nas.quant.integer_graph import QAdd, QMaxPool
from nas.quant.shapes import shapes_of
from nas.tasks.task import fold

IMAGENET = (224, 224)
MIB = 8 * 2**20  # what HAWQ-V3's tables call MB


def network(size: tuple[int, int], width: int = 4, classes: int = 5, depth: Depth = 18) -> tuple[ResNet, torch.Tensor]:
    torch.manual_seed(0)
    model = ResNet(classes, size, ResNetForm(depth, width))
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
    recalibrate(model, images)
    return model.eval(), images


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("size", [(24, 32), (64, 64), (70, 90)])
def test_the_folded_network_is_the_module(size: tuple[int, int], depth: Depth) -> None:
    model, images = network(size, depth=depth)
    nodes = fold(model, size)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(run(nodes, {INPUT: images}).flatten(1), expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 0.1
    shapes = shapes_of(nodes, (*size, 3))
    for node in nodes[:-2]:
        assert shapes[node.name][0] >= size[0] / model.output_stride


def test_the_form_follows_the_images_size() -> None:
    small, large = (shapes_of(fold_resnet(ResNet(10, size)), (*size, 3)) for size in ((32, 32), IMAGENET))
    assert "pool" not in small and small["stem"] == small["layer1/1/add"] == (32, 32, 64)
    assert large["stem"] == (112, 112, 64) and large["pool"] == large["layer1/1/add"] == (56, 56, 64)
    assert small["layer4/1/add"] == (4, 4, 512) and large["layer4/1/add"] == (7, 7, 512)  # table 1
    deep = shapes_of(fold_resnet(ResNet(10, IMAGENET, ResNetForm(50))), (*IMAGENET, 3))
    assert (deep["layer1/2/conv2"], deep["layer1/2/add"]) == ((56, 56, 64), (56, 56, 256))
    assert deep["layer4/2/add"] == (7, 7, 2048) and sum(name.endswith("add") for name in deep) == 16
    assert ResNet(10, (63, 64)).output_stride == 8 and ResNet(10, (64, 64)).output_stride == 32


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("resnet18", ResNetForm(18, 64)),
        ("resnet18w16", ResNetForm(18, 16)),
        ("resnet50", ResNetForm(50, 64)),
        ("resnet50w8", ResNetForm(50, 8)),
        *((name, None) for name in ("resnet1", "resnet18w", "xresnet18", "resnet34", "resnet5018")),
    ],
)
def test_a_name_says_depth_and_width(name: str, form: ResNetForm | None) -> None:
    assert ResNetForm.parse(name) == form
    assert form is None or str(form) == name


def test_a_network_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="resnet18: 5 classes and 0 channels"):
        ResNet(5, (32, 32), ResNetForm(18, 0))


@pytest.mark.parametrize(
    ("depth", "bits", "size_mb", "gbops"), [(18, 8, 11.1, 116), (18, 4, 5.8, 34), (50, 4, 13.1, 67)]
)
def test_sizes_and_bit_operations_are_hawq_v3s(depth: Depth, bits: int, size_mb: float, gbops: int) -> None:
    """arXiv 2011.10680, table 1: W8A8 and W4A4, with 8 bits in the first and the last layer; digits are cut off.

    It counts weights alone, in MiB: of ResNet18 11.138 and 5.818; with our 32-bit biases and offsets 11.160 and 5.845.
    """
    nodes = fold_resnet(ResNet(1000, IMAGENET, ResNetForm(depth)))
    published = layers_of(nodes, (*IMAGENET, 3))
    ends = (published[0], published[-1])
    width = {layer.name: 8 if layer in ends else bits for layer in published}
    weights = sum(layer.weights * width[layer.name] for layer in published) / MIB
    bops = sum(layer.bops(width[layer.name], width[layer.name]) for layer in published) / 1e9
    assert (math.floor(10 * weights) / 10, math.floor(bops)) == (size_mb, gbops)
    with_biases = sum(layer.size_bits(width[layer.name]) for layer in published) / MIB
    if depth == 18:
        assert with_biases - weights == pytest.approx(0.0221 if bits == 8 else 0.0266, abs=0.0001)


@pytest.mark.parametrize(("depth", "gmacs"), [(18, 1.8), (50, 3.8)])
def test_multiply_accumulates_are_those_of_the_papers_table_1(depth: Depth, gmacs: float) -> None:
    layers = layers_of(fold_resnet(ResNet(1000, IMAGENET, ResNetForm(depth))), (*IMAGENET, 3))
    assert math.floor(sum(layer.bops(1, 1) for layer in layers) / 1e8) / 10 == gmacs


def test_down_sampling_is_tied_to_the_main_branch() -> None:
    """To the layers that it is added to. HAWQ-V3's own program ties it to conv1, which reads the same tensor."""
    nodes = fold_resnet(ResNet(5, (32, 32), ResNetForm(18, 2)))
    assert ties(nodes) == (
        ("stem", "layer1/0/conv2", "layer1/1/conv2"),
        *((f"layer{i}/0/conv2", f"layer{i}/0/downsample", f"layer{i}/1/conv2") for i in (2, 3, 4)),
    )


def test_a_layer_that_keeps_8_bits_leaves_those_tied_to_it_free() -> None:
    nodes = fold_resnet(ResNet(5, (32, 32), ResNetForm(18, 2)))
    layers = layers_of(nodes, (32, 32, 3))
    table = {layer.name: {4: 1.0, 8: 0.0} for layer in layers}
    options = ends_exempt(options_of(layers, [(4, 8), (8, 8)], table, groups=ties(nodes)))
    ends = {layers[0], layers[-1]}
    policy = solve(options, {"size_bits": sum(layer.size_bits(8 if layer in ends else 4) for layer in layers)})
    assert {name for name, bits in policy.bits.items() if bits == 8} == {"stem", "logits"}


def test_integers_follow_the_float_network() -> None:
    """Mixed bits, through equalization: chains are conv1 to conv2, with RELU between."""
    model, images = network((64, 80), width=8)
    nodes = fold_resnet(model)
    equalized = equalize(nodes, [{INPUT: images}])
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(run(equalized, {INPUT: images}).flatten(1), expected, rtol=1e-4, atol=1e-4)
    changed = [
        a.name for a, b in zip(nodes, equalized, strict=True) if isinstance(a, Conv) and a.weight is not b.weight
    ]
    assert changed == [f"layer{i}/{j}/conv{k}" for i in (1, 2, 3, 4) for j in (0, 1) for k in (1, 2)]
    images = images.clamp(-1, 1)
    graph = post_training.quantize(applied(nodes, Policy({"layer1/0/conv1": 6})), [images], (64, 80, 3))
    assert sum(isinstance(op, QAdd) and op.activation == "relu" for op in graph.operators) == 8
    assert sum(isinstance(op, QMaxPool) for op in graph.operators) == 1
    answer = graph.tensors[graph.output]
    q = simulate.run(graph, simulate.quantize(images, graph.tensors[INPUT]))
    noise = simulate.dequantize(q, answer).flatten(1) - run(nodes, {INPUT: images}).flatten(1)
    assert noise.square().mean() < 0.01 * run(nodes, {INPUT: images}).square().mean()
