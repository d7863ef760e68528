"""Every tail is exact: its file against the simulation of its kernel set, and its class map, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType
from numpy.typing import NDArray

from board_scripts.class_map import class_map
from deploy.compile.artifact import kernels_of, stored
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from nas.quant import reference, simulate
from nas.quant.arithmetic import LITERT
from nas.quant.integer_graph import IntegerGraph
from nas.quant.integer_resizing import bilinear
from nas.quant.safe_resize import split_resizes
from nas.quant.tails import TAILS, Tail, in_file, with_tail
from tests.deploy.networks import interpret, simulated, small_segmenter_graph

INT8, UINT8 = Form(), Form(activations="uint8")
SIZE = (64, 96)


@pytest.fixture(scope="module", params=["one resize", "several", "odd size"])
def network(request: pytest.FixtureRequest) -> tuple[IntegerGraph, torch.Tensor]:
    graph = small_segmenter_graph((58, 90) if request.param == "odd size" else SIZE)
    if request.param == "several":
        graph = split_resizes(graph, (2, 4))
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(-128, 128, (1, 3, *graph.tensors[graph.input].shape[:2]), generator=generator) / 128
    return graph, simulate.quantize(images, graph.tensors[graph.input])


def read(graph: IntegerGraph, q: torch.Tensor, form: Form, kernels: OpResolverType) -> NDArray[np.generic]:
    source = np.frombuffer(stored(simulate.as_nhwc(q), form), np.uint8 if form == UINT8 else np.int8)
    answer: NDArray[np.generic] = interpret(write(graph, form=form), source.reshape(1, *q.shape[2:], 3), kernels)
    return answer


@pytest.mark.parametrize("form", [INT8, UINT8], ids=["int8", "uint8"])
@pytest.mark.parametrize("tail", TAILS)
def test_xnnpack(network: tuple[IntegerGraph, torch.Tensor], tail: Tail, form: Form) -> None:
    full, q = network
    full = with_tail(full, tail)
    graph, sizes = in_file(full, tail)
    answer = read(graph, q, form, OpResolverType.AUTO)
    result = simulate.run(graph, q, kernels_of(form, LITERT))
    if graph.tensors[graph.output].dtype == "int8":
        assert answer.tobytes() == stored(simulate.as_nhwc(result), form)
    expected = simulate.as_nhwc(simulate.run(full, q, kernels_of(form, LITERT)), np.int32)[..., 0]
    assert class_map(np, answer, sizes or ()).tobytes() == expected.tobytes()


@pytest.mark.parametrize("tail", TAILS)
def test_reference_kernels(network: tuple[IntegerGraph, torch.Tensor], tail: Tail) -> None:
    full, q = network
    full = with_tail(full, tail)
    graph, sizes = in_file(full, tail)
    answer = read(graph, q, INT8, OpResolverType.BUILTIN_REF)
    result = reference.run(graph, q)
    np.testing.assert_array_equal(
        answer.reshape(-1), simulate.as_nhwc(result, np.int32).astype(answer.dtype).reshape(-1)
    )
    if tail == "logits":  # the CPU resizes as XNNPACK does, whatever ran before
        for size in sizes or ():
            result = bilinear(result, size)
        expected = simulate.as_nhwc(result.argmax(1, keepdim=True), np.int32)
    else:
        expected = simulate.as_nhwc(reference.run(full, q), np.int32)
    assert class_map(np, answer, sizes or ()).tobytes() == expected[..., 0].tobytes()


def test_all_but_nearest_are_one_class_map(network: tuple[IntegerGraph, torch.Tensor]) -> None:
    """Of the files, as LiteRT runs them; nearest is coarser, each class as wide as the output's stride."""
    full, q = network
    maps = {}
    for tail in TAILS:
        graph, sizes = in_file(with_tail(full, tail), tail)
        maps[tail] = class_map(np, read(graph, q, INT8, OpResolverType.AUTO), sizes or ())
    assert maps["classes"].tobytes() == maps["logits"].tobytes() == maps["upsampled"].tobytes()
    assert maps["nearest"].shape == maps["classes"].shape and (maps["nearest"] != maps["classes"]).any()
    logits = simulated(full.until("logits"), q)
    height, width = maps["nearest"].shape[1:]
    if (height, width) == SIZE:
        coarse = logits.argmax(-1).repeat(height // logits.shape[1], 1).repeat(width // logits.shape[2], 2)
        np.testing.assert_array_equal(maps["nearest"], coarse)


def test_what_has_no_such_end_stays_whole() -> None:
    full = small_segmenter_graph()
    logits = full.until("logits")
    for tail in TAILS:
        assert with_tail(logits, tail) is logits and in_file(logits, tail) == (logits, None)
    size = full.tensors["upsampled"].shape[:2]
    assert [in_file(with_tail(full, tail), tail)[1] for tail in TAILS] == [(), (size,), (), (size,)]
