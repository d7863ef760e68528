"""MobileNetV2 classifiers from torch to .tflite: what LiteRT, onnxruntime and the converter's file answer.

Measured (96 x 96 pixels, 1001 classes, random weights): quantized in 0.06 s, written in 0.02 s as 4.0 MB.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import OpResolverType

from deploy.formats.tflite.writer import write
from nas.errors import QuantizationError
from nas.networks.blocks import recalibrate
from nas.networks.classifier import Classifier
from nas.networks.segmenter import Head, Segmenter
from nas.quant import post_training, reference, simulate
from nas.quant.float_graph import (
    INPUT,
    AveragePool,
    Concat,
    Conv,
    FullyConnected,
    Mean,
    Node,
    Pad,
    Reshape,
    Softmax,
    run,
)
from nas.quant.folding import fold_classifier
from nas.quant.integer_graph import IntegerGraph, QSoftmax, reads
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import Architecture, SearchSpace
from tests.deploy.formats.test_converter import NEEDS, holds
from tests.deploy.formats.test_onnx import alone, compared
from tests.deploy.networks import interpret, simulated, space, trained_like

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = space("mobilenetv2-small")
EVERYTHING = Scheme("tensor", "mse", equalize=True, bias_correction=True)


def mobilenetv2() -> SearchSpace:
    """The published network: the widths of Table I, output stride 32, nothing dilated."""
    table1 = space("table1")
    strides = (2, 2, 2, 1, 2, 1)
    blocks = tuple(replace(b, stride=s, dilation=1) for b, s in zip(table1.blocks, strides, strict=True))
    return replace(table1, blocks=blocks)


def case(
    of: SearchSpace, size: tuple[int, int], classes: int, seed: int = 0, architecture: Architecture | None = None
) -> tuple[Classifier, torch.Tensor]:
    """A classifier of the teacher's layers, or of `architecture`, and images (3, 3, H, W)."""
    torch.manual_seed(seed)
    layers = [subnet.choices for subnet in architecture.subnets] if architecture else of.teacher_layers
    images = (torch.randint(0, 256, (3, 3, *size)).float() - 128) / 128
    model = trained_like(Classifier(of, layers, classes), seed).eval()
    recalibrate(model, images)
    return model, images


def quantized(nodes: list[Node], images: torch.Tensor, scheme: Scheme = DEFAULT) -> tuple[IntegerGraph, torch.Tensor]:
    """The graph, and the integers of the first image."""
    graph = post_training.quantize(nodes, [images], (*images.shape[2:], 3), scheme)
    return graph, simulate.quantize(images[:1], graph.tensors[INPUT])


def exact(graph: IntegerGraph, q: torch.Tensor) -> np.ndarray:
    """LiteRT's answer (1, classes), after both kernel sets have been held to their simulations."""
    content, source = write(graph), simulate.as_nhwc(q)
    answer = interpret(content, source)
    assert answer.shape == (1, graph.tensors[graph.output].shape[2])
    np.testing.assert_array_equal(answer, simulated(graph, q).reshape(answer.shape))
    np.testing.assert_array_equal(
        interpret(content, source, OpResolverType.BUILTIN_REF),
        simulate.as_nhwc(reference.run(graph, q)).reshape(answer.shape),
    )
    return answer


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("scheme", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_mobilenetv2_from_torch_to_tflite(scheme, probabilities):
    model, images = case(mobilenetv2(), (96, 96), 1001)
    graph, q = quantized(fold_classifier(model, probabilities=probabilities), images, scheme)
    answer = exact(graph, q)
    assert len(np.unique(answer)) > (1 if probabilities else 20)
    assert sum(op.size_bits for op in graph.operators if hasattr(op, "size_bits")) / 8 < 3.7e6  # 3.5 M parameters


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_students_of_another_size(granularity):
    architecture = SMALL.sample(random.Random(4))
    model, images = case(SMALL, (58, 74), 10, 4, architecture)
    exact(*quantized(fold_classifier(model, architecture, probabilities=True), images, Scheme(granularity)))


def test_folded_nodes_compute_what_the_network_does():
    model, images = case(SMALL, (40, 56), 13, 1)
    with torch.no_grad():
        logits = model(images)
    folded = run(fold_classifier(model), {INPUT: images})
    torch.testing.assert_close(folded[:, :, 0, 0], logits, rtol=1e-3, atol=1e-4)
    folded = run(fold_classifier(model, probabilities=True), {INPUT: images})
    torch.testing.assert_close(folded[:, :, 0, 0], logits.softmax(1), rtol=1e-3, atol=1e-5)


def test_quantized_logits_are_near_the_networks():
    model, images = case(SMALL, (64, 64), 100, 2)
    graph, q = quantized(fold_classifier(model), images)
    found = simulate.dequantize(torch.from_numpy(exact(graph, q)).float(), graph.tensors["logits"])
    with torch.no_grad():
        logits = model(images[:1])
    assert float((found - logits).square().mean() / logits.var()) < 0.1


def test_encoder_weights_go_between_classifier_and_segmenter():
    classifier = Classifier(SMALL, SMALL.teacher_layers, 10)
    segmenter = Segmenter(SMALL, SMALL.teacher_layers, 3, Head(16, (2,)))
    ours, theirs = (
        {k: v for k, v in m.state_dict().items() if k.startswith(("stem", "first", "blocks"))}
        for m in (classifier, segmenter)
    )
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def small_end() -> tuple[list[Node], torch.Tensor]:
    """Convolutions that equalization rescales, one that the pooling reads, and a fully connected end."""
    generator = torch.Generator().manual_seed(5)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    nodes: list[Node] = [
        Conv(
            "first",
            INPUT,
            noise(12, 3, 3, 3) * torch.logspace(-2, 0, 12)[:, None, None, None],
            noise(12),
            2,
            1,
            "relu6",
        ),
        Conv("second", "first", noise(8, 12, 1, 1), noise(8), activation="relu6"),
        Mean("mean", "second"),
        FullyConnected("hidden", "mean", noise(16, 8), noise(16), "relu6", 4),
        FullyConnected("logits", "hidden", noise(5, 16), noise(5)),
    ]
    return nodes, (torch.randint(0, 256, (8, 3, 16, 16), generator=generator).float() - 128) / 128


def test_equalization_leaves_a_fully_connected_end_alone():
    nodes, images = small_end()
    prepared = post_training.prepared(nodes, [{INPUT: images}], EVERYTHING)
    changed = [a.name for a, b in zip(nodes, prepared, strict=True) if a is not b]
    assert changed == ["first", "second"]
    torch.testing.assert_close(run(prepared, {INPUT: images}), run(nodes, {INPUT: images}), rtol=1e-4, atol=1e-4)


def test_bias_correction_takes_the_mean_error_out_of_fully_connected_layers():
    nodes, images = small_end()
    graph, q = quantized(nodes, images, Scheme(bias_correction=True))
    exact(graph, q)
    env, reals = {INPUT: simulate.quantize(images, graph.tensors[INPUT])}, {INPUT: images}
    simulate.simulate(graph.operators, graph.tensors, env)
    run(nodes, reals)
    for op, node in zip(graph.operators[3:], nodes[3:], strict=True):
        found = simulate.accumulate(op, env[op.x], graph.tensors[op.x]).double().mean(0).flatten().numpy()
        expected = replace(node, activation="none")(reals).double().mean(0).flatten().numpy()
        unit = np.float64(np.float32(graph.tensors[op.x].scale)) * op.weight_scale
        np.testing.assert_allclose(found, expected / unit, atol=0.51)


def test_what_a_vector_cannot_do_is_refused_by_name():
    nodes, images = small_end()
    conv = Conv("after", "logits", torch.ones(5, 5, 1, 1), torch.zeros(5))
    with pytest.raises(QuantizationError, match="'after' reads the vector 'logits': it needs a map"):
        quantized([*nodes, conv], images)
    unpooled = FullyConnected("early", "second", torch.ones(5, 8), torch.zeros(5))
    with pytest.raises(QuantizationError, match="'early' has weights for 8 inputs and reads 'second' 8x8x8"):
        quantized([*nodes[:2], unpooled], images)


def test_what_cannot_rescale_shares_its_readers_scale():
    """A concatenation with a wider map widens the pooled map, and so the one that is pooled."""
    nodes, images = small_end()
    wide = Conv("wide", "pool", torch.full((2, 8, 1, 1), 9.0), torch.zeros(2))
    graph, q = quantized(
        [
            *nodes[:2],
            AveragePool("pool", "second", 2, 2),
            wide,
            Concat("both", ("pool", "wide")),
            Reshape("v", "both", (-1,)),
        ],
        images,
    )
    same = {
        (graph.tensors[name].scale, graph.tensors[name].zero_point) for name in ("second", "pool", "wide", "both", "v")
    }
    assert len(same) == 1
    exact(graph, q)


def test_a_result_of_a_fixed_scale_is_requantized_to_be_joined():
    nodes, images = small_end()
    joined = [*nodes[:2], Softmax("p", "second"), Concat("joined", ("p", "second")), Reshape("v", "joined", (-1,))]
    graph, q = quantized(joined, images)
    assert [op.name for op in graph.operators] == ["first", "second", "p", "p/requantized", "joined", "v"]
    assert graph.tensors["p"].scale == 1 / 256 < graph.tensors["p/requantized"].scale == graph.tensors["second"].scale
    exact(graph, q)


@pytest.mark.tensorflow
def test_the_converters_pooled_and_padded_end_answers_alike(tmp_path):
    pytest.importorskip("tensorflow", reason=NEEDS)
    nodes, images = small_end()
    weight = torch.randn(6, 4 * 5 * 8, generator=torch.Generator().manual_seed(2))
    end = [
        AveragePool("pool", "second", 2, 2),
        Pad("pad", "pool", (0, 0), (1, 0)),
        Reshape("vector", "pad", (-1,)),
        FullyConnected("logits", "vector", weight, torch.ones(6), "relu6"),
        Softmax("probabilities", "logits"),
    ]
    for count in (2, 4, 5):
        holds([*nodes[:2], *end[:count]], images, tmp_path, f"{count} operators of the end")


def test_a_flattened_map_is_read_in_the_deployed_order():
    """(H, W, C), not torch's (C, H, W)."""
    x = torch.arange(2 * 3 * 4).reshape(1, 2, 3, 4).float()
    flat = run([Reshape("flat", INPUT, (-1,))], {INPUT: x})
    assert flat.flatten().tolist() == x.permute(0, 2, 3, 1).flatten().tolist()
    weight = torch.randn(6, 8 * 8 * 8, generator=torch.Generator().manual_seed(1))
    nodes, images = small_end()
    ends = [Reshape("vector", "second", (-1,)), FullyConnected("logits", "vector", weight, torch.zeros(6))]
    exact(*quantized([*nodes[:2], *ends, Softmax("probabilities", "logits")], images))


def test_the_runtime_s_analyzer_reads_the_file():
    tensorflow = pytest.importorskip("tensorflow", reason=NEEDS)
    model, images = case(mobilenetv2(), (64, 64), 20)
    graph, _ = quantized(fold_classifier(model, probabilities=True), images)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        tensorflow.lite.experimental.Analyzer.analyze(model_content=write(graph))
    text = said.getvalue()
    listed = re.findall(r"^  Op#\d+ (\w+)\(", text, re.MULTILINE)
    assert len(listed) == len(graph.operators)
    assert set(listed) == {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX"}
    assert "Model size" in text and "error" not in text.lower() and "warning" not in text.lower()


def test_onnxruntime_on_a_classifier():
    """Each operator within 1 LSB; the end, where first differences have grown, near."""
    model, images = case(SMALL, (48, 64), 30, 6)
    graph, q = quantized(fold_classifier(model, probabilities=True), images)
    env = {INPUT: q}
    simulate.simulate(graph.operators, graph.tensors, env)
    for op in graph.operators:
        if len(reads(op)) == 1 and not isinstance(op, QSoftmax):  # alone it would read a vector: hereafter
            assert compared(alone(graph, op.name), env[reads(op)[0]]).largest_lsb <= 1, op.name
    assert compared(graph.until("logits"), q).largest_lsb <= 3
    assert compared(graph, q).largest_lsb <= 3


@pytest.mark.tensorflow
@pytest.mark.parametrize("probabilities", [False, True])
def test_the_converters_classifier_answers_alike(tmp_path, probabilities):
    pytest.importorskip("tensorflow", reason=NEEDS)
    model, images = case(mobilenetv2(), (64, 64), 40, 3)
    holds(fold_classifier(model, probabilities=probabilities), images, tmp_path, "classifier")
