"""The estimate of traces, and the losses' roots that it needs, against the full Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nas.data.sample import IGNORE
from nas.errors import ConfigError, QuantizationError
from nas.lcpaq.hessian import Problem
from nas.lcpaq.losses import Loss, flattened, squared_distance
from nas.lcpaq.traces import LEAST_PROBES, Precision, Samples, estimated, traces
from tests.nas.lcpaq.lcpaq_problem import (
    CROSS_ENTROPY,
    PIXEL_CROSS_ENTROPY,
    every_problem,
    exact_blocks,
    small_problem,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(*shape: int) -> Tensor:
    return torch.randint(3, shape, generator=torch.Generator().manual_seed(1))


def partly_labelled() -> Tensor:
    labels = classes(2, 5, 4)
    labels[0, :2] = IGNORE
    return labels


LOSSES: dict[str, tuple[Loss, Tensor, Tensor]] = {
    "labels": (CROSS_ENTROPY, drawn(4, 3), classes(4)),
    "one score per map": (flattened(CROSS_ENTROPY), drawn(4, 3, 1, 1), classes(4)),
    "pixels": (PIXEL_CROSS_ENTROPY, drawn(2, 3, 3, 2), partly_labelled()),
    "distance": (squared_distance(drawn(6).double().abs()), drawn(3, 6), drawn(3, 6, seed=1)),
    "distance of maps": (squared_distance(drawn(6).double().abs()), drawn(3, 3, 1, 2), drawn(3, 3, 1, 2, seed=1)),
}


def unit(i: int) -> Callable[[Tensor], Tensor]:
    return lambda like: torch.zeros_like(like).flatten().index_fill(0, torch.tensor(i), 1.0).view_as(like)


@pytest.mark.parametrize("name", LOSSES)
def test_a_losses_root_is_one_of_its_hessian(name: str) -> None:
    """RR' over all unit vectors, the columns of R."""
    loss, y, labels = LOSSES[name]
    y, sizes = y.double(), list[int]()

    def measured(like: Tensor) -> Tensor:
        sizes.append(like.numel())
        return like

    loss.root(y, labels, measured)
    columns = torch.stack([loss.root(y, labels, unit(i)).flatten() for i in range(sizes[0])], 1)
    hessian = torch.autograd.functional.hessian(lambda x: loss(x, labels), y).reshape(y.numel(), y.numel())
    torch.testing.assert_close(columns @ columns.T, hessian, rtol=1e-5, atol=1e-7)


@every_problem
def test_the_trace_is_within_five_per_cent_of_the_exact_one(problem: Problem) -> None:
    """At a standard error of 1.5 %: five per cent is more than three of them."""
    exact = exact_blocks(problem)
    found = traces(problem, Precision(relative_error=0.015, most_probes=20_000))
    assert list(found) == [layer.name for layer in problem.layers]
    for name, trace in found.items():
        assert trace.converged and trace.standard_error <= 0.015 * trace.trace
        assert trace.trace == pytest.approx(float(exact[name].trace()), rel=0.05), name
        assert trace.mean == trace.trace / len(exact[name])


def test_each_layer_stops_separately_and_the_limit_is_reported() -> None:
    problem = small_problem()
    *_, last = estimated(problem, Precision(most_probes=4000))
    probes = {trace.probes for trace in last.values()}
    assert all(trace.converged for trace in last.values()) and len(probes) > 1 and min(probes) >= LEAST_PROBES
    few = Precision(relative_error=1e-6, most_probes=20)
    capped = traces(problem, few)
    assert {(trace.probes, trace.converged) for trace in capped.values()} == {(20, False)}
    assert traces(problem, few) == capped
    assert traces(problem, replace(few, seed=1)) != capped


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_rounds_that_are_known_are_not_computed_again(rounds: int) -> None:
    problem, kept, again = small_problem(), list[Samples](), list[Samples]()
    precision = Precision(relative_error=1e-6, most_probes=24)
    whole = list(estimated(problem, precision, keep=kept.append))
    assert len(whole) == len(kept) == 3
    resumed = list(estimated(problem, precision, known=kept[:rounds], keep=again.append))
    assert resumed == whole and again == kept[rounds:]


def test_batches_weigh_as_many_images_as_they_hold() -> None:
    """The mean loss does not depend on how images were batched."""
    split = small_problem(counts=(7, 2, 1))
    images, labels = (torch.cat(parts) for parts in zip(*split.batches, strict=True))
    exact = exact_blocks(replace(split, batches=[(images, labels)]))
    for name, trace in traces(split, Precision(relative_error=0.015, most_probes=20_000)).items():
        assert trace.trace == pytest.approx(float(exact[name].trace()), rel=0.05), name


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
    with pytest.raises(ConfigError, match="relative error above 0 and at least 16 probes"):
        Precision(relative_error=0.0)
    with pytest.raises(ConfigError, match="relative error above 0 and at least 16 probes"):
        Precision(most_probes=8)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_traces() -> None:
    problem = small_problem()
    moved = [
        replace(node, weight=node.weight.cuda(), bias=node.bias.cuda()) if hasattr(node, "weight") else node
        for node in problem.nodes
    ]
    there = replace(problem, nodes=moved, batches=[(x.cuda(), y.cuda()) for x, y in problem.batches])
    here, found = (traces(each, Precision(most_probes=64)) for each in (problem, there))
    assert {n: t.trace for n, t in found.items()} == pytest.approx({n: t.trace for n, t in here.items()}, rel=1e-2)
