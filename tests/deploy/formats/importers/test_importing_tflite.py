"""Float .tflite networks, made by TensorFlow's converter here or found in use, against LiteRT."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from deploy.formats.importers.tflite import imported
from deploy.formats.tflite.read import parse
from hil.errors import HilError, ModelError, UsageError

SHARED = Path(__file__).parents[5] / "shared/data/models"


def agree(content: bytes, rtol=1e-4, images=1):
    """LiteRT's float outputs within `rtol` of the largest."""
    network = imported(content, "m.tflite")
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for seed in range(images):
        x = np.random.default_rng(seed).uniform(-1, 1, network.input.shape).astype(np.float32)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        got = network.run(x)
        for detail in interpreter.get_output_details():
            wanted = interpreter.get_tensor(detail["index"])
            assert got[detail["name"]].shape == wanted.shape
            np.testing.assert_allclose(got[detail["name"]], wanted, rtol=0, atol=rtol * np.abs(wanted).max())
    return network


def converted(function, shape, half=False) -> bytes:
    tf = pytest.importorskip("tensorflow")
    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()])
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def weights(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def cases():
    """An operator or two each, by name: (function of TensorFlow and its input, the input's shape)."""
    return {
        "convolution": (lambda tf, x: tf.nn.relu6(tf.nn.conv2d(x, weights(3, 2, 4, 6), 2, "SAME")), (1, 7, 8, 4)),
        "grouped": (lambda tf, x: tf.nn.conv2d(x, weights(3, 3, 2, 6), 1, "VALID") + weights(6), (1, 7, 8, 4)),
        "dilated": (lambda tf, x: tf.nn.conv2d(x, weights(3, 3, 4, 6), 1, "SAME", dilations=2), (1, 9, 8, 4)),
        "depthwise": (lambda tf, x: tf.nn.depthwise_conv2d(x, weights(3, 3, 4, 2), [1, 2, 2, 1], "SAME"), (1, 7, 8, 4)),
        "transposed": (
            lambda tf, x: tf.nn.conv2d_transpose(x, weights(3, 3, 6, 4), [1, 14, 15, 6], 2, "SAME"),
            (1, 7, 8, 4),
        ),
        "transposed, valid": (
            lambda tf, x: tf.nn.conv2d_transpose(x, weights(3, 2, 6, 4), [1, 15, 16, 6], 2, "VALID"),
            (1, 7, 8, 4),
        ),
        "dense": (
            lambda tf, x: tf.nn.relu(tf.matmul(tf.reshape(x, (1, -1)), weights(24, 5)) + weights(5)),
            (1, 2, 3, 4),
        ),
        "dense on rows": (lambda tf, x: tf.matmul(x, weights(4, 5)), (1, 3, 4)),
        "pools": (
            lambda tf, x: tf.nn.avg_pool2d(tf.nn.max_pool2d(x, [3, 2], 2, "SAME"), 3, 1, "SAME"),
            (1, 9, 8, 4),
        ),
        "squeeze and excite": (lambda tf, x: x * tf.sigmoid(tf.reduce_mean(x, [1, 2], keepdims=True)), (1, 7, 8, 4)),
        "mean": (lambda tf, x: tf.reduce_mean(x, [1, 2]), (1, 7, 8, 4)),
        "arithmetic": (lambda tf, x: (weights(4) - x) * weights(8, 1) / weights(1, 4), (1, 7, 8, 4)),
        "slices": (lambda tf, x: tf.concat([x[:, 1:6:2, :, 1:], x[:, ::2, ::-1, :-1][:, :3]], 3), (1, 7, 8, 4)),
        "split": (lambda tf, x: tf.concat(tf.split(x, 2, 3)[::-1], 1), (1, 7, 8, 4)),
        "one of an axis": (lambda tf, x: x[:, 2] + x[:, -1], (1, 7, 8, 4)),
        "padding": (lambda tf, x: tf.pad(x, ((0, 0), (1, 2), (0, 3), (0, 4))), (1, 7, 8, 4)),
        "padded convolution": (
            lambda tf, x: tf.nn.conv2d(tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), weights(3, 3, 4, 6), 2, "VALID"),
            (1, 8, 8, 4),
        ),
        "bilinear": (lambda tf, x: tf.image.resize(x, (15, 3)), (1, 7, 8, 4)),
        "nearest": (lambda tf, x: tf.image.resize(x, (15, 3), "nearest"), (1, 7, 8, 4)),
        "corners": (
            lambda tf, x: tf.raw_ops.ResizeBilinear(images=x, size=(13, 5), align_corners=True),
            (1, 7, 8, 4),
        ),
        "asymmetric": (lambda tf, x: tf.raw_ops.ResizeBilinear(images=x, size=(14, 5)), (1, 7, 8, 4)),
        "nearest corners": (
            lambda tf, x: tf.raw_ops.ResizeNearestNeighbor(images=x, size=(13, 5), align_corners=True),
            (1, 7, 8, 4),
        ),
        "activations": (
            lambda tf, x: tf.concat([tf.nn.leaky_relu(x, 0.3), tf.tanh(x), x * tf.nn.relu6(x + 3) / 6], 3),
            (1, 7, 8, 4),
        ),
        "limits": (lambda tf, x: tf.minimum(tf.maximum(x, -0.3), 0.7), (1, 7, 8, 4)),
        "softmax": (lambda tf, x: tf.nn.softmax(x), (1, 7, 8, 4)),
        "turned": (lambda tf, x: tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (1, 4, 56)), (1, 7, 8, 4)),
        "blocks": (
            lambda tf, x: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2) * weights(16), 2),
            (1, 6, 8, 4),
        ),
        "largest": (lambda tf, x: tf.argmax(x, 3, tf.int32), (1, 7, 8, 4)),
    }


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", cases())
def test_an_operator(name):
    tf = pytest.importorskip("tensorflow")
    function, shape = cases()[name]
    agree(converted(lambda x: function(tf, x), shape), images=3)


@pytest.mark.tensorflow
def test_half_precision_weights():
    tf = pytest.importorskip("tensorflow")
    content = converted(lambda x: tf.nn.conv2d(x, weights(3, 3, 16, 32), 1, "SAME"), (1, 7, 8, 16), half=True)
    assert "FLOAT16" in {tensor.dtype for tensor in parse(content, "m.tflite").tensors}
    assert Counter(type(node).__name__ for node in agree(content).nodes) == {"Conv": 1}


@pytest.mark.parametrize(
    "name",
    ["face_detection_short_range", "hand_landmark_lite", "palm_detection_lite", "pretrainedResnet", "vww_96_float"],
)
def test_networks_in_use(name):
    path = SHARED / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    agree(path.read_bytes())


def test_a_network_with_a_custom_operator_is_cut_before_it():
    path = SHARED / "selfie_segmentation.tflite"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with pytest.raises(ModelError, match=r"'segment' \(Convolution2DTransposeBias\): a custom operator.*--outputs"):
        imported(path.read_bytes(), "m.tflite")


@pytest.mark.tensorflow
def test_what_cannot_be_imported_is_named_at_once():
    tf = pytest.importorskip("tensorflow")
    content = converted(lambda x: tf.exp(tf.nn.relu(tf.cos(x))), (1, 7, 8, 4))
    with pytest.raises(ModelError) as error:
        imported(content, "m.tflite")
    assert "2 nodes" in str(error.value) and "(COS)" in str(error.value) and "(EXP)" in str(error.value)
    with pytest.raises(UsageError, match="no operator computes"):
        imported(content, "m.tflite", ["nothing"])
    integers = tf.lite.TFLiteConverter.from_concrete_functions(
        [tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec((1, 3), tf.int32)]).get_concrete_function()]
    ).convert()
    with pytest.raises(ModelError, match="holds INT32"):
        imported(integers, "m.tflite")


@pytest.mark.tensorflow
def test_damaged_files_are_refused_in_one_line():
    tf = pytest.importorskip("tensorflow")
    content = converted(lambda x: tf.reduce_mean(tf.nn.conv2d(x, weights(3, 3, 4, 6), 2, "SAME"), [1, 2]), (1, 7, 8, 4))
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            damaged[place] = rng.integers(0, 256)
        try:
            imported(bytes(damaged), "m.tflite")
        except HilError as error:
            assert "\n" not in str(error) and str(error).startswith("m.tflite")


@pytest.mark.tensorflow
def test_a_network_begins_at_any_tensor():
    tf = pytest.importorskip("tensorflow")
    content = converted(
        lambda x: tf.nn.relu(tf.nn.conv2d(tf.math.rsqrt(x), weights(3, 3, 4, 6), 1, "SAME")), (1, 7, 8, 4)
    )
    model = parse(content, "m")
    (convolution,) = (op for op in model.operators if op.name == "CONV_2D")
    start = model.tensors[convolution.inputs[0]].name
    with pytest.raises(ModelError, match="or behind them with --input NAME"):
        imported(content, "m")
    network = imported(content, "m", start=start)
    assert network.input_name == start and network.input.shape == (1, 7, 8, 4)
    x = np.random.default_rng(0).uniform(1, 2, (1, 7, 8, 4)).astype(np.float32)
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    middle = interpreter.get_tensor(convolution.inputs[0])
    (got,), wanted = network.run(middle).values(), interpreter.get_tensor(model.outputs[0])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match="--input nothing: no operator reads a tensor of that name"):
        imported(content, "m", start="nothing")
