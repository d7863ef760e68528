"""What a data set holds, split by split: classes, sizes, label values, odd and bad files, pictures in both splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from nas.data.check import Checked
from nas.data.files import StoredFiles
from nas.data.labels import spans
from nas.data.names import printable
from nas.data.sample import IGNORE, Dataset, TaskName


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs in a split: labelled pixels (with one label per image, none), and images with it."""

    name: str
    pixels: int
    images: int


@dataclass(frozen=True)
class OddFiles:
    """Files with the same oddity: "3 images are `what`"."""

    what: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class SplitReport:
    """One split.

    Attributes:
        split: its name.
        images: how many samples.
        sizes: how many images by height and width, as "360x480".
        stored_as: how many by format and pixels, as "JPEG RGB".
        values: the values in label files, as spans.
        unlabelled: pixels without a class.
        counts: of each class.
        odd: what is unusual.
        bad: for each sample that cannot be used the reason, which names the file.
        left_out: files beside the images that are none.
    """

    split: str
    images: int
    sizes: dict[str, int]
    stored_as: dict[str, int]
    values: tuple[str, ...]
    unlabelled: int
    counts: tuple[ClassCount, ...]
    odd: tuple[OddFiles, ...]
    bad: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class SamePicture:
    """A picture that is in both splits."""

    train: str
    val: str


@dataclass(frozen=True)
class DataReport:
    """A data set: `hilnas data check` prints it, or writes it as JSON."""

    spec: str
    task: TaskName
    classes: tuple[str, ...]
    splits: tuple[SplitReport, ...]
    same: tuple[SamePicture, ...] = ()


@dataclass
class SplitTally:
    """Adds up a split's samples as they are checked."""

    data: Dataset
    split: str
    checked: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    stored_as: Counter[str] = field(default_factory=Counter)
    values: set[int] = field(default_factory=set)
    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    odd: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    bad: list[str] = field(default_factory=list)
    pictures: dict[bytes, tuple[str, frozenset[int]]] = field(default_factory=dict)

    def add(self, sample: Checked) -> None:
        self.checked += 1
        if sample.error:
            self.bad.append(sample.error)
            return
        name = name_of(sample, self.split)
        self.sizes[f"{sample.size[0]}x{sample.size[1]}"] += 1
        self.stored_as[sample.stored_as] += 1
        self.values |= sample.values.keys()
        self.pixels.update(sample.classes)
        self.images.update(sample.classes.keys())
        for what in sample.odd:
            self.odd[what].append(name)
        self._add_picture(name, sample)

    def _add_picture(self, name: str, sample: Checked) -> None:
        """Notes where the split has the picture already, perhaps under another class."""
        classes = frozenset(sample.classes)
        first, others = self.pictures.setdefault(sample.digest, (name, classes))
        if first != name:
            other_class = self.data.task == "classification" and others != classes
            what = "of one class and, as the same picture, of another" if other_class else "the same picture as another"
            self.odd[what].append(f"{name} (= {first})")

    def report(self) -> SplitReport:
        dense = self.data.task == "segmentation"
        left_out: tuple[str, ...] = ()
        if isinstance(self.data, StoredFiles):
            left_out = tuple(printable(str(path)) for path in self.data.left_out)
        return SplitReport(
            split=self.split,
            images=self.checked,
            sizes=dict(self.sizes.most_common()),
            stored_as=dict(self.stored_as.most_common()),
            values=tuple(spans(sorted(self.values))),
            unlabelled=self.pixels[IGNORE] if dense else 0,
            counts=tuple(
                ClassCount(name, self.pixels[i] if dense else 0, self.images[i])
                for i, name in enumerate(self.data.classes)
            ),
            odd=tuple(OddFiles(what, tuple(files)) for what, files in self.odd.items()),
            bad=tuple(self.bad),
            left_out=left_out,
        )


def name_of(sample: Checked, split: str) -> str:
    """The image's file, or the number of a generated one."""
    return printable(str(sample.files[0])) if sample.files else f"{split} {sample.index}"


def in_both(train: SplitTally, val: SplitTally) -> tuple[SamePicture, ...]:
    """Pictures of both splits: validation images that were trained on."""
    both = [digest for digest in val.pictures if digest in train.pictures]
    return tuple(SamePicture(train.pictures[digest][0], val.pictures[digest][0]) for digest in both)
