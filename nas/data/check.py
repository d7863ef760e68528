"""Every file of a data set, read in parallel: whether it can be used, and what is odd about it."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.files import Examined, StoredFiles
from nas.data.images import ImageFacts, checksums_hold, read_facts
from nas.data.sample import IGNORE, Dataset
from nas.errors import DataError

T = TypeVar("T")
MOST_THREADS = 32  # Pillow and hashlib let go of Python's lock; beyond the cores they wait for a disk or a network
AHEAD = 4  # samples per thread that may be done before they are asked for
ALMOST_BLACK = 16  # of 255: also where 12 bits are stored as 16


@dataclass(frozen=True)
class Checked:
    """One sample of a data set.

    Attributes:
        index: its own.
        files: its image's and its label's; a generated one has none.
        error: why it cannot be used; "" if it can.
        size: (H, W) of the upright image, (0, 0) where it cannot be used.
        stored_as: format and pixels of the image's file, as "JPEG RGB".
        values: how many pixels hold each value of the label's file.
        classes: how many pixels are of each class, IGNORE for unlabelled ones; or one for that of the image.
        digest: sha256 of the image's pixels; of its file, where that was only verified.
        odd: what is unusual, in words that follow "3 images are ...".
    """

    index: int
    files: tuple[Path, ...] = ()
    error: str = ""
    size: tuple[int, int] = (0, 0)
    stored_as: str = ""
    values: Mapping[int, int] = field(default_factory=dict)
    classes: Mapping[int, int] = field(default_factory=dict)
    digest: bytes = b""
    odd: tuple[str, ...] = ()


def check_samples(data: Dataset, *, fully: bool = True, threads: int | None = None) -> Iterator[Checked]:
    """All samples in order; not `fully`: errors and digests only, in a fraction of the time.

    Then images are not decoded where their files can be verified otherwise (`nas.data.images.verified_size`); labels
    are.
    """
    with _warnings_by_thread() as heard:

        def check(index: int) -> Checked:
            heard.texts = []
            files = data.sources(index) if isinstance(data, StoredFiles) else ()
            try:
                found = _examined(data, index, fully=fully)
                if not fully:
                    return Checked(index, files, size=found.size, digest=file_sha256(files[0]) if files else b"")
                facts = read_facts(files[0]) if files else None
                return _described(index, files, found, facts, heard.texts)
            except DataError as error:
                return Checked(index, files, str(error))

        yield from in_threads(check, range(len(data)), threads)


def in_threads(make: Callable[[int], T], indices: Sequence[int], threads: int | None = None) -> Iterator[T]:
    """`make` of each, in order, several at a time."""
    count = threads or min(MOST_THREADS, len(os.sched_getaffinity(0)) + 4)
    coming: deque[Future[T]] = deque()
    with ThreadPoolExecutor(count, "check") as pool:
        for index in indices:
            coming.append(pool.submit(make, index))
            if len(coming) > AHEAD * count:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def file_sha256(path: Path) -> bytes:
    """Of a file's bytes; `DataError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore it or fix its rights") from None


def _examined(data: Dataset, index: int, *, fully: bool) -> Examined:
    if isinstance(data, StoredFiles):
        return data.examine(index, fully=fully)
    sample = data.original(index)
    return Examined((sample.image.shape[0], sample.image.shape[1]), sample.label, sample.image)


def _described(
    index: int, files: tuple[Path, ...], found: Examined, facts: ImageFacts | None, warned: Sequence[str]
) -> Checked:
    image, label = found.image, found.label
    if image is None:
        raise AssertionError("examined fully")
    odd = [*_odd_pixels(image), *(_odd_file(files[0], facts) if facts else ()), *warned]
    classes = _counts(label)
    if label.ndim and set(classes) <= {IGNORE}:
        odd.append("without a labelled pixel")
    return Checked(
        index,
        files,
        size=found.size,
        stored_as=f"{facts.format} {facts.mode}" if facts else "generated",
        values=_counts(found.stored) if found.stored is not None else {},
        classes=classes,
        digest=_picture_digest(image),
        odd=tuple(dict.fromkeys(odd)),
    )


def _picture_digest(image: NDArray[np.uint8]) -> bytes:
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _counts(label: NDArray[np.uint8] | NDArray[np.int64]) -> dict[int, int]:
    counts = np.bincount(label.ravel())
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _odd_pixels(image: NDArray[np.uint8]) -> Iterator[str]:
    if (image == image[:1, :1]).all():
        yield "of one colour only"
    elif int(image.max()) < ALMOST_BLACK:
        yield "almost black"


def _odd_file(path: Path, facts: ImageFacts) -> Iterator[str]:
    if facts.orientation > 1:
        yield "turned upright as their EXIF orientation says"
    if facts.mode.startswith("I"):
        yield "of 16 bits, read at 8"
    if facts.mode == "CMYK":
        yield "of printing colours (CMYK), which are converted without a profile"
    if facts.alpha:
        yield "partly transparent, which is ignored"
    if facts.animated:
        yield "animated: the first frame is read"
    if not checksums_hold(path):
        yield "read, though their files are cut or changed (a checksum does not hold)"
    if (named := Image.registered_extensions().get(path.suffix.lower())) not in (facts.format, None, "MPO"):
        yield f"stored as {facts.format} under the name of {named}"


class _Heard(threading.local):
    """What was warned of in this thread; None: not one of the check's."""

    texts: list[str] | None = None


@contextmanager
def _warnings_by_thread() -> Iterator[_Heard]:
    """Pillow warns without the name of the file: the thread that reads it is known."""
    heard = _Heard()
    with warnings.catch_warnings():
        for kind in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", kind)
        show_otherwise = warnings.showwarning

        def show(  # noqa: PLR0917 (the signature of `warnings.showwarning`)
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if heard.texts is None:
                show_otherwise(message, category, filename, lineno, file, line)
            elif category is Image.DecompressionBombWarning:
                heard.texts.append(f"larger than {Image.MAX_IMAGE_PIXELS or 0:,} pixels")
            else:
                heard.texts.append(f"read with Pillow's warning '{' '.join(str(message).split())[:80]}'")

        warnings.showwarning = show
        yield heard
