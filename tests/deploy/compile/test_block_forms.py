"""Blocks alone, between their neighbours and inside a whole model: the same integers, the runtime's answers."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.compile.artifact import golden_pair, quantize
from deploy.compile.block_forms import FORMS, random_reference
from deploy.compile.weights import Origin
from deploy.formats.tflite.writer import write
from nas.errors import ConfigError, QuantizationError
from nas.networks.blocks import recalibrate
from nas.networks.segmenter import Head, student
from nas.quant import post_training, simulate, splice
from nas.quant.float_graph import INPUT
from nas.quant.folding import fold_layers
from nas.quant.integer_graph import IntegerGraph, IntTensor, QConv, reads
from nas.quant.integer_operators import QConcat
from nas.quant.ranges import minmax
from nas.quant.scheme import DEFAULT, Granularity
from nas.space import Block, SearchSpace, Subnet
from tests.deploy.networks import block_of, interpret, quantized_subnet, random_integers, simulated, space

pytestmark = pytest.mark.usefixtures("one_thread")
HEAD = Head(16, (2, 4))
SAME_SHAPES = SearchSpace(  # additions and depthwise convolutions read the seams
    "same-shapes",
    16,
    16,
    tuple(Block(stride, c, 2, 2) for stride, c in ((1, 16), (2, 24), (1, 24))),
    (3, 5),
    (1, 3),
    (4, 6, 8),
)
SPACES = {
    "demo": (replace(space("demo"), bits=(4, 6, 8)), (48, 64)),
    "table1": (replace(space("table1"), bits=(4, 6, 8)), (90, 122)),
    "same-shapes": (SAME_SHAPES, (33, 41)),
}


@cache
def whole(name: str, granularity: Granularity = "channel") -> IntegerGraph:
    of, size = SPACES[name]
    architecture = of.sample(random.Random(name))
    return random_reference(of, size, architecture=architecture, head=HEAD, granularity=granularity)


def blocks_of(name: str) -> range:
    return range(1, len(SPACES[name][0].blocks) + 1)


@st.composite
def subnets(draw: st.DrawFn, name: str) -> tuple[IntegerGraph, IntegerGraph, int, int]:
    """A random subnet of the space quantized by itself, a whole model, the block's number, a seed."""
    of, size = SPACES[name]
    block, seed = draw(st.integers(1, len(of.blocks))), draw(st.integers(0, 2**31))
    choices = draw(st.tuples(*[st.sampled_from(of.choices)] * of.blocks[block - 1].layers))
    granularity = draw(st.sampled_from(["channel", "tensor"]))
    subnet = Subnet(block, choices, draw(st.sampled_from(of.bits)))
    graph = quantized_subnet(of, subnet, Origin(of, size).map_size(block), granularity, seed)
    return graph, whole(name, granularity), block, seed


def answers_as_simulated(graph: IntegerGraph, q: torch.Tensor) -> None:
    answer = simulated(graph, q)
    assert len(np.unique(answer)) > 1 or graph.tensors[graph.output].dtype == "int32"
    np.testing.assert_array_equal(interpret(write(graph), simulate.as_nhwc(q)), answer)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_every_form_answers_as_the_simulation(name, form, data):
    subnet, reference, block, seed = data.draw(subnets(name))
    graph = FORMS[form].compose(subnet, reference)
    answers_as_simulated(graph, random_integers(graph, seed))
    if form == "exchanged":
        answers_as_simulated(graph.until("logits"), random_integers(graph, seed))
    if form == "bounded":
        fence = splice.boundary(reference, block)
        answers_as_simulated(fence, random_integers(fence, seed))


def same_function(op: QConv, original: QConv, now: float, before: float) -> None:
    """The same real weights and biases, but for half a unit where the scale is another."""
    by_output = (lambda scale: scale) if op.depthwise else (lambda scale: scale.reshape(-1, 1, 1, 1))
    scale, scale_before = op.weight_scale.astype(float), original.weight_scale.astype(float)
    kept = np.abs(op.weight * by_output(scale) - original.weight * by_output(scale_before))
    assert (kept <= by_output(np.where(scale == scale_before, 0, scale / 2))).all()
    unit = now * scale
    assert (np.abs(op.bias * unit - original.bias * (before * scale_before)) <= unit / 2 * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_an_exchange_changes_the_block_and_the_units_of_biases_only(name, data):
    subnet, reference, block, _ = data.draw(subnets(name))
    graph = splice.exchanged(subnet, reference)
    entry = reference.tensors[splice.block_input(reference, block)]
    left = {op.name: op for op in (*reference.operators, *subnet.operators)}
    read_before = {op.name: [(reference if op.name not in subnet.tensors else subnet).tensors[x] for x in reads(op)]
                   for op in left.values()}  # fmt: skip
    assert [op.name for op in graph.operators if op.name.startswith(f"b{block}/")] == [o.name for o in subnet.operators]
    assert set(graph.tensors) == {graph.input, *(op.name for op in graph.operators)}
    assert graph.tensors[entry.name] == entry
    assert graph.tensors[subnet.output] == subnet.tensors[subnet.output]
    for op in graph.operators:
        original = left[op.name]
        assert type(op) is type(original)
        if isinstance(op, QConv):
            now, before = graph.tensors[op.x].scale, read_before[op.name][0].scale
            assert np.array_equal(op.weight, original.weight) or now != before
            same_function(op, original, now, before)


@pytest.mark.parametrize(("name", "block"), [(name, block) for name in SPACES for block in blocks_of(name)])
def test_a_block_exchanged_for_itself_is_the_same_file(name, block):
    reference = whole(name)
    alone = block_of(reference, block)
    assert alone.input == INPUT
    assert write(splice.exchanged(alone, reference)) == write(reference)
    env = {reference.input: random_integers(reference, block)}
    simulate.simulate(reference.operators, reference.tensors, env)
    q = env[splice.block_input(reference, block)]
    np.testing.assert_array_equal(interpret(write(alone), simulate.as_nhwc(q)), simulate.as_nhwc(env[alone.output]))


@pytest.mark.parametrize(("name", "block"), [(name, block) for name in SPACES for block in blocks_of(name)])
def test_a_block_after_its_predecessor_answers_as_its_place_in_the_whole_model(name, block):
    reference = whole(name)
    graph = splice.preceded(block_of(reference, block), reference)
    before = "first" if block == 1 else f"b{block - 1}"
    assert {op.name.partition("/")[0] for op in graph.operators} >= {before, f"b{block}"}
    assert graph.input == (reference.input if block == 1 else splice.block_input(reference, block - 1))
    image = torch.rand(1, 3, *SPACES[name][1]) * 2 - 1
    _, expected = golden_pair(graph, FORMS["preceded"].input(reference, block, image))
    place = reference.until(graph.output)
    q = simulate.quantize(image, reference.tensors[reference.input])
    assert simulate.as_nhwc(simulate.run(place, q)).tobytes() == expected


def test_only_neighbours_are_joined():
    reference = whole("table1")
    first, second, third = (block_of(reference, block) for block in (1, 2, 3))
    assert [op.name[:2] for op in splice.joined(first, second).operators] == ["b1"] * len(first.operators) + [
        "b2"
    ] * len(second.operators)
    with pytest.raises(ConfigError, match="is 23x31x24, what follows reads 12x16x32: join neighbours"):
        splice.joined(first, third)


def test_a_bounded_block_answers_as_its_place_in_the_whole_model():
    """Where no addition stands between the projection and the block, and ReLU6 clips what int8 clips."""
    reference = whole("table1")
    graph = splice.bounded(block_of(reference, 1), reference)
    assert [op.name.partition("/")[0] for op in (graph.operators[0], graph.operators[-1])] == ["first", "b2"]
    image = torch.rand(1, 3, *SPACES["table1"][1]) * 2 - 1
    source, expected = golden_pair(graph, FORMS["bounded"].input(reference, 1, image))
    q = simulate.quantize(image, reference.tensors[INPUT])
    place = reference.until(graph.output)
    assert simulate.as_nhwc(simulate.run(reference.until(graph.input), q)).tobytes() == source
    assert simulate.as_nhwc(simulate.run(place, q)).tobytes() == expected


def noise(graph: IntegerGraph, name: str, images: torch.Tensor, wanted: torch.Tensor) -> float:
    """The squared error of the graph's tensor `name` over the squared spread of the `wanted` one, (N, C, h, w)."""
    q = simulate.run(graph.until(name), simulate.quantize(images, graph.tensors[graph.input]))
    error = simulate.dequantize(q, graph.tensors[name]) - wanted
    return float(error.square().sum() / (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum())


@pytest.mark.parametrize("block", blocks_of("demo"))
def test_exchanging_approximates_quantizing_the_whole(block):
    """Against the exchanged network in float, the exchange loses about what quantizing that network as a whole does.

    At the block's end the two are alike; at the logits the exchange has the ranges of the network that it came into.
    """
    of, size = SPACES["demo"]
    torch.manual_seed(block)
    images = torch.rand(4, 3, *size) * 2 - 1
    rng = random.Random(block)
    model, other = (student(of, of.sample(rng), 11, HEAD).eval() for _ in range(2))
    recalibrate(model, images)
    reference = quantize(model, [images], size)
    with torch.no_grad():
        x = model.boundaries(images)[block - 1]
        model.blocks[block - 1] = other.blocks[block - 1]
        recalibrate(model.blocks[block - 1], x)
        wanted = {"block": model.boundaries(images)[block], "logits": model(images)}
    nodes = fold_layers(list(model.blocks[block - 1]), f"b{block}", INPUT)
    x_range = minmax(x * 1.1)  # another scale at the seam than the reference's
    subnet = post_training.quantize(nodes, [x], (*x.shape[2:], x.shape[1]), DEFAULT, x_range)
    exchange, at_once = splice.exchanged(subnet, reference), quantize(model, [images], size)
    end, at_end = subnet.output, wanted["block"]
    assert noise(exchange, end, images, at_end) < 1.02 * noise(at_once, end, images, at_end)  # found: 1.005
    lost = noise(exchange, "logits", images, wanted["logits"])
    assert lost < 5 * noise(at_once, "logits", images, wanted["logits"])  # found: 1.3 to 3.3
    assert lost < noise(reference, "logits", images, wanted["logits"]) / 5  # found: an eighth to a fifteenth


@pytest.mark.parametrize(("name", "block"), [(name, block) for name in SPACES for block in blocks_of(name)])
def test_a_boundary_is_the_bounded_form_without_the_block(name, block):
    reference = whole(name)
    alone = block_of(reference, block)
    inside, outside = splice.bounded(alone, reference), splice.boundary(reference, block)
    (first, *_, last), (first_outside, *between, last_outside) = inside.operators, outside.operators
    assert inside.tensors[inside.input] == outside.tensors[outside.input]
    assert inside.tensors[inside.output] == outside.tensors[outside.output]
    assert first is first_outside and last.weight is last_outside.weight
    assert last.activation == last_outside.activation == "none"
    same_shape = alone.tensors[alone.input].shape == alone.tensors[alone.output].shape
    assert same_shape == (name == "same-shapes" and block != 2)
    stand_ins = sum(op.macs(outside.tensors[op.name]) for op in between)
    assert len(between) == (not same_shape)
    assert inside.macs - outside.macs == alone.macs - stand_ins
    assert stand_ins < 0.25 * alone.macs  # block 6 of Table I, a single layer; up to 5 % elsewhere


def test_the_stand_in_has_its_neighbours_granularity():
    for granularity, scales in (("channel", 24), ("tensor", 1)):
        _, stand_in, _ = splice.boundary(whole("demo", granularity), 1).operators
        assert stand_in.weight_scale.size == scales
        assert (stand_in.weight != 0).all(), "compilers may skip zeros"


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_compiled_subnet(form):
    """What `hilnas compile` makes of a name, and the form's golden pair from an image."""
    of, size = space("demo"), SPACES["demo"][1]
    reference = whole("demo")
    ((_, subnet),) = Origin(of, size).graphs([Subnet.parse("b2_k5e3-k3e6_w8")])
    graph = FORMS[form].compose(subnet, reference)
    source, expected = golden_pair(graph, FORMS[form].input(reference, 2, torch.rand(1, 3, *size) * 2 - 1))
    height, width, channels = graph.tensors[graph.input].shape
    q = np.frombuffer(source, np.int8).reshape(1, height, width, channels)
    assert interpret(write(graph), q).tobytes() == expected


def test_what_does_not_fit_is_refused_by_name():
    reference = whole("demo")
    alone = block_of(reference, 2)
    smaller = random_reference(space("demo"), (32, 32), head=HEAD)
    with pytest.raises(ConfigError, match=r"block b2: 'input' is 12x16x24 in the subnet, 'b1/1/add' 8x8x24"):
        splice.exchanged(alone, smaller)
    with pytest.raises(ConfigError, match="the reference has no block b5"):
        splice.boundary(reference, 5)
    with pytest.raises(ConfigError, match="operator 'stem' is of no block"):
        splice.exchanged(reference, reference)
    with pytest.raises(ConfigError, match="block b2 of the reference is not between two convolutions"):
        splice.bounded(alone, reference.until(alone.output))


def test_a_reader_that_shares_its_scale_is_not_given_another():
    x = IntTensor("input", (4, 4, 2), 0.5, 0)
    conv = QConv("b1/0/project", "input", np.ones((2, 1, 1, 2), np.int8), np.float32([0.1]), np.zeros(2, np.int32),
                 1, 1, False, "none", 8)  # fmt: skip
    y = IntTensor("b1/0/project", (4, 4, 2), 0.25, 3)
    both = IntTensor("both", (4, 4, 4), 0.25, 3)
    reference = IntegerGraph(
        {t.name: t for t in (x, y, both)}, (conv, QConcat("both", ("b1/0/project", "b1/0/project"))), "input"
    )
    alone = block_of(reference, 1)
    assert write(splice.exchanged(alone, reference)) == write(reference)
    louder = replace(alone, tensors=alone.tensors | {y.name: replace(y, scale=0.3)})
    with pytest.raises(QuantizationError, match="'both' has the scale of what it reads"):
        splice.exchanged(louder, reference)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("begins_with", ["b2_k3e3-k5e3_w8", "b2_k3e1-k5e3_w8"])
def test_a_nearly_dead_channel_keeps_its_bias(begins_with, granularity):
    """Its scale was chosen so that its bias just fits in int32; a finer seam moves the scale again."""
    reference = whole("same-shapes", granularity)
    size = reference.tensors[splice.block_input(reference, 2)].shape[:2]
    subnet = quantized_subnet(SAME_SHAPES, Subnet.parse(begins_with), size, granularity)
    first, *rest = subnet.operators
    bias, scale = first.bias.copy(), first.weight_scale.copy()
    bias[3] = -(2**30)
    scale[3 if granularity == "channel" else 0] = 1e-9
    first = replace(first, bias=bias, weight_scale=scale)
    fine = reference.tensors[splice.block_input(reference, 2)].scale
    coarse = replace(subnet.tensors[INPUT], scale=float(np.float32(fine * 5)))
    subnet = replace(subnet, tensors=subnet.tensors | {INPUT: coarse}, operators=(first, *rest))
    graph = splice.exchanged(subnet, reference)
    now = next(op for op in graph.operators if op.name == first.name)
    assert np.abs(now.bias).max() <= 2**30
    doubled = np.flatnonzero(now.weight_scale != scale).tolist()
    assert doubled == ([3] if granularity == "channel" else [0])
    assert now.weight_scale[doubled] == scale[doubled] * 8
    same_function(now, first, fine, coarse.scale)
    answers_as_simulated(graph.until("logits"), random_integers(graph, 0))


def test_scales_beyond_the_kernels_are_refused_by_name():
    reference = whole("demo")
    subnet = block_of(reference, 2)
    quiet = replace(subnet.tensors[subnet.output], scale=1e-12)
    with pytest.raises(QuantizationError, match=r"'b2/1/\w+': requantization scale .* is out of TFLite's range"):
        splice.exchanged(replace(subnet, tensors=subnet.tensors | {quiet.name: quiet}), reference)
