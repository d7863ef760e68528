"""The quantization-aware finish: its forward pass is the deployed one, and it lowers the deployed integers' loss."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.data import open_data
from nas.data.batches import images_of, load
from nas.data.sample import Dataset
from nas.errors import ConfigError
from nas.networks.blocks import recalibrate
from nas.networks.classifier import PooledHead
from nas.networks.segmenter import Encoder, Head
from nas.quant import simulate
from nas.quant.float_graph import INPUT, Node, Weighted, inputs_of
from nas.quant.folding import layers_by_name, unfold
from nas.quant.integer_graph import IntegerGraph
from nas.quant.post_training import quantize
from nas.quant.scheme import Scheme
from nas.space import Architecture, Block, SearchSpace
from nas.tasks.task import AnyHead, fold, network, training_loss
from nas.training.quantization_aware import FoldedNetwork, QuantizedNetwork, finished, on_levels, restore_finished
from nas.training.soft_targets import Forward, Loss
from nas.training.train import Schedule, train

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 12, 1, 1), Block(2, 16, 2, 1)), kernels=(3,), expansions=(1, 3), bits=(4,))
HEADS: dict[str, AnyHead] = {"shapes": PooledHead(24), "scenes": Head(8, (2,))}
SIZES = {"shapes": (32, 32), "scenes": (48, 64)}


def data_of(name: str) -> Dataset:
    return open_data(name, "train", SIZES[name], count=64 if name == "shapes" else 16)


def untrained(name: str) -> tuple[Encoder, Architecture, Dataset]:
    data = data_of(name)
    torch.manual_seed(0)
    architecture = SPACE.sample(random.Random(1))
    layers = [subnet.choices for subnet in architecture.subnets]
    model = network(data, SPACE, layers, HEADS[name])
    recalibrate(model, torch.cat(list(images_of(data, 8))))
    return model.eval(), architecture, data


def folds_of(model: Encoder, architecture: Architecture) -> Callable[[tuple[int, int]], list[Node]]:
    return lambda size: fold(model, size, architecture)


def deployed(model: Encoder, architecture: Architecture, data: Dataset, scheme: Scheme) -> IntegerGraph:
    graph = quantize(fold(model, data.size, architecture), list(images_of(data, 8)), (*data.size, 3), scheme)
    return graph.until("logits")


def logits(graph: IntegerGraph, images: Tensor) -> Tensor:
    q = simulate.run(graph, simulate.quantize(images, graph.tensors[graph.input]))
    return simulate.dequantize(q, graph.tensors["logits"])


@pytest.mark.parametrize("name", SIZES)
def test_a_network_is_what_was_unfolded_into_it(name: str):
    model, architecture, data = untrained(name)
    nodes = [node for node in fold(model, data.size, architecture) if isinstance(node, Weighted)]
    assert list(layers_by_name(model)) and {node.name for node in nodes} == layers_by_name(model).keys()
    generator = torch.Generator().manual_seed(0)
    moved = [
        replace(node, weight=node.weight * 1.5 + 0.01, bias=node.bias + torch.randn(1, generator=generator))
        for node in nodes
    ]
    unfold(model, moved)
    found = [node for node in fold(model, data.size, architecture) if isinstance(node, Weighted)]
    for ours, theirs in zip(found, moved, strict=True):
        assert torch.equal(ours.weight, theirs.weight), ours.name
        torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-5, atol=1e-6)


def test_batch_norms_that_were_unfolded_have_the_statistics_of_their_inputs():
    model, architecture, data = untrained("shapes")
    nodes, images = fold(model, data.size, architecture), torch.cat(list(images_of(data, 8)))
    unfold(model, nodes)
    recalibrate(model, images)  # on the images that the statistics were made on: nothing changes
    for ours, theirs in zip(fold(model.eval(), data.size, architecture), nodes, strict=True):
        if isinstance(ours, Weighted) and isinstance(theirs, Weighted):
            torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheme", [Scheme(), Scheme("tensor", "mse", equalize=True, few_bits="symmetric")], ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_its_forward_pass_is_that_of_the_deployed_integers(name: str, scheme: Scheme):
    model, architecture, data = untrained(name)
    calibration = list(images_of(data, 8))
    quantized = QuantizedNetwork(folds_of(model, architecture), calibration, scheme)
    quantized.calibrate()
    images, _ = load(data, range(8))
    graph = deployed(model, architecture, data, scheme)
    q = {INPUT: simulate.quantize(images, graph.tensors[INPUT])}
    parameters, tensors = quantized.parameters_by_map(), graph.tensors
    nodes = quantized.with_weights(quantized.nodes, {name: scale for name, (scale, _) in parameters.items()})
    for node, op in zip(
        nodes, graph.operators, strict=False
    ):  # each from the deployed integers: errors grow with depth
        q[node.name] = simulate.apply(op, q, tensors)
        given = {name: simulate.dequantize(q[name], tensors[name]) for name in inputs_of(node)}
        assert parameters[node.name] == (tensors[node.name].scale, tensors[node.name].zero_point), node.name
        with torch.no_grad():
            found = on_levels(node(given), *parameters[node.name])
        steps = (found - simulate.dequantize(q[node.name], tensors[node.name])).abs() / tensors[node.name].scale
        assert (steps > 0.5).float().mean() < 0.01 and steps.max() < 1.01, node.name
    with torch.no_grad():
        end = quantized(images)
    expected = simulate.dequantize(q["logits"], tensors["logits"])
    plain = FoldedNetwork(quantized.nodes).eval()(images).detach()
    error, noise = (float((end.reshape(y.shape) - y).square().mean()) for y in (expected, plain))
    assert error < 0.3 * noise


def test_gradients_pass_where_values_are_inside_the_range():
    x = torch.tensor([-3.0, -0.26, 0.9, 200.0], requires_grad=True)
    y = on_levels(x, 0.5, -126)
    assert y.tolist() == [-1.0, -0.5, 1.0, 126.5]
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 0.0]


# Training


def trained(name: str, folder: Path) -> tuple[Encoder, Architecture, Dataset]:
    model, architecture, data = untrained(name)
    schedule = Schedule(steps=60, optimizer="adamw", learning_rate=3e-3, batch_size=8)
    for _ in train(model, training_loss(model, data, 8, 0), schedule, folder / "trained.pt", "k"):
        pass
    return model, architecture, data


def task_of(data: Dataset) -> Callable[[Forward], Loss]:
    return lambda forward: training_loss(forward, data, 8, 1)


SHORT = Schedule(steps=40, optimizer="adamw", learning_rate=1e-3, batch_size=8)


def short(checkpoint: Path) -> dict[str, Any]:
    return {"schedule": SHORT, "checkpoint": checkpoint, "key": "k"}


def test_it_lowers_the_loss_of_the_deployed_integers(tmp_path: Path):
    model, architecture, data = trained("scenes", tmp_path)

    def loss() -> float:
        graph = deployed(model, architecture, data, Scheme())
        given = task_of(data)(lambda images: logits(graph, images))
        return sum(float(given(step)) for step in range(100, 104)) / 4

    before, calibration = loss(), list(images_of(data, 8))
    untouched = copy.deepcopy(model)
    folds = folds_of(model, architecture)
    steps = list(finished(model, folds, task_of(data), calibration, **short(tmp_path / "finished.pt")))
    assert len(steps) == SHORT.steps and loss() < 0.97 * before
    restore_finished(untouched, folds_of(untouched, architecture), tmp_path / "finished.pt", calibration)
    for ours, theirs in zip(untouched.state_dict().values(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_finish_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nas.training.train.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    ends = []
    for stopped in (False, True):
        model, architecture, data = untrained("shapes")
        folds, calibration = folds_of(model, architecture), list(images_of(data, 8))
        path = tmp_path / f"{stopped}.pt"
        if stopped:
            steps = finished(copy.deepcopy(model), folds, task_of(data), calibration, **short(path))
            for _ in range(33):
                next(steps)
            del steps
        for _ in finished(model, folds, task_of(data), calibration, **short(path)):
            pass
        ends.append(fold(model, data.size, architecture))
    for ours, theirs in zip(*ends, strict=True):
        if isinstance(ours, Weighted):
            assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_without_calibration_images_it_is_refused():
    model, architecture, _ = untrained("shapes")
    with pytest.raises(ConfigError, match="no calibration images"):
        QuantizedNetwork(folds_of(model, architecture), [])
