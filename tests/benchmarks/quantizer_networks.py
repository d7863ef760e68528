"""The float networks that quantizers are compared on, and the data of each; what they were trained on is not here.

Images are frames of street scenes, resized and normalized as the network's own code does, with lines of letters for one
that reads text; a network that reads sounds gets seeded numbers. Calibration and measurement take different frames.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deploy.formats.importers.network import ImportedNetwork
from deploy.quantize.image_preprocessing import ImagePreprocessing
from deploy.ship.model_ends import Normalization
from hil.input_shape import InputShape
from nas.data.files import evenly_spaced
from nas.data.images import read_rgb

Picture = NDArray[np.uint8]
Images = Sequence[NDArray[np.float32]]
"""Examples (H, W, C), in the deployed order of axes."""


@dataclass(frozen=True)
class Tried:
    """A network of the folder.

    Attributes:
        file: of the float network.
        mean, std: of pixels from 0 to 255, one number for all channels or one for each; None: it reads no images.
        reads_text: lines of random letters are drawn on its images.
        published: the INT8 file of those who published the network.
        outputs: where it is cut.
        shape: of its input, where the file leaves it open.
    """

    file: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] = (1.0,)
    reads_text: bool = False
    published: str | None = None
    outputs: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def shapes(self) -> tuple[InputShape, ...]:
        return (InputShape("x", self.shape),) if self.shape else ()


FROM_0_TO_1, FROM_MINUS_1 = ((0.0,), (255.0,)), ((127.5,), (127.5,))
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NETWORKS = (
    Tried("vww_96.h5", *FROM_0_TO_1, published="vww_96_int8.tflite"),
    Tried("vww_96_float.tflite", *FROM_0_TO_1, published="vww_96_int8.tflite"),
    Tried("pretrainedResnet.h5", (0.0,), published="pretrainedResnet_quant.tflite"),
    Tried("pretrainedResnet.tflite", (0.0,), published="pretrainedResnet_quant.tflite"),
    Tried("kws_ref_model_float32.tflite", None, published="kws_ref_model.tflite"),
    Tried("face_detection_short_range.tflite", *FROM_MINUS_1),
    Tried("palm_detection_lite.tflite", *FROM_0_TO_1),
    Tried("hand_landmark_lite.tflite", *FROM_0_TO_1),
    Tried("selfie_segmentation.tflite", *FROM_0_TO_1, outputs=("add_13__xeno_compat__1",)),
    Tried("ch_ppocr_mobile_v2.0_cls_infer.onnx", *FROM_MINUS_1, reads_text=True, shape=(1, 3, 48, 192)),
    Tried("ch_PP-OCRv4_det_infer.onnx", *IMAGENET, reads_text=True, shape=(1, 3, 256, 256)),
)


def examples(tried: Tried, network: ImportedNetwork, frames: Path, count: int) -> tuple[Images, Images]:
    """To calibrate on, from the training frames, and to measure on, from the others."""
    if tried.mean is None:
        return _sounds(network.input.deployed_shape, count, 0), _sounds(network.input.deployed_shape, count, 1)
    images = ImagePreprocessing(Normalization(tried.mean, tried.std))
    shape = network.input.deployed_shape
    found = []
    for seed, part in enumerate(("train", "val")):
        files = evenly_spaced(sorted((frames / part).iterdir()), count)
        pictures = [read_rgb(file) for file in files]
        if tried.reads_text:
            pictures = [_with_text(picture, shape, [seed, i]) for i, picture in enumerate(pictures)]
        found.append([images.input(picture, shape) for picture in pictures])
    return found[0], found[1]


def _with_text(picture: Picture, shape: tuple[int, ...], seed: Sequence[int]) -> Picture:
    """`picture`, of `shape`, with lines of letters as high as a third of it, or as a tenth if it is no line itself."""
    rng = np.random.default_rng(seed)
    height, width = shape[:2]
    image = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    draw, line = ImageDraw.Draw(image), height // (3 if width > 2 * height else 10)
    font = ImageFont.load_default(line)
    for top in range(line // 2, height - line, 3 * line):
        word = "".join(rng.choice(list(string.ascii_letters + string.digits), int(rng.integers(4, 12))))
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        draw.text((int(rng.integers(0, width // 3)), top), word, colour, font)
    return np.asarray(image)


def _sounds(shape: tuple[int, ...], count: int, seed: int) -> Images:
    """Like cepstral coefficients (time, coefficient, 1): the first ones are large, and neighbours in time resemble."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((count, shape[0] + 4, *shape[1:]))
    smooth = np.stack([steps[:, i : i + shape[0]] for i in range(5)]).sum(0) / np.sqrt(5)
    size = 40 / np.arange(1, shape[1] + 1)
    return list((smooth * size[:, None]).astype(np.float32))
