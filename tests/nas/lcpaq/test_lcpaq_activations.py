"""Perturbation tables of activations against their definitions, and compared with those of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.lcpaq.activations import (
    ACTIVATION_SENSITIVITIES,
    ActivationHessian,
    activation_fisher,
    activation_nsr,
    reads,
    rounded,
    squared_errors,
)
from nas.lcpaq.hessian import Problem, forms, forward
from nas.lcpaq.policy import ties
from nas.lcpaq.sensitivity import SENSITIVITIES, candidates
from nas.lcpaq.traces import LEAST_PROBES, Precision, traces
from nas.quant.float_graph import INPUT, Weighted
from nas.quant.lower import lower
from nas.quant.ranges import calibrate, shared
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.simulate import dequantize, quantize
from tests.nas.lcpaq.lcpaq_problem import dense_problem, residual_problem, small_problem

WIDTHS = (4, 6, 8)
PROBLEMS = {"classifier": small_problem, "segmenter": dense_problem, "residual": residual_problem}
Change = Callable[[str, Tensor], Tensor]


def sources(problem: Problem) -> list[str]:
    return [name for group in shared(problem.needed) if group.readers for name in group.sources]


def outputs(problem: Problem, images: Tensor, change: Change) -> dict[str, Tensor]:
    """Every tensor, each put through `change` by its name as soon as it is made."""
    env = {INPUT: change(INPUT, images)}
    for node in problem.needed:
        env[node.name] = change(node.name, node(env))
    return env


def loss_with(problem: Problem, name: str, value: Tensor, image: int) -> Tensor:
    """The loss of one image of the first batch, where a tensor has a value of its own."""
    images, labels = (part[image : image + 1] for part in problem.batches[0])
    env = outputs(problem, images, lambda tensor, y: value if tensor == name else y)
    return problem.loss(problem.logits(env), labels)


def exact_hessians(problem: Problem, name: str) -> list[Tensor]:
    """Each image's Hessian along one tensor, float64, by differentiating twice."""
    (images, _), *more = problem.batches
    assert not more
    env = forward(problem.needed, {}, images)
    found = []
    for image in range(len(images)):
        x = env[name][image : image + 1]
        hessian = torch.autograd.functional.hessian(lambda y, i=image: loss_with(problem, name, y, i), x)
        found.append(hessian.reshape(x.numel(), x.numel()).double())
    return found


def one_batch(name: str) -> Problem:
    problem = PROBLEMS[name]()
    images, labels = (torch.cat(parts)[:3] for parts in zip(*problem.batches, strict=True))
    return replace(problem, batches=[(images, labels)])


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_quadratic_form_is_the_mean_of_every_images_own(name: str) -> None:
    problem = one_batch(name)
    ((images, _),) = problem.batches
    generator = torch.Generator().manual_seed(0)
    env = forward(problem.needed, {}, images)
    for tensor in sources(problem):
        z = torch.randn(env[tensor].shape, generator=generator)
        ((found,),) = forms(problem, [(tensor, lambda _, z=z: z)], 1)
        exact = exact_hessians(problem, tensor)
        own = [float(v.flatten().double() @ h @ v.flatten().double()) for v, h in zip(z, exact, strict=True)]
        assert found == pytest.approx(np.mean(own), rel=1e-3, abs=1e-5), tensor


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_trace_is_within_five_per_cent_of_the_exact_one(name: str) -> None:
    problem = one_batch(name)
    tensors = [tensor for tensor in sources(problem) if tensor != INPUT]
    found = traces(problem, Precision(relative_error=0.015, most_probes=20_000), tensors)
    for tensor, trace in found.items():
        hessians = exact_hessians(problem, tensor)
        exact = np.mean([float(hessian.trace()) for hessian in hessians])
        assert trace.trace == pytest.approx(exact, rel=0.05) and trace.size == len(hessians[0]), tensor
        assert trace.converged and trace.probes >= LEAST_PROBES


def test_batches_weigh_as_many_images_as_they_hold_and_tensors_stop_by_themselves() -> None:
    apart = small_problem()
    images, labels = (torch.cat(parts) for parts in zip(*apart.batches, strict=True))
    together = replace(apart, batches=[(images, labels)])
    tensors = sources(apart)
    one, other = (traces(p, Precision(0.02, 4000), tensors) for p in (apart, together))
    for name in tensors:
        assert one[name].trace == pytest.approx(other[name].trace, rel=0.1)
    assert len({trace.probes for trace in one.values()}) > 1
    capped = traces(apart, Precision(1e-9, 20), tensors)
    assert {(trace.probes, trace.converged) for trace in capped.values()} == {(20, False)}


# The tables


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_tensors_are_rounded_as_they_are_deployed(observer: str) -> None:
    problem, scheme = dense_problem(), Scheme(observer=observer)
    ((images, _),) = problem.batches
    env = forward(problem.needed, {}, images)
    found = reads(problem, WIDTHS, scheme)
    for i, bits in enumerate(WIDTHS):
        nodes = [replace(n, input_bits=bits) if isinstance(n, Weighted) else n for n in problem.needed]
        graph = lower(nodes, calibrate(nodes, [images], _observer(scheme)), (8, 8, 3))
        for read in found:
            for name in read.tensors.tensors:
                deployed = dequantize(quantize(env[name], graph.tensors[name]), graph.tensors[name])
                assert torch.equal(rounded(env[name], read.parameters[i]), deployed)
            for name in read.tensors.sources:
                error = float((rounded(env[name], read.parameters[i]) - env[name]).double().square().sum()) / len(
                    images
                )
                assert squared_errors(problem, found)[name][i] == pytest.approx(error)


def _observer(scheme: Scheme) -> Callable[[Tensor], tuple[float, float]]:
    from nas.quant.ranges import observer_of

    return observer_of(scheme.observer)


def of_sources(problem: Problem, per_source: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By layer: what it reads, summed over sources and shared by its readers."""
    found = {}
    for group in shared(problem.needed):
        for reader in group.readers:
            found[reader] = sum(per_source[name] for name in group.sources) / len(group.readers)
    return found


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_hessians_perturbation_is_the_mean_trace_times_the_squared_error(name: str) -> None:
    problem = one_batch(name)
    errors = squared_errors(problem, reads(problem, WIDTHS))
    per_source = {}
    for tensor in sources(problem):
        hessians = exact_hessians(problem, tensor)
        mean = np.mean([float(h.trace()) for h in hessians]) / len(hessians[0])
        per_source[tensor] = mean * np.array(errors[tensor])
    found = ActivationHessian(Precision(0.03, 4000))(problem, WIDTHS)
    for layer, row in of_sources(problem, per_source).items():
        np.testing.assert_allclose(found.values[found.names.index(layer)], row, rtol=0.12)


def test_fisher_weighs_each_images_squared_error_by_its_own_squared_gradient() -> None:
    problem = one_batch("residual")
    ((images, _),) = problem.batches
    env = forward(problem.needed, {}, images)
    per_source = {}
    for read in reads(problem, WIDTHS):
        for name in read.tensors.sources:
            row = np.zeros(len(WIDTHS))
            for i in range(len(images)):
                x = env[name][i : i + 1].clone().requires_grad_()
                slope = torch.autograd.grad(loss_with(problem, name, x, i), x)[0].double()
                for j, parameters in enumerate(read.parameters):
                    error = (rounded(x.detach(), parameters) - x.detach()).double()
                    row[j] += float((slope * error).square().sum()) / len(images)
            per_source[name] = row
    found = activation_fisher(problem, WIDTHS)
    for layer, row in of_sources(problem, per_source).items():
        np.testing.assert_allclose(found.values[found.names.index(layer)], row, rtol=1e-4)


@pytest.mark.parametrize("name", PROBLEMS)
def test_nsr_is_measured_with_one_tensor_rounded_and_nothing_else(name: str) -> None:
    problem = one_batch(name)
    ((images, _),) = problem.batches
    found = activation_nsr(problem, WIDTHS)
    (output,) = problem.outputs
    target = forward(problem.needed, {}, images)[output].double()
    variance = target.var((0, 2, 3), unbiased=False)
    for read in reads(problem, WIDTHS):
        for j, parameters in enumerate(read.parameters):
            hit = read.tensors.sources
            env = outputs(problem, images, lambda n, y, h=hit, p=parameters: rounded(y, p) if n in h else y)
            error = (env[output] - target).square().mean((0, 2, 3))
            expected = float((error / (variance + 1e-6)).mean()) / len(read.tensors.readers)
            for reader in read.tensors.readers:
                assert found.table[reader][WIDTHS[j]] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_readers_of_one_tensor_share_out_its_perturbation() -> None:
    problem = residual_problem()
    assert ties(problem.needed, activations=True) == (("conv1", "conv2", "downsample"),)
    for kind in ("hessian", "fisher", "nsr"):
        table = ACTIVATION_SENSITIVITIES[kind](problem, WIDTHS, DEFAULT).table
        assert table["conv1"] == table["downsample"]


@pytest.mark.parametrize("name", ACTIVATION_SENSITIVITIES)
def test_every_sensitivity_falls_with_the_bits_and_knows_every_layer(name: str) -> None:
    problem = small_problem()
    pictures = [((images * 64).round().clamp(-128, 127) / 128, labels) for images, labels in problem.batches]
    for scheme in (DEFAULT, Scheme("tensor", "mse", equalize=True)):
        found = ACTIVATION_SENSITIVITIES[name](replace(problem, batches=pictures), WIDTHS, scheme)
        assert found.names == ("stem", "depthwise", "project", "logits") and found.widths == WIDTHS
        assert np.isfinite(found.values).all() and (np.diff(found.values, axis=1) < 0).all()
        assert (found.values[1:] > 0).all() and found.table["stem"][8] == 0  # an image is of 8 bits
    with pytest.raises(ConfigError, match="activations take 4 to 8 bits, not 3"):
        ACTIVATION_SENSITIVITIES[name](problem, (3, 8), DEFAULT)
    assert ACTIVATION_SENSITIVITIES.keys() == SENSITIVITIES.keys()


# Beside the weights' tables


def grown(problem: Problem, changed: Callable[[float], list[Tensor]]) -> float:
    """By how much the loss grows on average with a change and its opposite; the first order cancels."""
    ((_, labels),) = problem.batches
    zero, plus, minus = (
        torch.stack([problem.loss(y, labels) for y in changed(sign)]).mean() for sign in (0.0, 1.0, -1.0)
    )
    return float((plus + minus) / 2 - zero)


def test_half_of_either_perturbation_is_how_much_the_mean_loss_grows() -> None:
    """The same noise, white and of known power, in a layer's weights or in what it reads: one loss, one unit."""
    plain = small_problem(counts=(10,))
    nodes = [
        replace(n, weight=n.weight.double(), bias=n.bias.double()) if isinstance(n, Weighted) else n
        for n in plain.needed
    ]
    ((images, labels),) = plain.batches
    problem = replace(plain, nodes=nodes, batches=[(images.double(), labels)])
    (images, _), generator = problem.batches[0], torch.Generator().manual_seed(0)
    weight_traces = traces(problem, Precision(0.02, 4000))
    read_traces = traces(problem, Precision(0.02, 4000), sources(problem))
    env, step, draws = forward(problem.needed, {}, images), 1e-4, 400

    def signs(like: Tensor) -> list[Tensor]:
        return [step * (torch.randint(2, like.shape, generator=generator) * 2 - 1).double() for _ in range(draws)]

    for layer in problem.layers[1:]:
        z = signs(layer.weight)
        weights = [lambda sign, d=d, of=layer: {of.name: of.weight + sign * d} for d in z]
        by_weights = grown(
            problem, lambda sign, ws=weights: [problem.logits(forward(problem.needed, w(sign), images)) for w in ws]
        )
        omega = weight_traces[layer.name].mean * step**2 * layer.weight.numel()
        assert by_weights == pytest.approx(omega / 2, rel=0.2), layer.name
        z = signs(env[layer.x])
        by_reading = grown(
            problem,
            lambda sign, z=z, x=layer.x: [
                problem.logits(outputs(problem, images, lambda n, y, d=d: y + sign * d if n == x else y)) for d in z
            ],
        )
        omega = read_traces[layer.x].mean * step**2 * env[layer.x][0].numel()  # of one image, as the table has it
        assert by_reading == pytest.approx(omega / 2, rel=0.2), layer.x


@pytest.mark.parametrize("kind", ["nsr", "sqnr"])
@pytest.mark.parametrize("bits", [4, 5])
def test_noise_of_weights_and_of_what_they_read_adds_up(kind: str, bits: int) -> None:
    """A layer with both rounded has the sum of the tables' noise."""
    problem = small_problem(counts=(30,))
    ((images, _),) = problem.batches
    by_weights, by_reading = (
        table[kind](problem, (bits,), DEFAULT).table for table in (SENSITIVITIES, ACTIVATION_SENSITIVITIES)
    )
    parameters = {name: read.parameters[0] for read in reads(problem, (bits,)) for name in read.tensors.tensors}
    changed = {
        layer.name: replace(layer, weight=weights[0]) for layer, weights in candidates(problem, (bits,), DEFAULT)
    }
    env = forward(problem.needed, {}, images)
    for layer in problem.layers:
        if kind == "nsr":
            nodes = [changed.get(n.name, n) if n.name == layer.name else n for n in problem.needed]
            other = replace(problem, nodes=nodes)
            (output,) = problem.outputs
            y = outputs(other, images, lambda n, y, x=layer.x: rounded(y, parameters[x]) if n == x else y)[output]
            target = env[output]
            both = float(
                ((y - target).square().mean((0, 2, 3)) / (target.var((0, 2, 3), unbiased=False) + 1e-6)).mean()
            )
        else:
            linear, target = (replace(node, activation="none") for node in (changed[layer.name], layer))
            plain = target(env)
            y = linear({layer.x: rounded(env[layer.x], parameters[layer.x])})
            both = float((y - plain).square().sum() / (plain - plain.mean((0, 2, 3), keepdim=True)).square().sum())
        assert by_weights[layer.name][bits] + by_reading[layer.name][bits] == pytest.approx(both, rel=0.35), layer.name
