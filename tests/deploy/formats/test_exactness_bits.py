"""LiteRT's answers at mixed bits of weights and activations equal the integer simulation's, byte for byte."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from deploy.compile.artifact import quantize
from deploy.formats.tflite.writer import write
from nas.errors import QuantizationError
from nas.lcpaq.policy import ACTIVATION_BITS, WEIGHT_BITS, Policy, policy_of, ties
from nas.networks.blocks import recalibrate
from nas.networks.classifier import Classifier
from nas.networks.segmenter import Head, Segmenter
from nas.quant import simulate
from nas.quant.float_graph import INPUT, Node, Weighted
from nas.quant.lower import lower
from nas.quant.ranges import calibrate, shared
from nas.tasks.task import Network, fold
from tests.deploy.formats.test_exactness import cases
from tests.deploy.networks import interpret, referenced, simulated, space


def mixed(nodes: list[Node], rng: random.Random) -> Policy:
    """Any bits for every layer; those that read one tensor read the same."""
    names = list(policy_of(nodes).bits)
    reads = {}
    for group in shared(nodes):
        reads.update(dict.fromkeys(group.readers, rng.choice(ACTIVATION_BITS)))
    return Policy({name: rng.choice(WEIGHT_BITS) for name in names}, reads)


@settings(max_examples=100, deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_random_graphs(case, seed):
    """XNNPACK against `simulate`, the reference kernels against `reference`."""
    nodes, (height, width, depth), _, granularity = case
    policy = mixed(nodes, random.Random(seed))
    nodes = [
        replace(n, bits=policy.bits[n.name], input_bits=policy.activations[n.name]) if isinstance(n, Weighted) else n
        for n in nodes
    ]
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randint(0, 256, (2, depth, height, width), generator=generator).float() - 128) / 128
    try:
        graph = lower(nodes, calibrate(nodes, [x]), (height, width, depth), granularity)
    except QuantizationError:
        reject()  # a dead tensor, or one too narrow for what it is made of
    q = simulate.quantize(x[:1], graph.tensors[INPUT])
    content, source = write(graph), simulate.as_nhwc(q)
    answer = interpret(content, source)
    np.testing.assert_array_equal(answer, simulated(graph, q).reshape(answer.shape))
    answer = interpret(content, source, OpResolverType.BUILTIN_REF)
    np.testing.assert_array_equal(answer, referenced(graph, q).reshape(answer.shape))


def network(task: str) -> Network:
    of = space("demo")
    torch.manual_seed(0)
    layers = of.teacher_layers
    model = Segmenter(of, layers, 5, Head(16, (2, 4))) if task == "segmentation" else Classifier(of, layers, 7, 32)
    return model.eval()


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_whole_network_at_a_policys_bits(task):
    """The image too has fewer than 8."""
    model, size = network(task), (64, 96)
    images = (torch.randint(0, 256, (2, 3, *size)).float() - 128) / 128
    recalibrate(model, images)
    nodes = fold(model, size)
    policy = mixed(nodes, random.Random(1))
    first, *_ = policy.bits
    policy = replace(policy, activations={**policy.activations, first: 4})
    assert len(set(policy.activations.values())) > 3 and ties(nodes, activations=True)
    graph = quantize(model, [images], size, policy=policy)
    q = simulate.quantize(images[:1], graph.tensors[INPUT])
    assert len(q.unique()) == 16
    answer = interpret(write(graph), simulate.as_nhwc(q))
    np.testing.assert_array_equal(answer, simulated(graph, q).reshape(answer.shape))
