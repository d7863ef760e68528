"""Networks from Keras and SavedModel, against what TensorFlow computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deploy.formats.importers.files import import_network
from hil.errors import ModelError, UsageError
from hil.input_shape import InputShape

SHARED = Path(__file__).parents[5] / "shared/data/models"


def model(tf, size=16):
    layers = tf.keras.layers
    x = source = tf.keras.Input((size, size, 3))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = skip = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Add()([layers.Activation("hard_swish")(x), skip])
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="sigmoid")(x)
    x = layers.Flatten()(layers.AveragePooling2D(4)(layers.UpSampling2D(2, interpolation="bilinear")(x)))
    made = tf.keras.Model(source, layers.Dense(5, activation="softmax")(layers.Dropout(0.5)(x)))
    for variable in made.weights:  # a fresh batch norm changes nothing
        variable.assign(np.random.default_rng(len(variable.shape)).uniform(0.1, 0.4, variable.shape))
    return made


def agree(path, expected, shape):
    network = import_network(path)
    assert network.input.shape == shape
    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    (got,) = network.run(x).values()
    np.testing.assert_allclose(got, expected(x), rtol=1e-4, atol=1e-5)
    return network


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["m.keras", "m.h5", "folder"])
def test_a_network(tmp_path, name):
    tf = pytest.importorskip("tensorflow")
    made, path = model(tf), tmp_path / name
    made.export(str(path), verbose=False) if name == "folder" else made.save(path)
    network = agree(path, lambda x: np.asarray(made(x, training=False)), (1, 16, 16, 3))
    kinds = Counter(type(node).__name__ for node in network.nodes)
    assert kinds["Conv"] == 2 and kinds["HardSwish"] == kinds["TransposedConv"] == 1 and not kinds["Mul"]


@pytest.mark.tensorflow
def test_sizes_that_a_network_leaves_open(tmp_path):
    tf = pytest.importorskip("tensorflow")
    source = tf.keras.Input((None, None, 3), name="image")
    tf.keras.Model(source, tf.keras.layers.Conv2D(4, 3)(source)).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="--input-shape image=1xNxNx3"):
        import_network(tmp_path / "m.keras")
    network = import_network(tmp_path / "m.keras", [InputShape("image", (1, 9, 7, 3))])
    assert [value.shape for value in network.outputs.values()] == [(1, 7, 5, 4)]


@pytest.mark.tensorflow
def test_what_is_no_network(tmp_path):
    (tmp_path / "m.keras").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="does not load it") as error:
        import_network(tmp_path / "m.keras")
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"networks are read from \.onnx"):
        import_network(tmp_path / "m.pt")


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["pretrainedResnet", "vww_96"])
def test_networks_in_use(name):
    """By Keras 2; the float .tflite beside each gives the same."""
    tf, path = pytest.importorskip("tensorflow"), SHARED / f"{name}.h5"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    network = import_network(path)
    beside = next(path for path in (SHARED / f"{name}.tflite", SHARED / f"{name}_float.tflite") if path.exists())
    x = np.random.default_rng(0).uniform(0, 1, network.input.shape).astype(np.float32)
    assert tf.__version__
    (got,), (wanted,) = network.run(x).values(), import_network(beside).run(x).values()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
