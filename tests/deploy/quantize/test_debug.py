"""Side by side at every tensor: the operator that adds the noise, and the one that a board computes otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deploy.formats.tflite.operators import Form
from deploy.quantize.board_tensors import board_tensors
from deploy.quantize.debug import DebugRecord, IntegerDifference, Values, operators_of, results
from hil.boards.kinds import open_board
from hil.session import Session
from nas.quant import post_training, reference, simulate
from nas.quant.float_graph import INPUT, Add, AveragePool, Conv, Node, Sigmoid
from nas.quant.integer_graph import IntegerGraph, reads
from nas.quant.scheme import DEFAULT
from nas.quant.simulate import Applied, steps
from tests.hil.loopback_boards import loopback

SHAPE = (12, 16, 3)


def network() -> list[Node]:
    generator = torch.Generator().manual_seed(0)

    def conv(name: str, x: str, channels: int, stride: int = 1) -> Conv:
        weight = torch.randn(8, channels, 3, 3, generator=generator) / 3
        return Conv(name, x, weight, torch.randn(8, generator=generator) / 8, stride, 1, "relu", 8)

    return [
        conv("first", INPUT, 3),
        conv("second", "first", 8),
        Add("sum", "first", "second", "none"),
        Sigmoid("gate", "sum"),
        AveragePool("pooled", "gate", (2, 2), (2, 2)),
        conv("last", "pooled", 8, 2),
    ]


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    return [torch.rand(1, 3, *SHAPE[:2], generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.fixture(scope="module")
def quantized(images: list[Tensor]) -> tuple[list[Node], IntegerGraph]:
    nodes = network()
    return nodes, post_training.quantize(nodes, images, SHAPE, input_range=(0.0, 1.0))


def inputs(graph: IntegerGraph, images: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(image, simulate.quantize(image, graph.tensors[INPUT])) for image in images]


def test_the_operator_that_adds_the_noise_is_the_noisiest(quantized, images) -> None:
    nodes, graph = quantized
    coarse = {**graph.tensors, "second": replace(graph.tensors["second"], scale=8 * graph.tensors["second"].scale)}
    operators = operators_of(nodes, graph, inputs(graph, images), simulate.apply)
    assert [one.name for one in operators] == results(graph) and all(one.board is None for one in operators)
    assert all(-80 < (one.noise_db or 0) < -20 for one in operators)
    blurred = replace(graph, tensors=coarse)
    operators = operators_of(nodes, blurred, inputs(graph, images), simulate.apply)
    record = DebugRecord("m.onnx", "channel", "random", 3, operators)
    assert record.noisiest[0].name == "second" and record.wrong == []
    of = {one.name: one for one in record.operators}
    assert of["sum"].noise_db > of["sum"].added_db + 6, "it inherits its noise"
    assert DebugRecord.from_json(record.to_json(), "debug.json") == record


def answers(graph: IntegerGraph, images: list[Tensor], applied: Applied) -> Iterator[Values]:
    for _, q in inputs(graph, images):
        yield {op.name: y.clone() for op, y in steps(graph, q, applied)}


@pytest.mark.parametrize("wrong", ["first", "sum", "gate", "pooled", "last"])
def test_the_operator_that_a_board_computes_otherwise_is_found(quantized, images, wrong) -> None:
    nodes, graph = quantized

    def otherwise(op, env, tensors):
        y = simulate.apply(op, env, tensors)
        if op.name == wrong:
            y = y.clone()
            y.view(-1)[::7] = (y.view(-1)[::7] + 2).clamp(max=127)
        return y

    found = operators_of(nodes, graph, inputs(graph, images), simulate.apply, answers(graph, images, otherwise))
    record = DebugRecord("m", "channel", "random", 3, found, "npu")
    (one,) = record.wrong
    assert one.name == wrong and one.board_alone is not None and one.board_alone.largest == 2
    assert 0.1 < one.board_alone.share <= 1 / 7 + 0.01 and one.board == one.board_alone
    names = results(graph)
    before = [one for one in record.operators if names.index(one.name) < names.index(wrong)]
    assert all(one.board == IntegerDifference(0.0, 0) for one in before)
    after = {name for op in graph.operators for name in [op.name] if wrong in reads(op)}
    assert all(one.board is not None and one.board.share > 0 for one in record.operators if one.name in after)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_a_board_shows_every_tensor(images, tmp_path: Path, cut, activations) -> None:
    scheme = replace(DEFAULT, granularity="tensor" if activations == "uint8" else "channel")
    graph = post_training.quantize(network(), images, SHAPE, scheme, (0.0, 1.0))
    form, integers = Form(activations=activations), [q for _, q in inputs(graph, images)]
    for kernels, run in (("xnnpack", simulated), ("reference", referenced)):
        if kernels == "reference" and activations == "uint8":
            continue
        with open_board(loopback("asyncssh", kernels=kernels)) as board, Session(board) as session:
            parts = list(board_tensors(session, graph, form, integers, tmp_path, cut=cut))
        assert [progress.done for progress, _ in parts] == list(range(1, len(results(graph)) + 1 if cut else 2))
        for i, q in enumerate(integers):
            tensors = {name: y for _, found in parts for name, y in found[i].items()}
            wanted = run(graph, q, activations)
            assert tensors.keys() == wanted.keys() == set(results(graph))
            for name, y in wanted.items():
                torch.testing.assert_close(tensors[name], y, rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == []


def simulated(graph: IntegerGraph, q: Tensor, activations: str) -> dict[str, Tensor]:
    from deploy.compile.artifact import kernels_of
    from nas.quant.arithmetic import LITERT

    applied = kernels_of(Form(activations=activations), LITERT)
    return {op.name: y for op, y in steps(graph, q, applied)}


def referenced(graph: IntegerGraph, q: Tensor, _: str) -> dict[str, Tensor]:
    return {
        name: reference.outputs_of(replace(graph, several=(name,)), q)[name].float().reshape(y.shape)
        for name, y in simulated(graph, q, "int8").items()
    }
