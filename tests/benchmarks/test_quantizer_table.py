"""The comparison with other quantizers on networks of a few layers: what it measures, and what it makes of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploy.formats.importers.files import import_network
from deploy.formats.tflite.read import parse
from nas.quant.scheme import Scheme
from tests.benchmarks import quantizer_table
from tests.benchmarks.quantizer_networks import Tried, examples
from tests.benchmarks.quantizer_table import Row, noise_db, verdict

tf = pytest.importorskip("tensorflow", reason="needs the extra: pip install 'hilnas[tensorflow]'")

from tests.benchmarks import other_quantizers as others  # noqa: E402


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> Path:
    """A network with float16 weights."""
    tf.keras.utils.set_random_seed(0)
    layers = [
        tf.keras.layers.Conv2D(8, 3, activation="relu"),
        tf.keras.layers.Conv2D(4, 3),
        tf.keras.layers.GlobalAveragePooling2D(),
        tf.keras.layers.Dense(3),
    ]
    model = tf.keras.Sequential([tf.keras.layers.Input((12, 10, 3)), *layers])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]
    path = tmp_path_factory.mktemp("half") / "half.tflite"
    with others.quiet():
        path.write_bytes(converter.convert())
    return path


def data(count: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((count, 12, 10, 3), np.float32))


def test_noise_is_that_of_each_output_over_all_examples():
    wanted = [[np.float32([3, 4]), np.float32([1])], [np.float32([0, 0]), np.float32([2])]]
    found = [[np.float32([3, 5]), np.float32([1])], [np.float32([0, 2]), np.float32([1.5])]]
    assert noise_db(wanted, found) == pytest.approx([10 * np.log10(5 / 25), 10 * np.log10(0.25 / 5)])


def test_weights_of_16_bits_are_expanded_and_networks_cut(half):
    expanded = others.float_tflite(half, ())
    assert {"DEQUANTIZE"} == {op.name for op in parse(half.read_bytes(), "").operators} - {
        op.name for op in parse(expanded, "").operators
    }
    inner = next(op for op in parse(half.read_bytes(), "").operators if op.name == "CONV_2D")
    name = parse(half.read_bytes(), "").tensors[inner.outputs[0]].name
    cut = others.in_litert(others.float_tflite(half, (name,)))
    before, after = others.in_litert(half.read_bytes()), others.in_litert(expanded)
    for x in data(3, 0):
        np.testing.assert_allclose(before.run(x)[0], after.run(x)[0], rtol=1e-5, atol=1e-6)
        assert cut.run(x)[0].shape == (1, 10, 8, 8)


def test_both_quantizers_resemble_the_float_network(half):
    calibration, measured = data(16, 1), data(16, 2)
    content = others.float_tflite(half, ())
    theirs = others.in_litert(others.by_tensorflow(content, calibration))
    assert not theirs.left and others.in_litert(content).left["CONV_2D"] == 2
    wanted = [others.in_litert(content).run(x) for x in measured]
    ours = quantizer_table.by_us(import_network(half), calibration, Scheme())
    for run in (ours, theirs.run):
        (noise,) = noise_db(wanted, [run(x) for x in measured])
        assert -45 < noise < -20


def test_what_is_calibrated_on_is_not_measured_on(tmp_path, half):
    from PIL import Image

    for seed, part in enumerate(("train", "val")):
        (tmp_path / part).mkdir()
        for i in range(3):
            pixels = np.random.default_rng([seed, i]).integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{i}.png")
    for tried in (Tried("a", (0.0,), (255.0,)), Tried("a", (0.0,), (255.0,), reads_text=True), Tried("a", None)):
        calibration, measured = examples(tried, import_network(half), tmp_path, 2)
        assert len(calibration) == len(measured) == 2
        assert not any(np.array_equal(a, b) for a in calibration for b in measured)


def test_one_output_that_is_noisier_breaks_the_verdict(capsys):
    def row(ours: float) -> Row:
        return Row("n", "o", ours, 0.0, None, "TensorFlow", -20.0, None, "")

    assert verdict([row(-21), row(-22), row(-19.6)])
    assert not verdict([row(-21), row(-22), row(-19.4)])
    assert not verdict([row(-19.9), row(-19.8), row(-25)])
    assert "median +0.1, best -5.0, worst +0.2" in capsys.readouterr().out


def test_a_folder_without_networks_is_one_line(tmp_path, capsys):
    assert quantizer_table.main([str(tmp_path), "--frames", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"quantizer_table: {tmp_path}: none of the networks is here\n"
