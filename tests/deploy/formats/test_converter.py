"""Our file and the TensorFlow converter's, given the same quantization parameters, answer alike."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType

from deploy.formats.keras import converted, difference, equivalent, parameters
from deploy.formats.tflite.read import read
from deploy.formats.tflite.writer import write
from hil.errors import ModelError, UsageError
from nas.networks.blocks import SuperBlock, recalibrate
from nas.networks.resnet import Depth, ResNet, ResNetForm
from nas.networks.segmenter import Head, student
from nas.quant.float_graph import INPUT, Add, Conv, run
from nas.quant.folding import fold_layers, fold_resnet, fold_segmenter
from tests.deploy.networks import interpret, space, trained_like

DEMO = space("demo")
NEEDS = "needs the extra: pip install 'hilnas[tensorflow]'"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads of torch on two busy cores wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def holds(nodes, images, folder, what):
    """Identical outputs on random integers, on XNNPACK and on the reference kernels."""
    (folder / "theirs.tflite").write_bytes(theirs := converted(nodes, images))
    graph = equivalent(read(folder / "theirs.tflite"), nodes)
    ours = write(graph)
    q = torch.randint(-128, 128, (1, *graph.tensors[INPUT].shape)).numpy().astype(np.int8)
    for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF):
        answers = interpret(ours, q, kernels), interpret(theirs, q, kernels)
        np.testing.assert_array_equal(*answers, f"{what} {kernels}")
        assert len(np.unique(answers[0])) > 1


@pytest.mark.tensorflow
def test_100_random_subnets_equal_the_converters(tmp_path):
    pytest.importorskip("tensorflow", reason=NEEDS)
    rng = random.Random(20)
    for i in range(100):
        subnet = rng.choice(list(DEMO.subnets(rng.randint(1, 4))))
        torch.manual_seed(i)
        supernet = trained_like(SuperBlock(DEMO, subnet.block), i)
        x = torch.randn(4, DEMO.input_channels(subnet.block), 12, 16) * 2
        y = x
        for layer in supernet.path(subnet):
            recalibrate(layer, y)
            y = run(fold_layers([layer], "layer", INPUT), {INPUT: y})
        holds(fold_layers(supernet.path(subnet), "b", INPUT), x, tmp_path, f"{i} {subnet}")


@pytest.mark.tensorflow
@pytest.mark.parametrize("end", ["logits", "classes"])
def test_a_whole_model_equals_the_converters(tmp_path, end):
    pytest.importorskip("tensorflow", reason=NEEDS)
    torch.manual_seed(1)
    architecture = DEMO.sample(random.Random(1))
    model = student(DEMO, architecture, 11, Head(16, (2, 4))).eval()
    images = (torch.randint(0, 256, (3, 3, 64, 80)).float() - 128) / 128
    recalibrate(model, images)
    nodes = fold_segmenter(model, (64, 80), architecture)
    last = [node.name for node in nodes].index(end)
    holds(nodes[: last + 1], images, tmp_path, f"{architecture} up to {end}")


@pytest.mark.tensorflow
@pytest.mark.parametrize("depth", [18, 50])
def test_a_resnet_equals_the_converters(tmp_path, depth: Depth):
    """MAX_POOL_2D, and RELU after convolutions and additions."""
    pytest.importorskip("tensorflow", reason=NEEDS)
    torch.manual_seed(2)
    model = trained_like(ResNet(7, (64, 70), ResNetForm(depth, 8)), 2).eval()
    images = (torch.randint(0, 256, (3, 3, 64, 70)).float() - 128) / 128
    recalibrate(model, images)
    holds(fold_resnet(model), images, tmp_path, f"ResNet{depth}")


@pytest.mark.tensorflow
def test_another_network_is_refused(tmp_path):
    """A file is compared with the network that it came from, or not at all."""
    pytest.importorskip("tensorflow", reason=NEEDS)
    x = torch.randn(2, 4, 6, 6)
    first = Conv("first", INPUT, torch.randn(4, 4, 1, 1), torch.randn(4))
    second = Conv("second", "first", torch.randn(4, 4, 3, 3), torch.randn(4))
    nodes = [first, second, Add("sum", "first", "second")]
    (tmp_path / "theirs.tflite").write_bytes(converted(nodes, x))
    model = read(tmp_path / "theirs.tflite")
    assert parameters(model, nodes).keys() == {INPUT, "first", "second", "sum"}
    with pytest.raises(ModelError, match="one for one: CONV_2D, CONV_2D, ADD"):
        parameters(model, nodes[:2])
    with pytest.raises(ModelError, match="'sum' reads other tensors"):
        parameters(model, [first, second, Add("sum", INPUT, "second")])
    with pytest.raises(ModelError, match=r"'first': \d+ of the converter's weights differ"):
        equivalent(model, [replace(first, weight=-first.weight), *nodes[1:]])
    with pytest.raises(ModelError, match="'first': the converter's weights have other scales"):
        equivalent(model, [replace(first, weight=first.weight * 1.01), *nodes[1:]])
    with pytest.raises(ModelError, match="'second': the converter's biases differ"):
        equivalent(model, [first, replace(second, bias=second.bias + 1), nodes[2]])


def test_difference():
    a = np.array([1, 2, -128, 4], np.int8)
    found = difference(a, np.array([1, 3, 127, 4], np.int8))
    assert (found.equal, found.largest_lsb) == (0.5, 255)
    with pytest.raises(ModelError, match=r"\(4,\) and \(1, 4\)"):
        difference(a, a[None])


def test_without_tensorflow_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UsageError, match=r"pip install 'hilnas\[tensorflow\]'"):
        converted([Conv("c", INPUT, torch.ones(1, 1, 1, 1), torch.zeros(1))], torch.zeros(1, 1, 2, 2))
