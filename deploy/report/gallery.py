"""Validation images as the final models see them, kept beside a run as small pictures.

Of segmentation those on which the bundled model and the teacher trained on differ the most, of classification those
that the bundled model gets wrong, then those on which the two differ; and some drawn at random, seeded: the first say
where a model is weak, the others how much that means.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.formats.class_colours import VERDICTS, VOID, palette
from deploy.formats.digest import digest, file_digest
from deploy.formats.files import write_atomically
from deploy.formats.tflite.here import RunHere
from deploy.run.folder import Progress
from deploy.run.records import Record
from deploy.ship.evaluated_models import model_on
from deploy.ship.evaluation import image_name
from nas.data import Dataset
from nas.data.files import evenly_spaced
from nas.data.sample import IGNORE
from nas.settings import STRICT

WORST: Mapping[str, int] = {"segmentation": 4, "classification": 10}
DRAWN = 2
MOST_PREDICTED = 200  # images, evenly spaced, that are looked at
WIDEST = 320  # pixels of a kept picture
FOLDER = "gallery"
DIFFERENCE = "difference"
"""What is said of a picture that says where two models differ, and which of them is right there."""
Why = Literal["wrong", "differs", "drawn"]
STAGE = "gallery"


@dataclass(frozen=True)
class ShownImage:
    """One image.

    Attributes:
        index: in the validation split.
        why: it is shown.
        differing: the share of its pixels (of an image's class 0 or 1) that the two models predict otherwise.
        label, predicted: of classification the classes, by model; of segmentation pictures hold them.
    """

    index: int
    name: str
    why: Why
    differing: float
    label: int | None = None
    predicted: Mapping[str, int] | None = None
    __pydantic_config__ = STRICT

    def picture(self, what: str) -> str:
        """The file of the image, of its label, or of a model's prediction."""
        return f"{self.index:05}-{what}.{'jpg' if what == 'image' else 'png'}"


@dataclass(frozen=True)
class GalleryRecord(Record):
    """What the pictures show.

    Attributes:
        key: a digest of the models' files and of the images.
        models: their names, in the report's order; `reference` and `shown` are those that differ.
    """

    key: str
    dense: bool
    classes: tuple[str, ...]
    models: tuple[str, ...]
    reference: str
    shown: str
    images: tuple[ShownImage, ...]

    FILE: ClassVar[str] = f"{FOLDER}/gallery.json"
    COMMAND: ClassVar[str] = "report"


def make_gallery(
    run: Path, data: Dataset, models: Mapping[str, Path], differ: tuple[str, str], seed: int
) -> Iterator[Progress]:
    """The pictures of a run, unless they are there: RUN/gallery/.

    `models`: the .tflite file of each; `differ`: names of the reference and of what is shown against it. Raises what
    `model_on` raises, `DataError` for an image that cannot be read.
    """
    files = [file_digest(path) for path in models.values()]
    key = digest(files, list(differ), data.name, len(data), list(data.size), seed)
    path, (reference, shown) = run / GalleryRecord.FILE, differ
    if path.exists() and GalleryRecord.read(path).key == key:
        return
    dense = data.task == "segmentation"
    looked_at = evenly_spaced(range(len(data)), MOST_PREDICTED)
    predicted: dict[int, dict[str, NDArray[np.int64]]] = {index: {} for index in looked_at}
    for name in (reference, shown):
        for done, (index, classes) in enumerate(predictions(models[name], data, looked_at, name), start=1):
            predicted[index][name] = classes
            yield Progress(STAGE, done, len(looked_at), name)
    differing = {index: float(np.mean(found[reference] != found[shown])) for index, found in predicted.items()}
    wrong = {i for i, found in predicted.items() if not dense and found[shown] != data[i].label}
    chosen = chosen_images(differing, wrong, WORST[data.task], seed)
    for name in models.keys() - {reference, shown}:
        for index, classes in predictions(models[name], data, list(chosen), name):
            predicted[index][name] = classes
    images = []
    for index, why in chosen.items():
        sample, found = data[index], predicted[index]
        named = {name: int(classes) for name, classes in found.items()} if not dense else None
        label = int(sample.label) if not dense else None
        one = ShownImage(index, Path(image_name(data, index)).name, why, differing[index], label, named)
        images.append(one)
        write_atomically(run / FOLDER / one.picture("image"), _photograph(sample.image))
        if dense:
            difference = compared(sample.label, found[reference], found[shown])
            pictures = {name: _class_map(classes, len(data.classes)) for name, classes in found.items()}
            pictures |= {"label": _class_map(sample.label, len(data.classes)), DIFFERENCE: _drawn(difference, VERDICTS)}
            for what, content in pictures.items():
                write_atomically(run / FOLDER / one.picture(what), content)
    GalleryRecord(key, dense, tuple(data.classes), tuple(models), reference, shown, tuple(images)).write(path)


def predictions(
    path: Path, data: Dataset, indices: Sequence[int], name: str
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Of each image what the file's own runtime on this machine predicts: classes (H, W), or ()."""
    model, runtime = model_on(path, data, name), RunHere(path.read_bytes())
    for index in indices:
        yield index, model.output.classes(runtime.outputs(model.input.encode(data[index].image)))


def chosen_images(differing: Mapping[int, float], wrong: Set[int], most: int, seed: int) -> dict[int, Why]:
    """By index, why it is shown: at most so many that are wrong or differ, the worst first, then some drawn."""
    weak = [index for index, share in differing.items() if index in wrong or share > 0]
    worst = sorted(weak, key=lambda index: (index not in wrong, -differing[index], index))[:most]
    chosen: dict[int, Why] = {index: "wrong" if index in wrong else "differs" for index in worst}
    rest = [index for index in sorted(differing) if index not in chosen]
    drawn = random.Random(f"{seed}/gallery").sample(rest, min(DRAWN, len(rest)))
    return {**chosen, **dict.fromkeys(drawn, "drawn")}


def compared(label: NDArray[np.integer], reference: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Of each pixel (H, W) an entry of VERDICTS: which of the two is right, where they differ."""
    differ = reference != shown
    verdicts = np.where(differ, 3, 0)
    verdicts[differ & (shown == label)] = 1
    verdicts[differ & (reference == label)] = 2
    return verdicts.astype(np.uint8)


def _photograph(image: NDArray[np.uint8]) -> bytes:
    return _encoded(Image.fromarray(image), "JPEG", Image.Resampling.BILINEAR)


def _class_map(classes: NDArray[np.integer], count: int) -> bytes:
    return _drawn(np.where(classes == IGNORE, VOID, classes).astype(np.uint8), palette(count))


def _drawn(indexed: NDArray[np.uint8], colours: Sequence[int]) -> bytes:
    picture = Image.fromarray(indexed, "P")
    picture.putpalette(list(colours))
    return _encoded(picture, "PNG", Image.Resampling.NEAREST)


def _encoded(picture: Image.Image, form: str, how: Image.Resampling) -> bytes:
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), how)
    content = BytesIO()
    picture.save(content, form, quality=85, optimize=True)
    return content.getvalue()
