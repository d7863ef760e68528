"""Layers left in float: LiteRT's integers behind them are the simulation's but for ties, on both kernel sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploy.compile.artifact import Artifact, save_model
from deploy.formats.tflite.here import RunHere
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import write
from deploy.targets.inspection import inspect_model
from nas.quant import reference, simulate
from nas.quant.file_order import to_file_order
from nas.quant.float_graph import INPUT, Conv, FullyConnected, Mean, Reshape, TransposedConv, Weighted, stepwise
from nas.quant.integer_graph import IntegerGraph, QFloatLayer
from nas.quant.post_training import quantize
from nas.quant.ranges import minmax
from nas.quant.scheme import Scheme
from tests.deploy.exactness import seeds
from tests.deploy.formats.test_lowered_networks import SHAPE, Made, data, read_all

TIES = 0.01  # of the elements: sums that lie halfway, and fall to either side by their last bits
KINDS = ("conv", "transposed_conv", "sparse", "vector", "row")


def layer(kind: str, seed: int) -> Made:
    """A network of one layer."""
    made = Made(seed)
    if kind == "vector":
        made.add(Mean, made.last, keep_dims=False)
    if kind == "row":
        made.add(Reshape, made.last, (SHAPE[0] * SHAPE[1], SHAPE[2]))
    if kind == "sparse":  # a kernel below its stride
        made.add(TransposedConv, made.last, made.values(4, SHAPE[2], 1, 2), made.values(4), 2, (0, -1, 0, 0))
    elif kind in ("vector", "row"):
        made.add(FullyConnected, made.last, made.values(5, SHAPE[2]), made.values(5), made.activation())
    else:
        getattr(made, kind)()
    return made


def in_float(made: Made, x: torch.Tensor, scheme: Scheme) -> IntegerGraph:
    names = [node.name for node in made.nodes if isinstance(node, Weighted)]
    return quantize(made.nodes, [x], SHAPE, scheme, minmax(x), in_float=names)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), seeds, st.booleans())
def test_one_layer(kind, seed, unsigned):
    made, x = layer(kind, seed), data(seed)
    assume(float(list(stepwise(made.nodes, {INPUT: x}))[-1][1].abs().max()) > 0)  # a ReLU may leave nothing
    graph = in_float(made, x, Scheme("tensor" if unsigned else "channel"))
    q, shift = simulate.quantize(x[:1], graph.tensors[INPUT]), 128 * unsigned
    form = Form("uint8" if unsigned else "int8")
    content = write(graph, form=form)
    given = (to_file_order(q).numpy() + shift).astype(form.activations)
    for kernels, run in ((OpResolverType.AUTO, simulate.run), (OpResolverType.BUILTIN_REF, reference.run)):
        if unsigned and kind == "vector" and kernels is OpResolverType.BUILTIN_REF:
            continue  # whose mean is rounded otherwise in uint8
        (answer,) = read_all(content, given, kernels)
        wanted = to_file_order(run(graph, q)).numpy().reshape(answer.shape).astype(np.int64) + shift
        apart = np.abs(wanted - answer.astype(np.int64))
        assert apart.max() <= 1 and (apart != 0).sum() <= max(1, TIES * apart.size)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_maps_are_rounded(kind):
    """Half a step of the input, through the weights, and half a step of the result."""
    made, x = layer(kind, 3), data(3)
    graph = in_float(made, x, Scheme("tensor"))
    source, y = graph.tensors[INPUT], graph.tensors[graph.output]
    q = simulate.quantize(x, source)
    real = simulate.dequantize(q, source)
    wanted = [y for _, y in stepwise(made.nodes, {INPUT: real})][-1]
    found = simulate.dequantize(simulate.run(graph, q), y)
    if kind != "vector":  # whose mean is rounded before
        assert (found - wanted).abs().max() <= y.scale / 2 + 1e-5


def test_the_file_says_what_it_holds(tmp_path):
    made, x = layer("conv", 5), data(5)
    graph = in_float(made, x, Scheme("tensor"))
    found = inspect_model(parse(write(graph), "m"))
    assert [op.name for op in found.operators if op.name != "PAD"] == [
        "DEQUANTIZE",
        found.operators[-2].name,
        "QUANTIZE",
    ]
    (kept,) = (op for op in graph.operators if isinstance(op, QFloatLayer))
    assert graph.size_bits == 32 * (kept.weight.size + kept.bias.size) and graph.macs > 0


def test_the_golden_output_is_this_machines(tmp_path):
    """Some of many elements are one step beside the simulation's."""
    made = Made(0)
    x = torch.randn(1, 64, 32, 32, generator=made.generator)
    made.add(Conv, INPUT, made.values(64, 64, 3, 3), made.values(64))
    graph = quantize(made.nodes, [x], (32, 32, 64), Scheme("tensor"), minmax(x), in_float=["n0"])
    simulated = simulate.as_nhwc(simulate.run(graph, simulate.quantize(x, graph.tensors[INPUT]))).tobytes()
    artifact = save_model(graph, x, Artifact.at(tmp_path, "m"), {})
    answer = RunHere(artifact.model.read_bytes()).outputs(artifact.input.read_bytes())
    assert answer == artifact.expected.read_bytes() and answer != simulated
