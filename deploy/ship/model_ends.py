"""How an image becomes any model's input, and what its output says: read from the file, assumed aloud, or refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deploy.compile.tails import classes_of, sizes_in
from deploy.formats.tflite.normalization import Normalization, checked, normalization
from deploy.formats.tflite.read import DTYPES, ModelInfo, read
from deploy.ship.input_images import ImagePreprocessing, Size
from deploy.targets.inspection import METADATA_NAME, GraphTensor, inspect_model
from hil.errors import ModelError
from nas.data.batches import ZERO_LEVEL
from nas.errors import ConfigError
from nas.networks.segmenter import upsampled
from nas.quant.tails import Sizes
from nas.settings import build
from nas.tasks.task import Task

IMPORTED = "model"
"""The key in the metadata of an imported network's file that has its name."""
IMAGES = "images"
"""The key in the metadata of an imported network's file that says how an image becomes its input."""
OURS = Normalization((float(ZERO_LEVEL),), (float(ZERO_LEVEL),))
LEVELS = np.arange(256)
INPUT_TYPES = ("INT8", "UINT8", "FLOAT32")
GIVE = "--normalize MEAN,STD (127.5,127.5 for -1 to 1; 0,255 for 0 to 1; 0,1 for 0 to 255)"


@dataclass(frozen=True, eq=False)
class ModelInput:
    """The input of a model for one RGB image.

    Attributes:
        size: (H, W) of an image.
        table: (256, C), what is stored for each level of each channel, in the input's type.
        text: type, size and formula, and where the formula is from.
        colours: the channels, in their order.
        resized: (H, W) that images are resized to, of which the input is the middle; None: to `size`.
    """

    size: Size
    table: NDArray[np.generic]
    text: str
    colours: Literal["rgb", "bgr", "grey"] = "rgb"
    resized: Size | None = None

    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """The input's raw bytes for an image (H, W, 3) of `size`."""
        if self.colours == "grey":
            planes = [np.asarray(Image.fromarray(image).convert("L"))]
        else:
            planes = [image[..., c] for c in ((2, 1, 0) if self.colours == "bgr" else (0, 1, 2))]
        return np.stack([self.table[:, c][plane] for c, plane in enumerate(planes)], axis=-1).tobytes()


@dataclass(frozen=True)
class ModelOutput:
    """The one output that names classes.

    Attributes:
        shape, dtype: its own.
        start, total_bytes: where it begins in the bytes of all outputs, and how many those are.
        size: (H, W) of the image, to which a map is enlarged; () of an image's class.
        scores: whether its last axis scores the classes; false: its numbers are classes.
        text: what it is taken for.
        sizes: the resizes of the scores that our own file leaves to the CPU.
    """

    shape: tuple[int, ...]
    dtype: str
    start: int
    total_bytes: int
    size: tuple[int, ...]
    scores: bool
    text: str
    sizes: Sizes | None = None

    def classes(self, data: bytes) -> NDArray[np.int64]:
        """The class of each pixel (H, W), or of the image (), from the bytes of all outputs.

        Raises `ModelError` for other bytes than the file announces.
        """
        if len(data) != self.total_bytes:
            raise ModelError(
                f"outputs of {len(data)} bytes came where the file announces {self.total_bytes}: is a size in it open? "
                "export it with fixed ones"
            )
        values = np.frombuffer(data, DTYPES[self.dtype], prod(self.shape), self.start)
        if not self.size:
            return np.asarray(values.argmax() if self.scores else values[0], np.int64)
        if self.sizes and self.scores:
            return classes_of(values.reshape(self.shape), self.sizes)
        values = values.reshape(self.shape[1:])
        if self.shape[1:3] != self.size:
            values = self._enlarged(values)
        if self.scores:
            return np.asarray(values.argmax(-1), np.int64)
        return np.asarray(values.reshape(self.size), np.int64)

    def _enlarged(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Scores bilinearly, as in training; classes to the nearest."""
        height, width = self.size
        if self.scores:
            maps = torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None]
            return np.asarray(upsampled(maps, (height, width))[0].permute(1, 2, 0).numpy())
        rows, columns = (np.arange(n) * m // n for n, m in zip(self.size, values.shape[:2], strict=True))
        return np.asarray(values[rows][:, columns])


def input_of(model: ModelInfo, given: Normalization | None = None) -> ModelInput:
    """The input of a file; `given` comes before what the file says.

    Raises `ModelError` for a file that takes no single RGB image of a fixed size, and for a float input of which
    nothing says how pixels become numbers.
    """
    ends = inspect_model(model).inputs
    if len(ends) != 1:
        raise ModelError(f"it has {len(ends)} inputs ({_listed(ends)}); export it with one, an image")
    (end,) = ends
    shape = end.shape
    images, whence = _images(model, given)
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in ((3,) if images is None else (1, 3)):
        advice = "export it with one image a batch, NHWC, RGB: 1 x height x width x 3"
        if len(shape) == 4 and shape[1] == 3:
            advice = f"its channels come first; {advice}"
        raise ModelError(f"its input is {_shape(end)}; {advice}")
    if min(shape[1:3]) < 2:
        raise ModelError(f"its input is {_shape(end)}, as a file has it whose input size is open; export it with one")
    if end.dtype not in INPUT_TYPES or len(end.scale) > 1:
        raise ModelError(f"its input is {end.dtype.lower()}; export it with an input of int8, uint8 or float32")
    size, kind = shape[1:3], end.dtype.lower()
    if images is not None:
        return _of_images(end, images, whence)
    if end.dtype == "FLOAT32" or _imported(model):
        raise ModelError(f"its input is {kind} and nothing says how pixels become numbers; give {GIVE}")
    less, text = (128, "uint8 - 128") if end.dtype == "INT8" else (0, "uint8 as it is")
    levels = np.repeat((LEVELS - less).astype(DTYPES[end.dtype])[:, None], 3, axis=1)
    where = f"{kind} {size[0]} x {size[1]} RGB"
    return ModelInput(size, levels, f"{where}, {text}: assumed, as the file does not say; otherwise give {GIVE}")


def _of_images(end: GraphTensor, images: ImagePreprocessing, whence: str) -> ModelInput:
    height, width, channels = end.shape[1:]
    colours = images.colours if channels == 3 else "grey"
    formula, resized, kind = images.formula, images.size, end.dtype.lower()
    if max(len(formula.mean), len(formula.std)) > channels:
        raise ModelError(f"its input has one channel, {whence} there are {len(formula.mean)} means; give {GIVE}")
    if resized and (resized[0] < height or resized[1] < width):
        raise ModelError(f"its input is {_shape(end)}, more than {whence} images are resized to; quantize it again")
    middle = f" in the middle of {resized[0]} x {resized[1]}" if resized else ""
    shown = colours if colours == "grey" else colours.upper()
    text = f"{kind} {height} x {width}{middle} {shown}, {_formula_text(kind, end, formula)}, {whence}"
    return ModelInput((height, width), _table(end, formula, channels), text, colours, resized)


def output_of(model: ModelInfo, task: Task, classes: Sequence[str], size: tuple[int, int]) -> ModelOutput:
    """The output that names the classes of a data set; `size` is (H, W) of its images.

    Raises `ModelError` where no output does, or several do.
    """
    return naming_output(inspect_model(model).outputs, task, classes, size, sizes_in(model))


def naming_output(
    ends: Sequence[GraphTensor], task: Task, classes: Sequence[str], size: tuple[int, int], left: Sizes | None = None
) -> ModelOutput:
    """As `output_of`, for a network's outputs; `left`: the resizes of the scores that they leave to the CPU."""
    unknown = [end for end in ends if end.dtype not in DTYPES]
    if unknown:
        raise ModelError(f"its output is {_listed(unknown)}; export it in int8, uint8, int32, int64 or float32")
    sizes = [prod(end.shape) * np.dtype(DTYPES[end.dtype]).itemsize for end in ends]
    starts = [0, *accumulate(sizes)]
    fitting = [
        ModelOutput(end.shape, end.dtype, start, starts[-1], size if task.dense else (), scores, text, left)
        for end, start in zip(ends, starts[:-1], strict=True)
        for scores, text in _readings(end, task, len(classes), size)
    ]
    if len(fitting) == 1:
        return fitting[0]
    wanted = f"scores of {len(classes)} classes or classes"
    what = f"{'a map of ' if task.dense else ''}{wanted}{'' if task.dense else ' of the image'}"
    if not fitting:
        raise ModelError(f"its output is {_listed(ends)}, and the data set needs {what} ({_names(classes)})")
    raise ModelError(f"{len(fitting)} of its outputs could be {what} ({_listed(ends)}); export it with one")


def _readings(end: GraphTensor, task: Task, classes: int, size: tuple[int, int]) -> Iterator[tuple[bool, str]]:
    """What an output may be taken for: (whether it scores the classes, text); nothing where it does not fit."""
    shape, kind = end.shape, f"{end.dtype.lower()} {'x'.join(map(str, end.shape))}"
    if len(end.scale) > 1:
        return
    if task.dense:
        enlarged = "" if shape[1:3] == size else f", enlarged to {size[0]} x {size[1]}"
        if len(shape) == 4 and shape[0] == 1 and shape[3] == classes > 1:
            yield True, f"{kind}, scores of {classes} classes{f'{enlarged} bilinearly' if enlarged else ''}"
        elif _names_classes(end) and shape[:1] == (1,) and shape[3:] in ((), (1,)) and len(shape) >= 3:
            yield False, f"{kind}, a map of classes{f'{enlarged} to the nearest' if enlarged else ''}"
    elif prod(shape) == classes > 1 and shape[-1] == classes:
        yield True, f"{kind}, scores of {classes} classes"
    elif prod(shape) == 1 and end.dtype in ("INT32", "INT64"):
        yield False, f"{kind}, the image's class"


def _names_classes(end: GraphTensor) -> bool:
    """Whether its numbers may be classes: a quantized map of small integers is a map of scores."""
    plain = not end.scale or (end.scale[0] == 1 and end.zero_point[0] == 0)
    return end.dtype in ("INT32", "INT64") or (end.dtype in ("INT8", "UINT8") and plain)


def _images(model: ModelInfo, given: Normalization | None) -> tuple[ImagePreprocessing | None, str]:
    """(from an image to real values, where that is from)."""
    stated, whence = _stated(model)
    if given is not None:
        return replace(stated or ImagePreprocessing(given), formula=given), "as --normalize says"
    return stated, whence


def _stated(model: ModelInfo) -> tuple[ImagePreprocessing | None, str]:
    if images := (inspect_model(model).hilnas or {}).get(IMAGES):
        try:
            found = build(ImagePreprocessing, images, IMAGES)
            return replace(found, formula=checked(found.formula.mean, found.formula.std)), "as the file says"
        except (ConfigError, TypeError, ValueError) as error:
            raise ModelError(f"its metadata '{METADATA_NAME}' is damaged ({error}); quantize it again") from None
    if METADATA_NAME in model.metadata and not _imported(model):
        return ImagePreprocessing(OURS), "as hilnas trains and deploys"
    formula = normalization(model)
    return None if formula is None else ImagePreprocessing(formula), "as the file's TFLite metadata says"


def _imported(model: ModelInfo) -> bool:
    """Whether `hilnas quantize` made it: from an image to its input is not as hilnas trains."""
    return IMPORTED in (inspect_model(model).hilnas or {})


def stated_normalization(model: Path) -> Normalization | None:
    """From pixels to real values, as a .tflite file says; None where it does not. Raises `ModelError`."""
    stated, _ = _stated(read(model))
    return stated.formula if stated else None


def images_of(model: ModelInfo) -> ImagePreprocessing | None:
    """From an image to real values, as a file says; None where it does not. Raises `ModelError`."""
    return _stated(model)[0]


def _table(end: GraphTensor, formula: Normalization, channels: int) -> NDArray[np.generic]:
    mean, std = (np.broadcast_to(np.array(values, np.float32), channels) for values in (formula.mean, formula.std))
    real = (LEVELS[:, None].astype(np.float32) - mean) / std  # (256, C)
    if end.dtype == "FLOAT32":
        return np.asarray(real, np.float32)
    if not end.scale or end.scale[0] <= 0:
        raise ModelError(f"its input is {end.dtype.lower()} without a scale; export it again, quantized")
    lowest, highest = (-128, 127) if end.dtype == "INT8" else (0, 255)
    stored = np.rint(real / np.float32(end.scale[0])) + end.zero_point[0]
    return np.asarray(np.clip(stored, lowest, highest), DTYPES[end.dtype])


def _formula_text(kind: str, end: GraphTensor, formula: Normalization) -> str:
    real = f"(uint8 - {_shown(formula.mean)}) / {_shown(formula.std)}"
    if kind == "float32":
        return f"{kind} = {real}"
    return f"{kind} = round({real} / {end.scale[0] if end.scale else 1:.6g}) + {(end.zero_point or (0,))[0]}"


def _shown(numbers: Sequence[float]) -> str:
    text = ", ".join(f"{number:g}" for number in numbers)
    return text if len(numbers) == 1 else f"[{text}]"


def _shape(end: GraphTensor) -> str:
    return f"{end.dtype.lower()} {'x'.join(map(str, end.shape)) or 'a scalar'}"


def _listed(ends: Sequence[GraphTensor]) -> str:
    return ", ".join(f"{end.name or 'unnamed'}: {_shape(end)}" for end in ends[:4]) + (", ..." if ends[4:] else "")


def _names(classes: Sequence[str]) -> str:
    return ", ".join(classes[:3]) + (", ..." if classes[3:] else "")
