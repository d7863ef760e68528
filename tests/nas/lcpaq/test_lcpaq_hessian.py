"""Quadratic forms against the full Hessian."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nas.errors import ConfigError
from nas.lcpaq.hessian import Problem, forward, quadratic_forms
from nas.lcpaq.losses import Loss
from nas.lcpaq.traces import Precision, traces
from nas.quant.float_graph import INPUT
from tests.nas.lcpaq.lcpaq_problem import (
    CROSS_ENTROPY,
    curved_problem,
    every_problem,
    exact_blocks,
    small_nodes,
    small_problem,
)


@every_problem
def test_a_quadratic_form_is_that_of_the_full_hessian(problem: Problem) -> None:
    """Unit vectors too: the sum over them is the exact trace."""
    blocks = exact_blocks(problem)
    generator = torch.Generator().manual_seed(3)
    for layer in problem.layers:
        block = blocks[layer.name]
        probes = [torch.randn(layer.weight.shape, generator=generator) for _ in range(3)]
        (found,) = quadratic_forms(problem, [layer], [probes])
        wanted = [float(z.flatten().double() @ block @ z.flatten().double()) for z in probes]
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6), layer.name
        units = torch.eye(layer.weight.numel()).view(-1, *layer.weight.shape)
        (diagonal,) = quadratic_forms(problem, [layer], [list(units)])
        assert sum(diagonal) == pytest.approx(float(block.trace()), rel=1e-4), layer.name


def test_what_cannot_be_estimated_is_refused() -> None:
    nodes, batches = small_nodes(), small_problem().batches
    with pytest.raises(ConfigError, match="no tensor 'logit'"):
        Problem(nodes, batches, CROSS_ENTROPY, ("logit",))
    with pytest.raises(ConfigError, match="no images"):
        Problem(nodes, [], CROSS_ENTROPY)


def test_with_a_slope_a_curved_network_has_the_gauss_newton_form() -> None:
    """J'BJ, computed with the whole Jacobian."""
    distance = curved_problem()
    ((images, own),) = distance.batches
    power = Loss(
        lambda y, t: (y - t).pow(4).sum(1).mean(),
        lambda y, t, signs: signs(y) * (12 / len(y)) ** 0.5 * (y - t).abs(),
    )
    problem = replace(distance, batches=[(images, own + 1)], loss=power)
    estimates = traces(problem, Precision(relative_error=0.015, most_probes=20_000))
    for layer in problem.layers:

        def outputs(weight: torch.Tensor, name: str = layer.name) -> torch.Tensor:
            return problem.logits(forward(problem.needed, {name: weight}, images))

        jacobian = torch.autograd.functional.jacobian(outputs, layer.weight).flatten(2).double()  # (N, outputs, K)
        z = torch.ones_like(layer.weight)
        ((found,),) = quadratic_forms(problem, [layer], [[z]])
        change = jacobian @ z.flatten().double()
        assert found == pytest.approx(12 * float(change.square().sum()) / len(images), rel=1e-3), layer.name
        whole = 12 * float(jacobian.square().sum()) / len(images)
        assert estimates[layer.name].trace == pytest.approx(whole, rel=0.05), layer.name


def test_what_the_output_does_not_need_is_left_out() -> None:
    stem, *rest = small_nodes()
    spare = replace(stem, name="spare", x=INPUT)
    problem = Problem([stem, spare, *rest], small_problem().batches, CROSS_ENTROPY)
    assert [layer.name for layer in problem.layers] == ["stem", "depthwise", "project", "logits"]
