"""Perturbation tables against their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nas.errors import ConfigError
from nas.lcpaq.activations import ACTIVATION_SENSITIVITIES
from nas.lcpaq.hessian import Problem, forward
from nas.lcpaq.sensitivity import (
    SENSITIVITIES,
    Hessian,
    fisher_diagonal,
    layer_sqnr,
    output_nsr,
    quadratic,
    ready,
    rounded,
    squared_errors,
)
from nas.lcpaq.traces import Precision
from nas.quant import post_training
from nas.quant.float_graph import INPUT, Weighted
from nas.quant.integer_graph import Weighted as QWeighted
from nas.quant.lower import lower
from nas.quant.ranges import calibrate
from nas.quant.scheme import DEFAULT, Rounding, Scheme
from nas.quant.simulate import oihw
from tests.nas.lcpaq.lcpaq_problem import curved_problem, dense_problem, exact_blocks, small_problem

WIDTHS = (2, 4, 8)


def with_bits(problem: Problem, name: str, bits: int, scheme: Scheme = DEFAULT) -> Problem:
    """The network in which one layer has the weights of the integer graph, by the graph itself."""
    nodes = [replace(n, bits=bits) if isinstance(n, Weighted) and n.name == name else n for n in problem.needed]
    ranges = calibrate(nodes, [images for images, _ in problem.batches])
    operators = lower(nodes, ranges, (8, 8, 3), scheme.granularity, scheme.few_bits).operators
    changed = []
    for node, op in zip(nodes, operators, strict=True):
        if node.name == name:
            scale = op.weight_scale.reshape(-1, *[1] * (op.weight.ndim - 1))
            layout = (0, 1) if op.weight.ndim == 2 else (3, 0, 1, 2) if op.depthwise else (0, 3, 1, 2)
            integers = op.weight.transpose(layout).astype(np.float32)
            node = replace(node, weight=torch.from_numpy(integers * scale))  # noqa: PLW2901
        changed.append(node)
    return replace(problem, nodes=changed)


@pytest.mark.parametrize("few_bits", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_weights_are_rounded_as_they_are_deployed(granularity, few_bits) -> None:
    problem, scheme = small_problem(), Scheme(granularity, few_bits=few_bits)
    errors = squared_errors(problem, WIDTHS, scheme).table
    for layer in problem.layers:
        for bits in WIDTHS:
            deployed = next(n for n in with_bits(problem, layer.name, bits, scheme).layers if n.name == layer.name)
            assert torch.equal(rounded(layer, bits, 1.0, scheme), deployed.weight)
            error = float((deployed.weight - layer.weight).double().square().sum())
            assert errors[layer.name][bits] == pytest.approx(error)


def test_the_hessians_perturbation_is_the_mean_trace_times_the_squared_error() -> None:
    problem = small_problem()
    errors, exact = squared_errors(problem, WIDTHS), exact_blocks(problem)
    means = np.array([float(block.trace()) / len(block) for block in exact.values()])
    found = Hessian(Precision(0.03, 20_000))(problem, WIDTHS)
    np.testing.assert_allclose(found.values, errors.values * means[:, None], rtol=0.12)


@pytest.mark.parametrize("rounding", ["nearest", "adaptive"])
def test_the_quadratic_form_is_of_the_error_that_is_deployed(rounding: Rounding) -> None:
    problem, scheme = small_problem(), Scheme(rounding=rounding)
    found, exact = quadratic(problem, (3, 8), scheme).table, exact_blocks(problem)
    images = [images for images, _ in problem.batches]
    for bits in (3, 8):
        nodes = [replace(node, bits=bits) if isinstance(node, Weighted) else node for node in problem.needed]
        deployed = post_training.quantize(nodes, images, (8, 8, 3), scheme)
        for layer, op in zip(
            problem.layers, (op for op in deployed.operators if isinstance(op, QWeighted)), strict=True
        ):
            weight = torch.from_numpy(oihw(op) if op.weight.ndim == 4 else op.weight).double()
            real = weight * torch.from_numpy(op.weight_scale).double().reshape(-1, *[1] * (layer.weight.ndim - 1))
            error = (real - layer.weight.double()).flatten()
            form = float(error @ exact[layer.name] @ error)
            assert found[layer.name][bits] == pytest.approx(max(form, 0.0), rel=1e-2, abs=1e-9), (layer.name, bits)


def test_fishers_diagonal_is_the_mean_of_each_images_squared_gradient() -> None:
    problem = small_problem()
    diagonal = fisher_diagonal(problem)
    images, labels = (torch.cat(parts) for parts in zip(*problem.batches, strict=True))
    total = {layer.name: torch.zeros(layer.weight.shape, dtype=torch.float64) for layer in problem.layers}
    for image, label in zip(images, labels, strict=True):
        for layer in problem.layers:
            weight = layer.weight.clone().requires_grad_()
            loss = problem.loss_of({layer.name: weight}, image[None], label[None])
            total[layer.name] += torch.autograd.grad(loss, weight)[0].double() ** 2 / len(images)
    torch.testing.assert_close(diagonal, total)
    values = SENSITIVITIES["fisher"](problem, WIDTHS, DEFAULT).table
    for layer in problem.layers:
        change = rounded(layer, 4, 1.0, DEFAULT) - layer.weight
        assert values[layer.name][4] == pytest.approx(float((diagonal[layer.name] * change**2).sum()))


def test_nsr_is_measured_with_one_layer_rounded_and_nothing_else() -> None:
    problem = small_problem()
    found = output_nsr(problem, WIDTHS).table
    images = torch.cat([images for images, _ in problem.batches])
    target = forward(problem.needed, {}, images)["logits"].double()
    variance = target.var((0, 2, 3), unbiased=False)
    for layer in problem.layers:
        for bits in WIDTHS:
            changed = with_bits(problem, layer.name, bits)
            error = (forward(changed.needed, {}, images)["logits"] - target).square().mean((0, 2, 3))
            expected = float((error / (variance + 1e-6)).mean())
            assert found[layer.name][bits] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_sqnr_is_measured_at_the_layers_own_output() -> None:
    problem = small_problem(counts=(10,))
    found = layer_sqnr(problem, WIDTHS).table
    env = forward(problem.needed, {}, problem.batches[0][0])
    for layer in problem.layers:
        y = replace(layer, activation="none")(env).double()
        for bits in WIDTHS:
            weight = rounded(layer, bits, 1.0, DEFAULT)
            noise = (replace(layer, weight=weight, activation="none")(env) - y).square().mean()
            signal = y.var((0, 2, 3), unbiased=False).mean()
            assert found[layer.name][bits] == pytest.approx(float(noise / signal), rel=1e-3)


@pytest.mark.parametrize("name", SENSITIVITIES)
def test_every_sensitivity_falls_with_the_bits_and_knows_every_layer(name: str) -> None:
    problem = small_problem()
    for scheme in (DEFAULT, Scheme("tensor", equalize=True)):
        found = SENSITIVITIES[name](problem, (3, 5, 8), scheme)
        assert found.names == ("stem", "depthwise", "project", "logits") and found.widths == (3, 5, 8)
        assert found.values.shape == (4, 3) and np.isfinite(found.values).all()
        assert (np.diff(found.values, axis=1) < 0).all() and (found.values > 0).all()
        assert found.table["project"][5] == found.values[2, 1]
    with pytest.raises(ConfigError, match="2 to 8 bits, not 16"):
        SENSITIVITIES[name](problem, (4, 16), DEFAULT)


@pytest.mark.parametrize("name", sorted(SENSITIVITIES.keys() - {"fisher"}))
def test_of_curved_networks_with_several_outputs_too(name: str) -> None:
    problem = curved_problem()
    for table in (SENSITIVITIES[name], ACTIVATION_SENSITIVITIES[name]):
        found = table(problem, (4, 8), DEFAULT)
        assert found.names == ("stem", "grouped", "squeeze", "up", "mixed", "last")
        assert np.isfinite(found.values).all() and (found.values[:, 0] > 2 * found.values[:, 1]).all()


def test_the_evaluated_network_is_the_one_that_is_rounded() -> None:
    """An equalizing scheme rounds other weights, of the same function."""
    problem = dense_problem()
    (images, _), *_ = problem.batches
    equalized = ready(problem, Scheme("tensor", equalize=True))
    assert ready(problem, DEFAULT).layers == problem.layers
    changed = [not torch.equal(a.weight, b.weight) for a, b in zip(problem.layers, equalized.layers, strict=True)]
    assert changed[:2] == [True, True] and not any(changed[2:])
    torch.testing.assert_close(
        forward(equalized.needed, {}, images)["logits"], forward(problem.needed, {}, images)["logits"]
    )
    assert INPUT not in squared_errors(equalized, WIDTHS).table
