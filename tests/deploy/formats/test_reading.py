"""Reading .tflite files that may come from anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.formats.tflite.read import convolutions, dequantized, read
from deploy.formats.tflite.writer import write
from hil.errors import HilError, ModelError, UsageError
from nas.quant.float_graph import INPUT, Add, Conv
from nas.quant.integer_graph import QConv
from nas.quant.lower import lower
from nas.quant.ranges import calibrate


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    nodes = [
        Conv("a", INPUT, torch.randn(6, 4, 3, 3), torch.randn(6), 2),
        Conv("b", "a", torch.randn(6, 1, 5, 5), torch.randn(6), activation="relu6"),
        Add("c", "a", "b"),
    ]
    return lower(nodes, calibrate(nodes, [torch.randn(2, 4, 9, 9)]), (9, 9, 4))


def test_what_was_written_is_read_back(graph, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(write(graph, {"subnet": "x"}))
    model = read(path)
    assert [op.name for op in model.operators] == ["CONV_2D", "DEPTHWISE_CONV_2D", "ADD"]
    assert model.tensors[model.inputs[0]].shape == (1, 9, 9, 4)
    for op, (weight, bias) in zip(
        [o for o in graph.operators if isinstance(o, QConv)], convolutions(model), strict=True
    ):
        layout = (3, 0, 1, 2) if op.depthwise else (0, 3, 1, 2)
        expected = op.weight.transpose(layout).astype(np.float32) * op.weight_scale[:, None, None, None]
        np.testing.assert_array_equal(weight, expected)
        assert bias.shape == op.bias.shape
    buffers = [t for t in model.tensors if t.data]
    assert len(buffers) == 4
    assert dequantized(buffers[1]).dtype == np.float32


def test_writing_is_a_pure_function(graph):
    assert write(graph, {"a": 1}) == write(graph, {"a": 1}) != write(graph, {"a": 2})


def test_constants_lie_at_multiples_of_16(graph):
    content = write(graph)
    for op in graph.operators:
        if isinstance(op, QConv):
            assert content.index(op.weight.tobytes()) % 16 == 0


def test_a_missing_and_a_foreign_file(tmp_path):
    with pytest.raises(UsageError, match="give the path"):
        read(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("no model at all")
    with pytest.raises(ModelError, match="not a TFLite file"):
        read(tmp_path / "text.tflite")


def test_every_truncation_is_refused_or_whole(graph, tmp_path):
    content, path = write(graph), tmp_path / "m.tflite"
    for length in range(0, len(content) - 64, 97):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_never_crash(graph, tmp_path, data):
    content = bytearray(write(graph))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    try:
        convolutions(read(path))
    except HilError as error:
        assert "\n" not in str(error)
