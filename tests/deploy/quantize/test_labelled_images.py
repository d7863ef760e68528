"""What a network gets right: as somebody counts who has the float network, the file and the labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")

from onnx import helper  # noqa: E402

from deploy.formats.importers.files import import_network  # noqa: E402
from deploy.formats.tflite.normalization import Normalization  # noqa: E402
from deploy.quantize import quantize  # noqa: E402
from deploy.quantize.image_preprocessing import ImagePreprocessing  # noqa: E402
from deploy.quantize.labelled import labelled_images  # noqa: E402
from nas.data import open_data  # noqa: E402
from nas.quant import simulate  # noqa: E402
from nas.quant.float_graph import INPUT  # noqa: E402
from tests.deploy.onnx_files import NODES, network, weights  # noqa: E402

IMAGES = ImagePreprocessing(Normalization((120.0,), (60.0,)), colours="bgr")


def reads(image: np.ndarray) -> np.ndarray:
    return (image[:, :, ::-1].astype(np.float32) - np.float32(120)) / np.float32(60)


def calibrated(of, data):
    return quantize(of, [np.stack([reads(sample.image) for sample in data])])


def integers_of(found, image: np.ndarray) -> torch.Tensor:
    ((_, q),) = found.inputs([reads(image)])
    return simulate.run(found.graph, q)


def test_of_an_image(tmp_path):
    of = import_network(network(tmp_path / "net.onnx", shape=(1, 3, 24, 24), v=3 * weights(10, 8)), (), ())
    data = open_data("shapes", "val", (24, 24), seed=0, count=40)
    found = calibrated(of, data)
    labelled = labelled_images("shapes", of, IMAGES, 40)
    file = found.save(tmp_path, "m", "x").model.read_bytes()
    reals = [of.run(reads(s.image).transpose(2, 0, 1)[None])["y"].argmax() == s.label for s in data]
    integers = [int(integers_of(found, s.image).argmax()) == s.label for s in data]
    assert labelled.float_counts().hits[:, 0].tolist() == reals and 0 < sum(reals) < 40
    assert labelled.counts(found, file).hits[:, 0].tolist() == integers
    assert labelled.metric == "top-1" and labelled.text == "shapes, 40 images of val"


@pytest.mark.parametrize("classes", [False, True], ids=["scores", "classes"])
def test_of_every_pixel(tmp_path, classes):
    head = helper.make_node("Conv", ["r", "u"], ["y"], "head")
    nodes = [*NODES[:2], head] + ([helper.make_node("ArgMax", ["y"], ["a"], axis=1, keepdims=0)] if classes else [])
    outputs = ("a",) if classes else ("y",)
    of = import_network(
        network(tmp_path / "net.onnx", nodes, outputs, shape=(1, 3, 32, 48), u=weights(11, 8, 1, 1)), (), ()
    )
    data = open_data("scenes", "val", (32, 48), seed=0, count=4)
    found, labelled = calibrated(of, data), labelled_images("scenes", of, IMAGES, 4)
    file = found.save(tmp_path, "m", "x").model.read_bytes()
    for counted, answer in (
        (labelled.float_counts(), lambda image: of.run(reads(image).transpose(2, 0, 1)[None])[outputs[0]]),
        (labelled.counts(found, file), lambda image: integers_of(found, image).numpy()),
    ):
        for i, sample in enumerate(data):
            scores = torch.from_numpy(np.asarray(answer(sample.image), np.float32)).reshape(1, -1, 16, 24)
            if classes:
                predicted = scores[0, 0].repeat_interleave(2, 0).repeat_interleave(2, 1).numpy()
            else:
                enlarged = torch.nn.functional.interpolate(scores, (32, 48), mode="bilinear", align_corners=False)
                predicted = enlarged.argmax(1)[0].numpy()
            kept = sample.label != 255
            right = [int(((predicted == c) & (sample.label == c) & kept).sum()) for c in range(11)]
            assert counted.hits[i].tolist() == right
    assert INPUT in found.graph.tensors
