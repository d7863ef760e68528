"""The tree over full networks against each network assembled, recalibrated, quantized and run separately."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.classifier import Classifier
from nas.networks.segmenter import Encoder, Head, Segmenter, assemble
from nas.quant import post_training, simulate, uint8
from nas.quant.float_graph import INPUT, run
from nas.quant.folding import fold_conv, fold_mbconv
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Architecture, Block, Choice, SearchSpace
from nas.tasks.divergence import NetworkTree, head_of
from nas.tasks.task import fold
from nas.training.threads import one_thread

SPACE = SearchSpace(
    "small", 8, 8, (Block(2, 12, 1, 1), Block(1, 12, 2, 1, dilation=2)), kernels=(3, 5), expansions=(2,), bits=(4, 8)
)
SIZE = (24, 32)
Built = tuple[Encoder, list[SuperBlock]]


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def built(task: str) -> Built:
    """A teacher and supernets with random weights."""
    torch.manual_seed(0)
    layers = [[Choice(3, 2)] * block.layers for block in SPACE.blocks]
    network = Segmenter(SPACE, layers, 5, Head(8, (2,))) if task == "segmentation" else Classifier(SPACE, layers, 5, 16)
    return network.eval(), [SuperBlock(SPACE, block).eval() for block in (1, 2)]


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 1.9 - 1


def alone(
    of: Built, architecture: Architecture, calibration: Tensor, x: Tensor, *, scheme: Scheme, applied: simulate.Applied
) -> Tensor:
    """The logits of one network: each layer's statistics come from the folded ones before it."""
    teacher, supernets = copy.deepcopy(of)
    layers = [subnet.choices for subnet in architecture.subnets]
    kind = type(teacher)
    head = Head(8, (2,)) if kind is Segmenter else 16
    model = assemble(kind(SPACE, layers, 5, head), teacher, supernets, architecture).eval()
    recalibrate(nn.Sequential(model.stem, model.first), calibration)
    nodes = [fold_conv(model.stem, "stem", INPUT), *fold_mbconv(model.first, "first", "stem")]
    y = run(nodes, {INPUT: calibration})
    for block in model.blocks:
        for layer in block:
            recalibrate(layer, y)
            y = run(fold_mbconv(layer, "layer", INPUT), {INPUT: y})
    recalibrate(head_of(model), y)
    nodes = fold(model, SIZE, architecture)
    nodes = nodes[: [node.name for node in nodes].index("logits") + 1]
    graph = post_training.quantize(nodes, [calibration], (*SIZE, 3), scheme)
    q = simulate.run(graph, simulate.quantize(x, graph.tensors[INPUT]), applied)
    return simulate.dequantize(q, graph.tensors[graph.output])


@pytest.mark.parametrize(
    ("task", "scheme", "applied"),
    [
        ("segmentation", DEFAULT, simulate.apply),
        ("segmentation", Scheme("channel", bias_correction=True), simulate.apply),
        ("segmentation", Scheme("tensor"), uint8.apply),
        ("classification", DEFAULT, simulate.apply),
    ],
)
def test_the_tree_has_the_logits_of_every_network_alone(task, scheme, applied):
    of, calibration, x = built(task), images(4, 1), images(3, 2)
    rng = random.Random(0)
    wanted = list(dict.fromkeys(SPACE.sample(rng) for _ in range(8)))
    tree = NetworkTree(*copy.deepcopy(of), scheme, applied)
    found = dict(tree.logits(calibration, x, wanted))
    assert found.keys() == set(wanted)
    for architecture in wanted:
        expected = alone(of, architecture, calibration, x, scheme=scheme, applied=applied)
        assert torch.equal(found[architecture], expected)


def test_divergence_is_of_the_integers_from_the_targets():
    of, calibration, x = built("segmentation"), images(4, 1), images(3, 2)
    wanted = [SPACE.sample(random.Random(seed)) for seed in range(3)]
    logits = dict(NetworkTree(*copy.deepcopy(of)).logits(calibration, x, wanted))
    targets = logits[wanted[0]]
    found = dict(NetworkTree(*copy.deepcopy(of)).divergences(calibration, x, targets, wanted))
    assert found[wanted[0]] == pytest.approx(0, abs=1e-7)
    for architecture in wanted[1:]:
        p, q = targets.double().softmax(1), logits[architecture].double().softmax(1)
        assert found[architecture] == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-4)
