"""Users' networks as QDQ ONNX: the golden pair of the .tflite file, and as little noise as it has.

Measured over eight inputs of noise (onnxruntime 1.31.1): MEASURED
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings

onnx = pytest.importorskip("onnx")

from deploy.formats.importers.files import import_network  # noqa: E402
from deploy.formats.onnx import to_onnx  # noqa: E402
from deploy.formats.tflite.writer import write  # noqa: E402
from deploy.quantize import output_noise, quantize  # noqa: E402
from deploy.quantize.output_noise import float_answers, output_noise_db  # noqa: E402
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
APART_DB = 0.3


def each_operator(found) -> None:
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


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("kws_ref_model_float32.tflite", None),
        ("vww_96_float.tflite", None),
        ("pretrainedResnet.tflite", None),
        ("face_detection_short_range.tflite", None),
        ("palm_detection_lite.tflite", None),
        ("hand_landmark_lite.tflite", None),
        ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192)),
        ("ch_PP-OCRv4_det_infer.onnx", (1, 3, 160, 160)),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES[::2], ids=str)
def test_noise_of_networks_in_use_is_the_tflite_files(monkeypatch, scheme, name, shape):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    of = import_network(path, () if shape is None else (InputShape("x", shape),))
    found = quantize(of, data(of, 4), scheme)
    form, answers = found.option.form, float_answers(of, data(of, 8, seed=5))
    in_litert = output_noise_db(found, write(found.graph, form=form), answers)
    monkeypatch.setattr(output_noise, "RunHere", OnnxHere)
    in_onnxruntime = output_noise_db(found, to_onnx(found.graph, form=form), answers)
    assert in_onnxruntime == pytest.approx(in_litert, abs=APART_DB)
