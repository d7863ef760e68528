"""Any file's input and output: read, assumed aloud, or refused with what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploy.compile.artifact import Artifact, kernels_of, save_model, stored
from deploy.compile.tails import class_map_of
from deploy.formats.tflite.normalization import Normalization, normalization
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import parse, read
from deploy.formats.tflite.writer import write
from deploy.ship.model_ends import input_of, output_of
from hil.errors import ModelError
from nas.data import open_data
from nas.data.batches import normalize
from nas.quant import simulate
from nas.quant.arithmetic import LITERT
from nas.quant.safe_resize import split_resizes
from nas.quant.tails import in_file
from nas.tasks.task import TASKS
from tests.deploy.foreign_models import Foreign, tflite_metadata
from tests.deploy.networks import small_segmenter_graph

IMAGE = open_data("scenes", "val", (32, 40), count=1)[0].image
CLASSES = ("a", "b", "c", "d")


def model(tmp_path: Path, **settings: object):
    return read(Foreign(**settings).write(tmp_path / "m.tflite"))


@pytest.mark.parametrize(
    ("settings", "given", "real", "words"),
    [
        ({"normalization": ([127.5], [127.5])}, None, (IMAGE - 127.5) / 127.5, "TFLite metadata says"),
        ({"normalization": ([0], [255])}, (([1, 2, 3]), ([4, 5, 6])), (IMAGE - [1, 2, 3]) / [4, 5, 6], "--normalize"),
        ({"normalization": ([10, 20, 30], [2, 4, 8])}, None, (IMAGE - [10, 20, 30]) / [2, 4, 8], "[10, 20, 30]"),
        ({}, ([0], [255]), IMAGE / 255, "(uint8 - 0) / 255"),
    ],
)
def test_a_float_input_is_normalized(settings, given, real, words, tmp_path) -> None:
    formula = Normalization(*map(tuple, given)) if given else None
    found = input_of(model(tmp_path, **settings), formula)
    assert found.size == (32, 40) and words in found.text
    assert np.frombuffer(found.encode(IMAGE), np.float32) == pytest.approx(real.reshape(-1), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("dtype", "less"), [("UINT8", 0), ("INT8", 128)])
def test_a_quantized_input_that_says_nothing_takes_the_pixels_levels(dtype, less, tmp_path) -> None:
    found = input_of(model(tmp_path, dtype=dtype))
    assert "assumed" in found.text and "--normalize" in found.text
    stored = np.frombuffer(found.encode(IMAGE), np.dtype(dtype.lower()))
    assert np.array_equal(stored.astype(int), IMAGE.reshape(-1).astype(int) - less)


def test_a_quantized_input_that_is_normalized_is_rounded_to_its_scale(tmp_path) -> None:
    found = input_of(model(tmp_path, dtype="UINT8", scale=0.02, zero_point=100, normalization=([128], [64])))
    wanted = np.clip(np.rint((IMAGE.astype(np.float32) - 128) / 64 / np.float32(0.02)) + 100, 0, 255)
    assert np.array_equal(np.frombuffer(found.encode(IMAGE), np.uint8), wanted.astype(np.uint8).reshape(-1))


FORMULA = {"mean": [1.0], "std": [2.0]}


@pytest.mark.parametrize(
    "images",
    [
        {"formula": {"mean": [1.0, 2.0], "std": [1.0]}},
        {"formula": {"mean": [1.0], "std": [0.0]}},
        {"formula": {"mean": [float("inf")], "std": [1.0]}},
        {"formula": FORMULA, "size": [1, 1]},
        {"formula": FORMULA, "size": 3},
        {"formula": FORMULA, "colours": "cmyk"},
        {"formula": FORMULA, "more": 1},
        [1, 2],
        "text",
    ],
)
def test_how_images_become_the_input_is_not_believed_blindly(images) -> None:
    content = write(small_segmenter_graph(), {"model": "m", "images": images})
    with pytest.raises(ModelError):
        input_of(parse(content, "m"))


def test_what_an_imported_networks_file_says() -> None:
    graph = small_segmenter_graph()
    source, (height, width) = graph.tensors[graph.input], IMAGE.shape[:2]
    images = {"formula": {"mean": [10.0, 20.0, 30.0], "std": [64.0]}, "size": [40, 50], "colours": "bgr"}
    model = parse(write(graph, {"model": "m", "images": images}), "m")
    found = input_of(model)
    assert (found.size, found.resized, found.colours) == ((height, width), (40, 50), "bgr")
    real = (IMAGE[..., ::-1].astype(np.float32) - np.array([10, 20, 30], np.float32)) / np.float32(64)
    stored = np.clip(np.rint(real / np.float32(source.scale)) + source.zero_point, -128, 127)
    assert np.array_equal(np.frombuffer(found.encode(IMAGE), np.int8), stored.astype(np.int8).reshape(-1))
    given = input_of(model, Normalization((0.0,), (255.0,)))
    assert (given.resized, given.colours) == ((40, 50), "bgr") and "--normalize" in given.text
    with pytest.raises(ModelError, match="nothing says how pixels become numbers; give --normalize"):
        input_of(parse(write(graph, {"model": "m"}), "m"))


@pytest.mark.parametrize("form", [Form(), Form(activations="uint8"), Form(ends="float")])
def test_the_kits_own_files_take_what_the_simulation_takes(form) -> None:
    graph = small_segmenter_graph()
    found = input_of(parse(write(graph, {"subnet": "teacher"}, form), "m"))
    assert "hilnas" in found.text
    image = open_data("scenes", "val", found.size, count=1)[0].image
    q = simulate.as_nhwc(simulate.quantize(normalize([image]), graph.tensors[graph.input]))
    stored = {"int8": np.int8, "uint8": np.uint8}[form.activations] if form.ends == "quantized" else np.float32
    given = np.frombuffer(found.encode(image), stored)
    if form.ends == "float":
        assert given == pytest.approx(((image.astype(np.float32) - 128) / 128).reshape(-1))
    else:
        assert np.array_equal(given.astype(int) - (128 if form.activations == "uint8" else 0), q.reshape(-1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "float32 and nothing says how pixels become numbers; give --normalize"),
        ({"dtype": "INT16"}, "int16; export it"),
        ({"size": (1, 1)}, "whose input size is open"),
    ],
)
def test_an_input_that_cannot_be_fed_is_refused(settings, words, tmp_path) -> None:
    with pytest.raises(ModelError, match=words):
        input_of(model(tmp_path, **settings))


@pytest.mark.parametrize("shape", [(1, 3, 32, 40), (2, 32, 40, 3), (1, 32, 40, 1), (32, 40, 3), ()])
def test_an_input_that_is_no_rgb_image_is_refused(shape, tmp_path) -> None:
    found = model(tmp_path)
    tensors = tuple(replace(t, shape=shape) if t.name == "image" else t for t in found.tensors)
    changed = replace(found, tensors=tensors, operators=())
    with pytest.raises(ModelError, match="channels come first" if shape[1:2] == (3,) else "export it with one image"):
        input_of(changed)
    two = replace(found, inputs=(0, 0), operators=())
    with pytest.raises(ModelError, match="2 inputs"):
        input_of(two)


@pytest.mark.parametrize("output", ["scores", "classes", "classes64", "column"])
@pytest.mark.parametrize("size", [(32, 40), (64, 80)])
def test_scores_and_class_maps_become_classes(output, size, tmp_path) -> None:
    """At the images' size, or enlarged to it."""
    found = output_of(model(tmp_path, output=output), TASKS["segmentation"], CLASSES, size)
    assert found.scores == (output == "scores") and ("enlarged" in found.text) == (size != (32, 40))
    rng = np.random.default_rng(0)
    if output == "scores":
        values = np.zeros((1, 32, 40, 4), np.float32)
        at = rng.integers(0, 4, (32, 40))
        np.put_along_axis(values[0], at[..., None], 1, axis=-1)
    else:
        at = rng.integers(0, 4, (32, 40))
        values = at.astype(np.int64 if output == "classes64" else np.int32)
    classes = found.classes(values.tobytes())
    assert classes.shape == size and classes.dtype == np.int64
    if size == (32, 40) or not found.scores:
        step = size[0] // 32
        assert np.array_equal(classes, np.repeat(np.repeat(at, step, 0), step, 1))
    with pytest.raises(ModelError, match="announces"):
        found.classes(values.tobytes()[:-1])


@pytest.mark.parametrize(
    ("settings", "task", "words"),
    [
        ({"classes": 21}, "segmentation", r"1x32x40x21, and the data set needs a map of scores of 4 classes"),
        ({}, "classification", "classes of the image"),
        ({"output": "classes"}, "classification", "classes of the image"),
    ],
)
def test_an_output_that_does_not_fit_the_data_is_refused(settings, task, words, tmp_path) -> None:
    with pytest.raises(ModelError, match=words):
        output_of(model(tmp_path, **settings), TASKS[task], CLASSES, (32, 40))


def test_of_several_outputs_the_one_that_fits_is_read_at_its_place(tmp_path) -> None:
    found = model(tmp_path, output="column")
    names = [tensor.name for tensor in found.tensors]
    both = replace(found, outputs=(names.index("scores"), names.index("column")))
    with pytest.raises(ModelError, match="2 of its outputs"):
        output_of(both, TASKS["segmentation"], CLASSES, (32, 40))
    fitting = output_of(replace(both, outputs=both.outputs), TASKS["segmentation"], CLASSES[:2], (32, 40))
    assert not fitting.scores and fitting.start == 32 * 40 * 4 * 4
    values = np.ones((32, 40), np.int32)
    assert np.array_equal(fitting.classes(b"\0" * fitting.start + values.tobytes()), values)


def test_a_quantized_mask_is_no_map_of_classes(tmp_path) -> None:
    found = model(tmp_path, output="column")
    tensors = tuple(
        replace(t, dtype="UINT8", scale=np.array([1 / 256], np.float32), zero_point=np.array([0]))
        if t.name == "column"
        else t
        for t in found.tensors
    )
    with pytest.raises(ModelError, match="needs a map"):
        output_of(replace(found, tensors=tensors), TASKS["segmentation"], CLASSES, (32, 40))


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_damaged_metadata_is_the_models_fault(at: int, value: int) -> None:
    content = bytearray(tflite_metadata([127.5], [127.5]))
    content[at % len(content)] = value
    path_free = parse(write(small_segmenter_graph(), {}), "m")
    damaged = replace(path_free, metadata={"TFLITE_METADATA": memoryview(bytes(content))})
    try:
        found = normalization(damaged)
    except ModelError as error:
        assert "TFLITE_METADATA" in str(error)
    else:
        assert found is None or (len(found.mean) in (1, 3) and 0 not in found.std)


@pytest.mark.parametrize("form", ["int8", "uint8"])
def test_logits_of_ours_become_the_class_map_of_the_integers(tmp_path, form) -> None:
    """Not as a foreign file's scores, which are enlarged in floats."""
    graph = split_resizes(small_segmenter_graph(), (2, 4))
    data, q = open_data("scenes", "val", (32, 40), count=1), torch.randint(-128, 128, (1, 3, 32, 40)).float()
    save_model(graph, torch.zeros(1, 3, 32, 40), Artifact.at(tmp_path, "m"), {}, form=Form(form), tail="logits")
    logits, _ = in_file(graph, "logits")
    found = output_of(read(tmp_path / "m.tflite"), TASKS["segmentation"], data.classes, data.size)
    assert found.sizes == tuple(graph.tensors[op.name].shape[:2] for op in graph.operators[-3:-1])
    content = stored(simulate.as_nhwc(simulate.run(logits, q, kernels_of(Form(form), LITERT))), Form(form))
    expected = simulate.run(graph, q, kernels_of(Form(form), LITERT))[0, 0].numpy()
    np.testing.assert_array_equal(found.classes(content), expected)
    assert class_map_of(tmp_path / "m.tflite") == found.sizes
