"""Data sets: `open_data("scenes" | "camvid:FOLDER" | "cityscapes:FOLDER" | "shapes" | "folders:FOLDER", ...)`.

The first three are for semantic segmentation, the others for classification.
"""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from nas.data.camvid import open_camvid
from nas.data.cityscapes import open_cityscapes
from nas.data.files import StoredFiles
from nas.data.folders import open_folders
from nas.data.names import counted, printable
from nas.data.sample import FULL_SIZE, IGNORE, Crops, Dataset, Sample
from nas.data.scenes import Scenes
from nas.data.shapes import Shapes
from nas.errors import ConfigError

__all__ = [
    "DATASETS",
    "IGNORE",
    "SPLITS",
    "Crops",
    "Dataset",
    "DatasetRequest",
    "Sample",
    "check_split",
    "left_out_text",
    "open_data",
]

logger = logging.getLogger(__name__)
SPLITS = ("train", "val")
"""Those that every data set has."""

ALL_SPLITS = (*SPLITS, "test")


@dataclass(frozen=True)
class DatasetRequest:
    """The arguments of `open_data`; `folder` is the part of the spec after the colon, None without one."""

    folder: Path | None
    split: str
    size: tuple[int, int]
    seed: int
    count: int | None
    crops: Crops


def _open_scenes(request: DatasetRequest) -> Dataset:
    _no_folder(request, "scenes")
    return Scenes(request.split, request.size, seed=request.seed, count=request.count, crops=request.crops)


def _open_camvid(request: DatasetRequest) -> Dataset:
    return open_camvid(
        _folder(request, "camvid"), request.split, request.size, count=request.count, crops=request.crops
    )


def _open_cityscapes(request: DatasetRequest) -> Dataset:
    return open_cityscapes(
        _folder(request, "cityscapes"), request.split, request.size, count=request.count, crops=request.crops
    )


def _open_shapes(request: DatasetRequest) -> Dataset:
    _no_folder(request, "shapes")
    return Shapes(request.split, request.size, seed=request.seed, count=request.count, crops=request.crops)


def _open_folders(request: DatasetRequest) -> Dataset:
    return open_folders(
        _folder(request, "folders"), request.split, request.size, count=request.count, crops=request.crops
    )


DATASETS: Mapping[str, Callable[[DatasetRequest], Dataset]] = {
    "scenes": _open_scenes,
    "camvid": _open_camvid,
    "cityscapes": _open_cityscapes,
    "shapes": _open_shapes,
    "folders": _open_folders,
}


def open_data(
    spec: str,
    split: str,
    size: tuple[int, int],
    *,
    seed: int = 0,
    count: int | None = None,
    crops: Crops = FULL_SIZE,
    warn: bool = True,
) -> Dataset:
    """The data set that `spec` names, resized to `size` = (H, W).

    Args:
        spec: a key of `DATASETS`, with :FOLDER where the data is stored.
        split: "train", "val", or "test", which only evaluation reads.
        seed: of generated images; stored ones do not depend on it.
        count: how many images to generate (by default the data set's COUNTS), or at most how many stored ones to take,
            evenly spaced.
        crops: how training shows the samples.
        warn: count what lies beside the images, and is not read, in a warning.

    Raises:
        ConfigError: an argument cannot be used.
        DataError: the folder does not follow the data set's layout.
    """
    name, colon, folder = spec.partition(":")
    _check_choice("data set", name, DATASETS)
    _check_choice("split", split, ALL_SPLITS)
    if min(size) < 1:
        raise ConfigError(f"size {size[0]}x{size[1]}: give a positive height and width")
    if count is not None and count < 1:
        raise ConfigError(f"count {count}: give at least 1, or leave it out for the full split")
    path = _expanded(folder) if colon else None
    data = DATASETS[name](DatasetRequest(path, split, size, seed, count, crops))
    if warn and (text := left_out_text(data)):
        _warn_once(f"{spec}, {split}: {text}")
    return data


def _expanded(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # a container's bare user id, or a name that nobody has
        raise ConfigError(f"{folder}: no such home folder is known here; give the full path") from error


def check_split(
    spec: str, split: str, size: tuple[int, int], *, seed: int = 0, count: int | None = None
) -> tuple[Path, ...]:
    """Refuses what `open_data` refuses. The image files of the split, looked for and not opened."""
    data = open_data(spec, split, size, seed=seed, count=count)
    return tuple(data.sources(i)[0] for i in range(len(data))) if isinstance(data, StoredFiles) else ()


def left_out_text(data: Dataset) -> str:
    """What lies beside the images and is not read, as "left out: 50 .heic, 3 .txt (DIR/a.heic, ...)"; "" if nothing."""
    if not isinstance(data, StoredFiles) or not data.left_out:
        return ""
    first = printable(str(data.left_out[0]))
    more = ", ..." if len(data.left_out) > 1 else ""
    heic = any(path.suffix.lower() in (".heic", ".heif") for path in data.left_out)
    advice = "; convert .heic photos to JPEG to use them" if heic else ""
    return f"left out: {counted(data.left_out)} ({first}{more}){advice}"


@functools.cache
def _warn_once(text: str) -> None:
    """A run opens its data many times."""
    logger.warning(text)


def _no_folder(request: DatasetRequest, name: str) -> None:
    if request.folder is not None:
        raise ConfigError(f"data '{name}:{request.folder}': {name} are generated; write '{name}'")


def _folder(request: DatasetRequest, name: str) -> Path:
    if request.folder is None or request.folder == Path():
        raise ConfigError(f"data '{name}': which folder? write '{name}:FOLDER'")
    return request.folder


def _check_choice(what: str, given: str, choices: Collection[str]) -> None:
    if given in choices:
        return
    near = difflib.get_close_matches(given, choices, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(choices)}"
    raise ConfigError(f"unknown {what} '{given}': {hint}")
