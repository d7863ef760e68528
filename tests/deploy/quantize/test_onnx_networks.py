"""Users' networks as QDQ ONNX: the golden pair of the .tflite file, and as little noise as it has.

Measured on drawn scenes (onnxruntime 1.31.1; kws on noise) as channel int8 and as tensor uint8: at outputs of more than
200 numbers over all images, onnxruntime's noise is at most 0.10 dB above LiteRT's, and 0.31 dB below at one. Fewer
numbers change with every sum that falls to the other integer: by -0.88 and 0.57 dB PP-OCR's two scores, by 0.31, 1.01,
-0.04 and 0.19 dB the two scores of a hand. PP-OCR's detector outputs zeros for these images in both, and is left out.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

onnx = pytest.importorskip("onnx")

from deploy.compile.artifact import stored_input  # noqa: E402
from deploy.formats.importers.files import import_network  # noqa: E402
from deploy.formats.onnx import to_onnx  # noqa: E402
from deploy.formats.tflite.here import RunHere  # noqa: E402
from deploy.formats.tflite.writer import write  # noqa: E402
from deploy.quantize import Quantized, quantize  # noqa: E402
from deploy.quantize.calibration_data import calibration_data  # noqa: E402
from deploy.quantize.image_preprocessing import ImageOptions, preprocessing_of  # noqa: E402
from deploy.quantize.noise import Sums  # noqa: E402
from deploy.quantize.output_noise import FloatAnswers, float_answers  # noqa: E402
from hil.errors import HilError  # noqa: E402
from hil.input_shape import InputShape  # noqa: E402
from nas.errors import NasError, QuantizationError  # noqa: E402
from nas.quant import simulate  # noqa: E402
from nas.quant.file_order import to_file_order  # noqa: E402
from nas.quant.float_graph import INPUT  # noqa: E402
from nas.quant.integer_operators import QConstant  # noqa: E402
from tests.deploy.formats.importers import test_onnx_nodes  # noqa: E402
from tests.deploy.formats.importers.test_importing_onnx import moving, network  # noqa: E402
from tests.deploy.formats.test_onnx_operators import difference, is_exact  # noqa: E402
from tests.deploy.onnx_sessions import OnnxHere, alone, opinions  # noqa: E402
from tests.deploy.quantize.test_quantized_networks import SCHEMES, SHARED, classifier, data, deployed  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
APART_DB, FEW_APART_DB = 0.3, 3.0
MANY = 200  # numbers of an output, over all images


def each_operator(found: Quantized) -> None:
    graph = found.graph
    env = {graph.input: simulate.quantize(found.example, graph.tensors[INPUT])}
    simulate.simulate(graph.operators, graph.tensors, env)
    for op in graph.operators:
        if not isinstance(op, QConstant):
            (answer,) = opinions(*alone(graph, op, env))
            assert difference(answer, env[op.name]) <= (0 if is_exact(op) else 1), op
    given = to_file_order(env[INPUT]).numpy().astype(np.int8).reshape(graph.tensors[INPUT].file_shape)
    assert len(opinions(graph, given)) == len(graph.outputs)


@pytest.mark.parametrize("ends", ["quantized", "float"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_golden_pair_is_of_both_files(tmp_path, scheme, ends):
    g = classifier()
    of = network(g.model("t5", g.y))
    found = quantize(of, data(of), scheme, ends=ends)
    artifact = found.save(tmp_path, "m", "noise", onnx=True)
    content = artifact.model.with_suffix(".onnx").read_bytes()
    model = onnx.load_from_string(content)
    assert [end.name for end in (*model.graph.input, *model.graph.output)] == ["x", "t5", g.y]
    assert {entry.key for entry in model.metadata_props} == {"hilnas"}
    kind = np.float32 if ends == "float" else np.dtype(scheme.activations)
    answer, wanted = (
        np.frombuffer(part, kind).astype(float)
        for part in (OnnxHere(content).outputs(artifact.input.read_bytes()), artifact.expected.read_bytes())
    )
    steps = np.abs(answer - wanted)
    if ends == "float":
        scales = [found.graph.tensors[name].scale for name in found.graph.outputs]
        steps /= np.repeat(scales, [8 * 8 * 8, 5])
    assert steps.max() <= 3 and np.mean(steps > 0.5) <= 0.05


def test_nothing_is_written_where_onnx_has_not_an_operator(tmp_path, monkeypatch):
    of = network(classifier().model())
    found = quantize(of, data(of))
    monkeypatch.setattr("deploy.formats.onnx.writer.EMITTERS", {})
    with pytest.raises(QuantizationError, match=r"not as ONNX: .*; '"):
        found.save(tmp_path / "out", "m", "noise", onnx=True)
    assert not (tmp_path / "out").exists()


@settings(max_examples=25, deadline=None)
@given(moving())
def test_each_operator_of_networks_that_move_elements(graph):
    """Of tensors of any rank, their axes in ONNX's order."""
    of = network(graph.model())
    assume(any(value.tensor != INPUT for value in of.outputs.values()))
    try:
        found = quantize(of, data(of))
    except QuantizationError as error:
        assume("out of TFLite's range" not in str(error))  # a constant that takes nearly all of a value away
        raise
    each_operator(found)


def test_each_operator_of_onnxs_node_tests():
    """All that are quantized can be written."""
    written = 0
    for name, case in test_onnx_nodes.cases().items():
        if test_onnx_nodes.reason(name) or name in test_onnx_nodes.BATCHED:
            continue
        ((inputs, _),) = case.data_sets
        of, x = test_onnx_nodes.network_of(case.model, inputs)
        try:
            found = quantize(of, [deployed(of, x)])
        except (HilError, NasError):
            continue
        each_operator(found)
        written += 1
    assert written >= 200


def noise_db(found: Quantized, runtime: RunHere | OnnxHere, answers: FloatAnswers) -> dict[str, float]:
    """Of each output of a file, by its tensor's name."""
    sums, tensors = Sums(), [found.graph.tensors[name] for name in found.graph.outputs]
    ends, form = np.cumsum([np.prod(tensor.file_shape) for tensor in tensors]), found.option.form
    shift = 128 if form.activations == "uint8" else 0
    for (_, integers), wanted in zip(found.inputs(answers.examples), answers.outputs, strict=True):
        values = np.frombuffer(runtime.outputs(stored_input(found.graph, integers, form)), form.activations)
        for tensor, answer in zip(tensors, np.split(values.astype(np.float64), ends[:-1]), strict=True):
            real = torch.from_numpy(wanted[tensor.name].reshape(-1))
            sums.add(tensor.name, real, torch.from_numpy((answer - shift - tensor.zero_point) * tensor.scale) - real)
    return sums.decibels()


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("kws_ref_model_float32.tflite", 64),
        ("vww_96_float.tflite", 64),
        ("pretrainedResnet.tflite", 64),
        ("face_detection_short_range.tflite", 64),
        ("palm_detection_lite.tflite", 24),
        ("hand_landmark_lite.tflite", 24),
        ("ch_ppocr_mobile_v2.0_cls_infer.onnx", 64),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES[::2], ids=str)
def test_noise_of_networks_in_use_is_the_tflite_files(scheme, name, images):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    of = import_network(path, (InputShape("x", (1, 3, 48, 192)),) if name.startswith("ch_ppocr") else ())
    pixels = preprocessing_of(ImageOptions(mean=(127.5,), std=(127.5,)), None)
    shows = of.input.deployed_shape[-1] == 3
    examples = calibration_data("scenes" if shows else "random", of, pixels if shows else None, images)
    found = quantize(of, examples.batches(), scheme)
    answers, form = float_answers(of, examples.batches()), found.option.form
    in_litert = noise_db(found, RunHere(write(found.graph, form=form)), answers)
    in_onnxruntime = noise_db(found, OnnxHere(to_onnx(found.graph, form=form)), answers)
    for output, noise in in_onnxruntime.items():
        numbers = images * answers.outputs[0][output].size
        assert noise - in_litert[output] <= (APART_DB if numbers >= MANY else FEW_APART_DB), (output, in_litert[output])
