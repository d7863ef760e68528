"""The noise of a file's outputs here is that of its integers, as long as both see the same images."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from deploy.formats.tflite.writer import write  # noqa: E402
from deploy.quantize import quantize  # noqa: E402
from deploy.quantize.output_noise import MOST_IMAGES, float_answers, output_noise_db  # noqa: E402
from deploy.quantize.quantized import NOISE_IMAGES  # noqa: E402
from tests.deploy.formats.importers.test_importing_onnx import network  # noqa: E402
from tests.deploy.quantize.test_quantized_networks import SCHEMES, classifier, data  # noqa: E402


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("ends", ["quantized", "float"])
def test_of_several_outputs(scheme, ends):
    g = classifier()
    of = network(g.model("t5", g.y))
    found = quantize(of, data(of, NOISE_IMAGES), scheme, ends=ends)
    answers = float_answers(of, data(of, NOISE_IMAGES))
    measured = output_noise_db(found, write(found.graph, form=found.option.form), answers)
    assert measured == pytest.approx(found.output_noise_db, abs=1e-3)
    assert len({found.noise_db[name] for name in found.graph.outputs}) == 2


def test_indices_have_none():
    g = classifier()
    g.node("ArgMax", g.y, axis=-1, keepdims=0)
    of = network(g.model())
    found = quantize(of, data(of))
    assert output_noise_db(found, write(found.graph), float_answers(of, data(of))) is None


def test_so_many_are_enough():
    of = network(classifier().model())
    many = [np.zeros((40, *of.input.deployed_shape), np.float32)] * 3
    assert len(float_answers(of, many).examples) == MOST_IMAGES
