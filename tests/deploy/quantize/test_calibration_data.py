"""What networks are calibrated on: how images and arrays become their inputs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.formats.importers.network import ImportedNetwork, Value
from deploy.formats.tflite.normalization import Normalization
from deploy.quantize.calibration_data import BATCH, calibration_data
from deploy.quantize.image_preprocessing import ImageOptions, ImagePreprocessing, preprocessing_of
from hil.errors import UsageError
from nas.data import open_data
from nas.errors import ConfigError, DataError
from nas.quant.float_graph import INPUT

UNIT = ImagePreprocessing(Normalization((127.5,), (127.5,)))
COLOURS = ImagePreprocessing(Normalization((103.0, 116.0, 123.0), (57.0, 58.0, 59.0)))


def network(shape=(1, 3, 4, 6), axes=(2, 3, 1)) -> ImportedNetwork:
    """Of an ONNX file, whose channels come first; it computes nothing."""
    return ImportedNetwork((), Value(INPUT, shape, axes), {}, "x")


def one(spec, images=UNIT, of=None, count=8) -> np.ndarray:
    data = calibration_data(str(spec), of or network(), images, count)
    (batch,) = data.batches()
    assert data.count == len(batch)
    return batch


def written(folder: Path, *images: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def pixels(*shape: int, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def arrays(folder: Path, **named: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **named)
    return path


# Images


def test_an_image_of_the_network_size_becomes_its_input_exactly(tmp_path):
    image = pixels(4, 6, 3)
    np.testing.assert_array_equal(
        one(written(tmp_path / "images", image), COLOURS)[0],
        (image.astype(np.float32) - np.float32([103, 116, 123])) / np.float32([57, 58, 59]),
    )


def test_the_order_of_colours_is_the_networks_and_mean_and_std_follow_it(tmp_path):
    image = pixels(4, 6, 3)
    bgr = ImagePreprocessing(COLOURS.formula, colours="bgr")
    wanted = COLOURS.input(np.ascontiguousarray(image[:, :, ::-1]), (4, 6, 3))
    np.testing.assert_array_equal(one(written(tmp_path / "images", image), bgr)[0], wanted)


@pytest.mark.parametrize("size", [(4, 6), (6, 8), (5, 9)])
def test_an_image_is_resized_and_its_middle_taken(size):
    image = pixels(10, 14, 3)
    resized = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR), np.float32)
    top, left = (size[0] - 4) // 2, (size[1] - 6) // 2
    wanted = (resized[top : top + 4, left : left + 6] - 127.5) / 127.5
    np.testing.assert_array_equal(ImagePreprocessing(UNIT.formula, size).input(image, (4, 6, 3)), wanted)


def test_a_grey_network_reads_brightness(tmp_path):
    grey = pixels(4, 6)
    folder = written(tmp_path / "images", np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(
        one(folder, of=network((1, 1, 4, 6)))[0], (grey[:, :, None].astype(np.float32) - 127.5) / 127.5
    )


def test_images_are_evenly_spaced_over_the_folder_and_counted(tmp_path):
    folder = written(tmp_path / "images", *(np.full((4, 6, 3), i, np.uint8) for i in range(40)))
    (folder / "readme.txt").write_text("no image")
    data = calibration_data(str(folder), network(), ImagePreprocessing(Normalization((0,), (1,))), 20)
    batches = list(data.batches())
    assert [len(batch) for batch in batches] == [BATCH, 4] and data.count == 20 and "20 examples" in data.text
    levels = sorted(float(x[0, 0, 0]) for batch in batches for x in batch)
    assert len(set(levels)) == 20 and levels[-1] - levels[0] > 35


def test_a_data_set_gives_its_training_images(tmp_path):
    found = calibration_data("scenes", network((1, 3, 32, 40)), UNIT, 3, seed=5)
    data = open_data("scenes", "train", (32, 40), seed=5, count=3)
    (batch,) = found.batches()
    np.testing.assert_array_equal(batch, np.stack([UNIT.input(data[i].image, (32, 40, 3)) for i in range(3)]))


@pytest.mark.parametrize(
    ("images", "of", "words"),
    [
        (None, network(), "nothing says how pixels become the network's input"),
        (UNIT, network((1, 4, 4, 6)), "1 or 3 channels, the network's input 4x6x4"),
        (UNIT, network((1, 10), (1,)), "1 or 3 channels, the network's input 10"),
        (COLOURS, network((1, 1, 4, 6)), "--mean 103,116,123: give one number, or 1"),
        (ImagePreprocessing(Normalization((0.485,), (0.229,))), network(), "multiply --mean and --std by 255"),
        (ImagePreprocessing(UNIT.formula, colours="bgr"), network((1, 1, 4, 6)), "one channel, grey"),
        (ImagePreprocessing(UNIT.formula, (3, 8)), network(), "--size 3x8: the network reads 4x6"),
    ],
)
def test_images_that_do_not_fit_the_network(tmp_path, images, of, words):
    folder = written(tmp_path / "images", pixels(4, 6, 3))
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        calibration_data(str(folder), of, images, 8)


def test_what_is_no_data(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 cut short")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    for spec, words in (
        ("none", "no such file or folder; give a folder"),
        (tmp_path / "a.jpg", "a file; give a folder of images"),
        (tmp_path / "empty", "no image in it"),
        (tmp_path / "texts", "no image in it; it holds 1 .txt"),
    ):
        with pytest.raises(UsageError, match=words):
            calibration_data(str(spec), network(), UNIT, 8)
    with pytest.raises(DataError, match=r"a\.jpg"):
        list(calibration_data(str(tmp_path), network(), UNIT, 8).batches())
    with pytest.raises(UsageError, match="--images 0"):
        calibration_data("scenes", network(), UNIT, 0)


def test_a_constant_input_is_refused(tmp_path):
    black = written(tmp_path / "black", *[np.zeros((4, 6, 3), np.uint8)] * 3)
    with pytest.raises(UsageError, match="every number is -1: calibrate on data as the network will see it"):
        list(calibration_data(str(black), network(), UNIT, 8).batches())


# Noise


def test_noise_is_marked_and_seeded():
    def noise(seed, images=UNIT):
        data = calibration_data("random", network(), images, 2, seed)
        assert data.noise and data.text.startswith("random noise, no data: 2 examples, seed")
        return next(data.batches())

    np.testing.assert_array_equal(noise(1), noise(1))
    assert (noise(1) != noise(2)).any() and (noise(1)[0] != noise(1)[1]).any()
    assert np.abs(noise(1)).max() <= 1 < np.abs(noise(1, None)).max()  # pixels, or normal numbers
    vectors = calibration_data("random", network((1, 10), (1,)), UNIT, 2)
    assert next(vectors.batches()).shape == (2, 10)


# Arrays


def test_arrays_are_taken_as_they_are(tmp_path):
    x = np.random.default_rng(0).standard_normal((5, 3, 4, 6), np.float32)
    path = arrays(tmp_path, x=x, labels=np.arange(5))
    np.testing.assert_array_equal(one(path, None), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(one(path, None, count=1), x[2:3].transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(one(arrays(tmp_path, x=x), None, network((1, 3, 4, 6), (1, 2, 3))), x)
    np.testing.assert_array_equal(one(arrays(tmp_path, x=x[:, :, 0, 0]), None, network((1, 3), (1,))), x[:, :, 0, 0])
    unbatched = network((3, 4, 6), (1, 2, 0))
    np.testing.assert_array_equal(one(arrays(tmp_path, x=x), None, unbatched), x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"y": (2, 3, 4, 6)}, ("holds 'y'", "the network's input is 'x'", "numpy.savez")),
        ({"x": (2, 4, 6, 3)}, ("is 2x4x6x3", "reads Nx3x4x6", "its channels come last")),
        ({"x": (3, 4, 6)}, ("is 3x4x6", "reads Nx3x4x6", "numpy.stack")),
        ({"x": (2, 3, 8, 6)}, ("is 2x3x8x6", "reads Nx3x4x6")),
        ({"x": (0, 3, 4, 6)}, ("is 0x3x4x6", "reads Nx3x4x6")),
        ({"x": ()}, ("is one number", "reads Nx3x4x6")),
    ],
)
def test_arrays_of_another_name_or_shape(tmp_path, named, words):
    path = arrays(tmp_path, **{name: np.zeros(shape, np.float32) for name, shape in named.items()})
    with pytest.raises(UsageError) as caught:
        calibration_data(str(path), network(), None, 8)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64, np.uint8, np.bool_, np.complex64])
def test_arrays_of_another_type(tmp_path, kind):
    path = arrays(tmp_path, x=np.ones((2, 3, 4, 6), kind))
    with pytest.raises(UsageError, match=f"'x' holds {np.dtype(kind)}, the network reads float32"):
        calibration_data(str(path), network(), None, 8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(tmp_path, value):
    x = np.random.default_rng(0).standard_normal((5, 3, 4, 6), np.float32)
    x[3, 1, 2, 3] = value
    with pytest.raises(UsageError, match="example 3 holds NaN or infinity"):
        list(calibration_data(str(arrays(tmp_path, x=x)), network(), None, 8).batches())


def test_files_that_hold_no_arrays(tmp_path):
    objects = arrays(tmp_path, x=np.array([{"code": 1}], object))
    with pytest.raises(UsageError, match=r"not readable as arrays.*pickle"):
        calibration_data(str(objects), network(), None, 8)
    whole = arrays(tmp_path, x=np.ones((2, 3, 4, 6), np.float32)).read_bytes()
    for name, content in (("empty", b""), ("text", b"text"), ("cut", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not readable as arrays"):
            calibration_data(str(path), network(), None, 8)
    with pytest.raises(UsageError, match="no such file"):
        calibration_data(str(tmp_path / "none.npz"), network(), None, 8)


# How images are preprocessed


def test_options_come_before_the_toml_and_that_before_the_file(tmp_path):
    toml = tmp_path / "images.toml"
    toml.write_text('mean = [103, 116, 123]\nstd = [57, 58, 59]\ncolours = "bgr"\nsize = [6, 8]\n')
    read = ImageOptions.read(toml)
    assert preprocessing_of(read, UNIT.formula) == ImagePreprocessing(COLOURS.formula, (6, 8), "bgr")
    found = preprocessing_of(ImageOptions(mean=(1.0,), std=(2.0,), colours="rgb").over(read), UNIT.formula)
    assert found == ImagePreprocessing(Normalization((1.0,), (2.0,)), (6, 8), "rgb")
    assert preprocessing_of(ImageOptions(), UNIT.formula) == UNIT
    assert preprocessing_of(ImageOptions(colours="bgr"), None) is None
    with pytest.raises(UsageError, match="--mean without --std"):
        preprocessing_of(ImageOptions(mean=(1.0,)), None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("means = [1]\n", "unknown key 'means'; did you mean 'mean'"),
        ('colours = "gbr"\n', "'colours'"),
        ("mean = 1\n", "'mean'"),
        ("size = [1, 2, 3]\n", "'size"),
        ("mean = [", "not readable as TOML"),
    ],
)
def test_a_toml_that_cannot_be_used(tmp_path, text, words):
    path = tmp_path / "images.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        ImageOptions.read(path)
