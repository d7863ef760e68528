"""Golden images: validation images with what a model has to output for them, beside its file and in its bundle.

models/NAME.golden/golden.json             the images by name
models/NAME.golden/0.png, 1.png, ...       each image at the model's size
models/NAME.golden/0.input.bin, ...        the input's raw bytes
models/NAME.golden/0.output.bin, ...       the output's, by the integers of the deployed network
bundle/golden/images/0.png, ...            the same images
bundle/golden/classes/0.png, ...           the output as a picture: its pixels are classes, its palette their colours
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deploy.compile.artifact import Artifact, golden_pair
from deploy.formats.class_colours import palette
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import DTYPES, read
from deploy.run.records import Record
from deploy.ship.evaluation import image_name
from deploy.ship.manifest import GoldenPair
from deploy.ship.task_output import TaskOutput
from deploy.targets.inspection import inspect_model
from nas.data import Dataset
from nas.data.batches import normalize
from nas.quant.arithmetic import Arithmetic
from nas.quant.integer_graph import IntegerGraph

TOP = 5  # of the largest scores


@dataclass(frozen=True)
class GoldenImages(Record):
    """The images of a folder of them, by their file's name or their place in a generated data set."""

    images: tuple[str, ...]

    FILE: ClassVar[str] = "golden.json"
    COMMAND: ClassVar[str] = "loop"


def golden_folder(model: Path) -> Path:
    return model.with_suffix(".golden")


@dataclass(frozen=True, eq=False)
class GoldenExample:
    """An input (1, C, H, W) in real values, by what name, and the image that it is (None: it is none)."""

    name: str
    x: Tensor
    image: NDArray[np.uint8] | None


def golden_examples(data: Dataset, count: int) -> Iterator[GoldenExample]:
    """`count` images evenly spaced over `data` (all, if fewer), as this kit's own networks read them."""
    for index in spaced(len(data), count):
        image = data[index].image
        yield GoldenExample(Path(image_name(data, index)).name, normalize([image]), image)


def spaced(length: int, count: int) -> list[int]:
    """`count` indices evenly spaced below `length` (all, if fewer)."""
    count = min(count, length)
    return [i * length // count for i in range(count)]


def write_golden(
    model: Path, graph: IntegerGraph, examples: Iterable[GoldenExample], *, form: Form, arithmetic: Arithmetic
) -> None:
    """`examples` with their outputs beside `model`; golden.json last."""
    folder, names = golden_folder(model), []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, example in enumerate(examples):
        source, output = golden_pair(graph, example.x, form, arithmetic)
        if example.image is not None:
            Image.fromarray(example.image).save(folder / f"{number}.png")
        (folder / f"{number}.input.bin").write_bytes(source)
        (folder / f"{number}.output.bin").write_bytes(output)
        names.append(example.name)
    GoldenImages(tuple(names)).write(folder / GoldenImages.FILE)


def copy_golden(
    artifact: Artifact, bundle: Path, output: TaskOutput, classes: Sequence[str], size: tuple[int, int] | None
) -> tuple[GoldenPair, ...]:
    """Into golden/ of a bundle; of a model that has no golden images, its one pair. `size`: of a class map (H, W)."""
    (bundle / "golden").mkdir(parents=True)
    source = golden_folder(artifact.model)
    within = (output.max_mismatch, output.max_abs_diff)
    if not (source / GoldenImages.FILE).is_file():
        pair = GoldenPair("golden/0.input.bin", "golden/0.output.bin", *within)
        shutil.copyfile(artifact.input, bundle / pair.input)
        shutil.copyfile(artifact.expected, bundle / pair.output)
        return (pair,)
    kind = inspect_model(read(artifact.model)).outputs[0].dtype
    pairs = []
    for number, name in enumerate(GoldenImages.read(source / GoldenImages.FILE).images):
        image = f"golden/images/{number}.png" if (source / f"{number}.png").is_file() else None
        pair = GoldenPair(f"golden/{number}.input.bin", f"golden/{number}.output.bin", *within, image, name)
        for path in filter(None, (pair.input, pair.output, image)):
            (bundle / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / Path(path).name, bundle / path)
        content = (bundle / pair.output).read_bytes()
        if output.dense:
            pair = replace(pair, classes=f"golden/classes/{number}.png")
            labels = np.frombuffer(content, np.int32).reshape(size).astype(np.uint8)
            _save_classes(labels, len(classes), bundle / f"golden/classes/{number}.png")
        elif classes:
            order = np.argsort(-np.frombuffer(content, DTYPES[kind]).astype(int), kind="stable")
            pair = replace(pair, top=tuple(classes[label] for label in order[:TOP]))
        pairs.append(pair)
    return tuple(pairs)


def _save_classes(labels: NDArray[np.uint8], classes: int, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(labels)
    picture.putpalette(palette(classes))
    picture.save(path)
