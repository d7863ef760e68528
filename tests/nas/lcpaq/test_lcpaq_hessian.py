"""Hutchinson's estimate against the full Hessian."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nas.errors import ConfigError, QuantizationError
from nas.lcpaq.hessian import LEAST_PROBES, Forms, Problem, estimated, forward, quadratic_forms, traces
from nas.quant.float_graph import INPUT
from tests.nas.lcpaq.lcpaq_problem import (
    curved_problem,
    dense_problem,
    exact_blocks,
    residual_problem,
    small_nodes,
    small_problem,
)


@pytest.mark.parametrize(
    "problem",
    [small_problem(), dense_problem(), residual_problem(), curved_problem()],
    ids=["classifier", "segmenter", "residual", "curved"],
)
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


@pytest.mark.parametrize("problem", [small_problem(), dense_problem()], ids=["classifier", "segmenter"])
def test_the_trace_is_within_five_per_cent_of_the_exact_one(problem: Problem) -> None:
    """At a standard error of 1.5 %: five per cent is more than three of them."""
    exact = exact_blocks(problem)
    found = traces(problem, relative_error=0.015, most_probes=20_000)
    assert list(found) == [layer.name for layer in problem.layers]
    for name, trace in found.items():
        assert trace.converged and trace.standard_error <= 0.015 * trace.trace
        assert trace.trace == pytest.approx(float(exact[name].trace()), rel=0.05), name
        assert trace.mean == trace.trace / len(exact[name])


def test_each_layer_stops_separately_and_the_limit_is_reported() -> None:
    problem = small_problem()
    *_, last = estimated(problem, relative_error=0.05, most_probes=4000)
    probes = {trace.probes for trace in last.values()}
    assert all(trace.converged for trace in last.values()) and len(probes) > 1 and min(probes) >= LEAST_PROBES
    capped = traces(problem, relative_error=1e-6, most_probes=20)
    assert {(trace.probes, trace.converged) for trace in capped.values()} == {(20, False)}
    assert traces(problem, relative_error=1e-6, most_probes=20) == capped
    assert traces(problem, relative_error=1e-6, most_probes=20, seed=1) != capped


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_rounds_that_are_known_are_not_computed_again(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, kept, again = small_problem(), list[Forms](), list[Forms]()
    whole = list(estimated(problem, relative_error=1e-6, most_probes=24, keep=kept.append))
    assert len(whole) == len(kept) == 3
    resumed = list(estimated(problem, relative_error=1e-6, most_probes=24, known=kept[:rounds], keep=again.append))
    assert resumed == whole and again == kept[rounds:]


def test_batches_weigh_as_many_images_as_they_hold() -> None:
    """The mean loss does not depend on how images were batched."""
    split = small_problem()
    images, labels = (torch.cat(parts) for parts in zip(*split.batches, strict=True))
    together = traces(replace(split, batches=[(images, labels)]), most_probes=16)
    apart = traces(split, most_probes=16)
    for name in apart:
        assert apart[name].trace == pytest.approx(together[name].trace, rel=1e-4)


def test_a_loss_that_is_not_finite_names_where_it_begins() -> None:
    problem = small_problem()
    nodes = [
        replace(node, bias=node.bias * float("nan")) if node.name == "depthwise" else node for node in problem.nodes
    ]
    with pytest.raises(QuantizationError, match="the loss is nan: tensor 'depthwise' holds NaN or infinity"):
        traces(replace(problem, nodes=nodes))
    (images, labels), *_ = problem.batches
    with pytest.raises(QuantizationError, match="the images hold NaN"):
        traces(replace(problem, batches=[(images / 0, labels)]))
    with pytest.raises(QuantizationError, match="of finite outputs: is every pixel of a batch unlabelled"):
        traces(replace(problem, batches=[(images, labels * 0 - 100)]))


def test_what_cannot_be_estimated_is_refused() -> None:
    nodes, batches = small_nodes(), small_problem().batches
    with pytest.raises(ConfigError, match="no tensor 'logit'"):
        Problem(nodes, batches, F.cross_entropy, ("logit",))
    with pytest.raises(ConfigError, match="no images"):
        Problem(nodes, [], F.cross_entropy)
    for wrong in ({"relative_error": 0.0}, {"most_probes": 8}):
        with pytest.raises(ConfigError, match="relative error above 0 and at least 16 probes"):
            traces(small_problem(), **wrong)


def test_with_a_slope_a_curved_network_has_the_gauss_newton_form() -> None:
    """J'BJ, computed with the whole Jacobian."""
    distance = curved_problem()
    ((images, own),) = distance.batches
    problem = replace(distance, batches=[(images, own + 1)], loss=lambda y, t: (y - t).pow(4).sum(1).mean())
    for layer in problem.layers:

        def outputs(weight: torch.Tensor, name: str = layer.name) -> torch.Tensor:
            return problem.logits(forward(problem.needed, {name: weight}, images))

        jacobian = torch.autograd.functional.jacobian(outputs, layer.weight).flatten(2).double()  # (N, outputs, K)
        z = torch.ones_like(layer.weight)
        ((found,),) = quadratic_forms(problem, [layer], [[z]])
        change = jacobian @ z.flatten().double()
        assert found == pytest.approx(12 * float(change.square().sum()) / len(images), rel=1e-3), layer.name


def test_what_the_output_does_not_need_is_left_out() -> None:
    stem, *rest = small_nodes()
    spare = replace(stem, name="spare", x=INPUT)
    problem = Problem([stem, spare, *rest], small_problem().batches, F.cross_entropy)
    assert [layer.name for layer in problem.layers] == ["stem", "depthwise", "project", "logits"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_traces() -> None:
    problem = small_problem()
    moved = [
        replace(node, weight=node.weight.cuda(), bias=node.bias.cuda()) if hasattr(node, "weight") else node
        for node in problem.nodes
    ]
    there = replace(problem, nodes=moved, batches=[(x.cuda(), y.cuda()) for x, y in problem.batches])
    here, found = traces(problem, most_probes=64), traces(there, most_probes=64)
    assert {n: t.trace for n, t in found.items()} == pytest.approx({n: t.trace for n, t in here.items()}, rel=1e-2)
