"""Imported networks as integers: the file's outputs are the simulation's, and resemble the float network's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import assume, given, settings

onnx = pytest.importorskip("onnx")

from deploy.compile.scheme import QuantizationScheme  # noqa: E402
from deploy.formats.importers.files import import_network  # noqa: E402
from deploy.formats.importers.network import ImportedNetwork  # noqa: E402
from deploy.formats.tflite.writer import write  # noqa: E402
from deploy.quantize import Quantized, quantize  # noqa: E402
from deploy.quantize import quantized as quantized_module  # noqa: E402
from deploy.quantize.record import EXACT_DB, QuantizationRecord  # noqa: E402
from hil.errors import HilError, ModelError, UsageError  # noqa: E402
from hil.input_shape import InputShape  # noqa: E402
from nas.errors import NasError, QuantizationError  # noqa: E402
from nas.quant import reference, simulate, uint8  # noqa: E402
from nas.quant.file_order import to_file_order  # noqa: E402
from nas.quant.float_graph import INPUT  # noqa: E402
from nas.quant.scheme import Scheme  # noqa: E402
from tests.deploy.formats.importers import test_onnx_nodes  # noqa: E402
from tests.deploy.formats.importers.test_importing_onnx import Graph, moving, network  # noqa: E402

SHARED = Path(__file__).parents[4] / "shared/data/models"
SCHEMES = [QuantizationScheme.parse(text) for text in ("channel int8", "tensor int8", "tensor uint8")]


def data(of: ImportedNetwork, images: int = 4, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((images // 2, *of.input.deployed_shape)).astype(np.float32) for _ in range(2)]


def classifier(outputs=2) -> Graph:
    """A small network with what exporters write: an SE block, a hard swish, and two outputs."""
    g = Graph((1, 3, 16, 16))
    x = g.node("Conv", "x", g.weights(8, 3, 3, 3), g.weights(8), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    x = g.node("HardSwish", x)
    gate = g.node("GlobalAveragePool", x)
    gate = g.node("Conv", gate, g.weights(8, 8, 1, 1), kernel_shape=[1, 1])
    gate = g.node("HardSigmoid", gate, alpha=1 / 6, beta=0.5)
    features = g.node("Mul", x, gate)
    g.node("GlobalAveragePool", features)
    g.node("Flatten", g.y)
    g.node("Gemm", g.y, g.weights(8, 5), g.weights(5))
    g.node("Softmax", g.y, axis=-1)
    return g


def outputs_of(content: bytes, given: bytes, kernels=OpResolverType.AUTO) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    interpreter.set_tensor(source["index"], np.frombuffer(given, source["dtype"]).reshape(source["shape"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def exact(found: Quantized) -> None:
    """On both kernel sets; of uint8 on the ones that run by default."""
    graph, content = found.graph, write(found.graph, form=found.scheme.form)
    q = simulate.quantize(found.example, graph.tensors[INPUT])
    shift = 128 if found.scheme.activations == "uint8" else 0
    given = (simulate.as_nhwc(q, np.int32) + shift).astype(found.scheme.activations).tobytes()
    expected = {OpResolverType.AUTO: simulate.outputs_of(graph, q, uint8.apply if shift else simulate.apply)}
    if not shift:
        expected[OpResolverType.BUILTIN_REF] = reference.outputs_of(graph, q)
    for kernels, wanted in expected.items():
        for name, answer in zip(graph.outputs, outputs_of(content, given, kernels), strict=True):
            moved = shift if graph.tensors[name].dtype == "int8" else 0
            whole = simulate.as_nhwc(wanted[name], np.int32).reshape(answer.shape) + moved
            np.testing.assert_array_equal(answer, whole, name)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_network_with_two_outputs(tmp_path, scheme):
    g = classifier()
    of = network(g.model("t5", g.y))
    found = quantize(of, data(of), scheme)
    artifact = found.save(tmp_path, "m", "noise")
    assert artifact.model.name == f"m.{scheme.activations}.tflite"
    answers = outputs_of(artifact.model.read_bytes(), artifact.input.read_bytes())
    assert b"".join(answer.tobytes() for answer in answers) == artifact.expected.read_bytes()
    assert [answer.shape for answer in answers] == [(1, 8, 8, 8), (1, 5)]
    exact(found)
    interpreter = Interpreter(str(artifact.model))
    assert interpreter.get_input_details()[0]["name"] == "x"
    assert [detail["name"] for detail in interpreter.get_output_details()] == ["t5", g.y]
    assert interpreter.get_signature_list()["serving_default"] == {"inputs": ["x"], "outputs": sorted(["t5", g.y])}


@pytest.mark.parametrize("options", [Scheme(), Scheme(equalize=True, bias_correction=True, observer="mse")])
def test_the_record(tmp_path, options):
    g = classifier()
    of = network(g.model("t5", g.y))
    found = quantize(of, data(of), SCHEMES[0], options)
    found.save(tmp_path, "m", "noise, seed 0")
    record = QuantizationRecord.read(tmp_path / "quantization.json")
    assert record == found.record("m", "noise, seed 0")
    assert (record.images, record.noise_images, record.outputs) == (4, 4, ("t5", g.y))
    by_name = {tensor.name: tensor for tensor in record.tensors}
    assert by_name["x"].shape == (1, 16, 16, 3) and by_name[g.y].scale == 1 / 256
    assert all(tensor.noise_db < -20 for tensor in record.tensors), record
    for tensor in record.tensors:
        assert tensor.high - tensor.low == pytest.approx(255 * tensor.scale)


def test_of_large_inputs_fewer_give_the_noise(monkeypatch):
    of = network(classifier().model())
    images = data(of, 10)
    assert quantize(of, images).noise_images == 8
    monkeypatch.setattr(quantized_module, "NOISE_NUMBERS", 3 * 16 * 16 * 3 + 1)
    found = quantize(of, images)
    assert (found.images, found.noise_images) == (10, 3)


def test_few_examples_at_a_time_change_no_range(monkeypatch):
    of = network(classifier().model())
    images = data(of, 10)
    at_once = quantize(of, images)
    monkeypatch.setattr(quantized_module, "AT_ONCE", 1)
    for name, tensor in quantize(of, images).graph.tensors.items():
        assert tensor.scale == pytest.approx(at_once.graph.tensors[name].scale, rel=1e-5)


def test_noise_is_that_of_the_file():
    """The deployed outputs against the float network's, as somebody would compute it who has only the two."""
    of = network(classifier().model())
    images = data(of, 8)
    found = quantize(of, images)
    (name,), tensor = found.graph.outputs, found.graph.tensors[found.graph.output]
    content = write(found.graph)
    errors = values = 0.0
    for batch in images:
        for image in batch:
            x = torch.from_numpy(image).permute(2, 0, 1)[None]
            given = simulate.as_nhwc(simulate.quantize(x, found.graph.tensors[INPUT])).tobytes()
            (answer,) = outputs_of(content, given)
            (wanted,) = of.run(x.numpy()).values()
            real = (answer.astype(np.float64) - tensor.zero_point) * tensor.scale
            errors += float(((real - wanted) ** 2).sum())
            values += float((wanted**2).sum())
    assert found.noise_db[name] == pytest.approx(10 * np.log10(errors / values), abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES[::2], ids=str)
@settings(max_examples=40, deadline=None)
@given(moving())
def test_networks_that_move_elements(scheme, graph):
    """Of tensors of any rank, their axes in ONNX's order."""
    of = network(graph.model())
    assume(any(value.tensor != INPUT for value in of.outputs.values()))
    try:
        found = quantize(of, data(of), scheme)
    except QuantizationError as error:
        assume("out of TFLite's range" not in str(error))  # a constant that takes nearly all of a value away
        raise
    exact(found)


def deployed(of: ImportedNetwork, x: np.ndarray) -> np.ndarray:
    """An input of the imported file as that of the quantized one."""
    return to_file_order(of.input.to_torch(x)).reshape(-1, *of.input.deployed_shape).numpy()


def test_networks_of_onnxs_node_tests():
    """Every one is exact on all kernels, or is refused in one line."""
    refused, exactly = Counter(), 0
    for name, case in test_onnx_nodes.cases().items():
        if test_onnx_nodes.reason(name) or name in test_onnx_nodes.BATCHED:
            continue
        ((inputs, _),) = case.data_sets
        of, x = test_onnx_nodes.network_of(case.model, inputs)
        try:
            found = quantize(of, [deployed(of, x)])
        except (HilError, NasError) as error:
            assert "\n" not in str(error), name
            refused[str(error)] += 1
            continue
        exact(found)
        exactly += 1
    assert exactly >= 200, (exactly, refused)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("kws_ref_model_float32.tflite", ()),
        ("face_detection_short_range.tflite", ()),
        ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (InputShape("x", (1, 3, 48, 192)),)),
    ],
)
def test_networks_in_use(name, shapes):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    of = import_network(path, shapes)
    exact(quantize(of, data(of, 2)))


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "no calibration data"),
        ([np.zeros((1, 3, 16, 16), np.float32)], "data of shape 3x16x16: the network reads 16x16x3"),
        ([np.zeros((0, 16, 16, 3), np.float32)], "no calibration data"),
        ([np.full((1, 16, 16, 3), np.nan, np.float32)], "NaN or infinity"),
    ],
)
def test_data_that_does_not_fit(batches, words):
    with pytest.raises(UsageError, match=words):
        quantize(network(classifier().model()), batches)


def test_an_output_that_nothing_computes():
    with pytest.raises(ModelError, match="output 't0' is the network's input: leave it out"):
        g = Graph((1, 3, 4, 4))
        g.node("Identity", "x")
        of = network(g.model())
        quantize(of, data(of))


def test_what_cannot_be_quantized_is_named():
    g = Graph((1, 3, 6, 6))
    g.node("Conv", "x", g.constant(np.zeros((3, 3, 1, 1), np.float32)), kernel_shape=[1, 1])
    with pytest.raises(QuantizationError, match="'t0' is zero on all calibration images"):
        of = network(g.model())
        quantize(of, data(of))


def test_a_tensor_without_errors():
    """A maximum of integers is the input's."""
    g = Graph((1, 3, 6, 6))
    g.node("MaxPool", "x", kernel_shape=[6, 6], shape=(1, 3, 1, 1))
    of = network(g.model())
    x = np.zeros((1, 6, 6, 3), np.float32)
    x[0, 0, 0] = 255.0
    assert quantize(of, [x]).noise_db[g.y] == EXACT_DB
