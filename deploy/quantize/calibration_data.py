"""What a network is calibrated on: a data set, a folder of images, arrays, or noise for a first look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.formats.importers.network import ImportedNetwork
from deploy.quantize.calibration_arrays import arrays_in
from deploy.quantize.image_preprocessing import HELP, ImagePreprocessing
from deploy.ship.evaluation import image_name
from hil.errors import UsageError
from nas.data import DATASETS, open_data
from nas.data.files import evenly_spaced
from nas.data.images import read_rgb
from nas.data.names import Folder, counted

RANDOM = "random"
BATCH, BATCH_ELEMENTS = 16, 1 << 22  # at most so many examples, or numbers, at once
PIXELS = 256
Batch = NDArray[np.float32]
SETS = "a data set (scenes, camvid:FOLDER, folders:FOLDER, ...)"


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """Examples of a network's input, in the deployed order of axes.

    Attributes:
        text: what they are, as screens and records show it.
        count: how many.
        example: the one at an index (H, W, C), or of the shape of an input that is no map.
        noise: whether they show nothing.
        images: how images became these examples; None: they are none.
        name: what the one at an index is called.
    """

    text: str
    count: int
    example: Callable[[int], Batch]
    noise: bool = False
    images: ImagePreprocessing | None = None
    name: Callable[[int], str] = "example {}".format

    def batches(self) -> Iterator[Batch]:
        """All of them (N, ...). `UsageError` naming the first with a NaN, and for a constant."""
        low, high = np.inf, -np.inf
        size = max(1, min(BATCH, BATCH_ELEMENTS // self.example(0).size))
        for start in range(0, self.count, size):
            indices = range(start, min(start + size, self.count))
            examples = [self.example(i) for i in indices]
            for i, x in zip(indices, examples, strict=True):
                if not np.isfinite(x).all():
                    raise UsageError(f"{self.text}: example {i} holds NaN or infinity: leave it out")
            batch = np.stack(examples)
            low, high = min(low, float(batch.min())), max(high, float(batch.max()))
            yield batch
        if low == high:
            raise UsageError(f"{self.text}: every number is {low:g}: calibrate on data as the network will see it")


def calibration_data(
    spec: str, network: ImportedNetwork, images: ImagePreprocessing | None, count: int, seed: int = 0
) -> CalibrationData:
    """At most `count` examples for `network`, evenly spaced over what `spec` names.

    Args:
        spec: `random`; the path of an .npz file, or of a folder of images; or a data set of `nas.data`, whose training
            images are taken.
        images: how images become the network's input; None: nobody said. Arrays are taken as they are.

    Raises:
        UsageError: there is nothing of that name, or it does not fit the network.
        DataError: files of a data set, or an image, cannot be read.
    """
    if count < 1:
        raise UsageError(f"--images {count}: give at least 1")
    shape = network.input.deployed_shape
    if spec == RANDOM:
        return _noise(shape, images, count, seed)
    if Path(spec).suffix.lower() == ".npz":
        arrays = evenly_spaced(arrays_in(Path(spec), network), count)
        return CalibrationData(f"{spec}, {_examples(len(arrays))}", len(arrays), lambda i: arrays[i])
    name = spec.partition(":")[0]
    if name not in DATASETS and not Path(spec).is_dir():
        wrong = "a file" if Path(spec).exists() else "no such file or folder"
        raise UsageError(f"--data {spec}: {wrong}; give a folder of images, arrays in FILE.npz, {SETS}, or {RANDOM}")
    if images is None:
        raise UsageError(
            f"--data {spec}: nothing says how pixels become the network's input: add --mean and --std, or "
            f"--preprocessing FILE.toml; {HELP}"
        )
    images.check(shape)
    if name in DATASETS:
        data = open_data(spec, "train", (shape[0], shape[1]), seed=seed, count=count)
        text = f"{spec}, {_examples(len(data))}, {images}"
        return CalibrationData(
            text,
            len(data),
            lambda i: images.input(data.original(i).image, shape),
            images=images,
            name=lambda i: Path(image_name(data, i)).name,
        )
    files = _images_in(Path(spec), count)
    text = f"{spec}, {_examples(len(files))}, {images}"
    return CalibrationData(
        text,
        len(files),
        lambda i: images.input(read_rgb(files[i]), shape),
        images=images,
        name=lambda i: files[i].name,
    )


def _examples(count: int) -> str:
    return f"{count} example{'' if count == 1 else 's'}"


def _images_in(folder: Path, count: int) -> Sequence[Path]:
    found = Folder.of(folder).images()
    if not found.files:
        left = f"; it holds {counted(found.left_out)}" if found.left_out else ""
        raise UsageError(f"--data {folder}: no image in it{left}; give a folder of JPEG or PNG files, for example")
    return evenly_spaced(found.files, count)


def _noise(shape: tuple[int, ...], images: ImagePreprocessing | None, count: int, seed: int) -> CalibrationData:
    """Pixels where it is known how they become the input, else normal numbers."""
    as_image = images is not None and len(shape) == 3 and shape[2] in (1, 3)

    def example(index: int) -> Batch:
        rng = np.random.default_rng([seed, index])
        if images is None or not as_image:
            return rng.standard_normal(shape, np.float32)
        pixels = rng.integers(0, PIXELS, (*(images.size or shape[:2]), 3), np.uint8)
        return images.input(pixels, shape)

    if images is not None and as_image:
        images.check(shape)
    what = f"pixels, {images}" if as_image else "mean 0, variance 1"
    text = f"random noise, no data: {_examples(count)}, seed {seed}, {what}"
    return CalibrationData(text, count, example, noise=True, images=images if as_image else None)
