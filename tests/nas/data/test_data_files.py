"""CamVid and Cityscapes on disk: what is read, and every way in which the files can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import IGNORE, Crops, Dataset, open_data
from nas.data.augment import training_augment
from nas.data.batches import training_batch
from nas.data.cache import SampleCache
from nas.data.sample import Sample
from nas.errors import DataError

SIZE = (24, 32)
Writer = Callable[..., None]
Breakage = Callable[[Path, Writer, Writer], None]


def open_camvid(root: Path, split: str = "train", **options: int) -> Dataset:
    return open_data(f"camvid:{root}", split, SIZE, **options)


def test_camvid_reads_both_splits_and_ignores_the_unlabelled(camvid: Path) -> None:
    train, val = open_camvid(camvid), open_camvid(camvid, "val")
    assert (len(train), len(val)) == (5, 2)
    assert train.classes[0] == "sky"
    assert train.classes[10] == "bicyclist"
    for data in (train, val):
        for sample in data:
            assert set(np.unique(sample.label)) == {*range(11), IGNORE}
    stored = np.asarray(Image.open(camvid / "train" / "03.png"))
    np.testing.assert_array_equal(train[3].image, stored)


def test_resizing_keeps_the_stripes_in_place(camvid: Path) -> None:
    label = open_data(f"camvid:{camvid}", "train", (12, 16))[0].label
    whole = open_camvid(camvid)[0].label
    assert label.shape == (12, 16)
    np.testing.assert_array_equal(label, whole[1::2, 1::2])  # Pillow's nearest takes the pixel at 2i + 1


def test_count_takes_images_at_even_distances(camvid: Path) -> None:
    whole, some = open_camvid(camvid), open_camvid(camvid, count=2)
    assert len(some) == 2
    for taken, expected in zip(some, (whole[1], whole[3]), strict=True):
        np.testing.assert_array_equal(taken.image, expected.image)
    assert len(open_camvid(camvid, count=99)) == 5


def test_indices_end_and_repeat(camvid: Path) -> None:
    data = open_camvid(camvid)
    with pytest.raises(IndexError):
        data[5]
    assert data[-1] is data[4]
    with pytest.raises(ValueError, match="read-only"):
        data[0].image[0, 0, 0] = 1


def test_the_cache_stays_within_its_bytes() -> None:
    def make(_: int) -> Sample:
        made.append(1)
        return Sample(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))

    made: list[int] = []
    cache = SampleCache(limit_bytes=2 * 64 + 63)
    for _ in range(2):
        for index in range(3):
            cache.get(index, make)
    assert cache.used_bytes == 128
    assert len(made) == 4  # two are kept, the third is made each time


def remove_images(root: Path, *_: Writer) -> None:
    (root / "train").rename(root / "elsewhere")


def remove_labels(root: Path, *_: Writer) -> None:
    (root / "trainannot").rename(root / "elsewhere")


def empty_images(root: Path, *_: Writer) -> None:
    for path in (root / "train").iterdir():
        path.unlink()


def remove_a_label(root: Path, *_: Writer) -> None:
    (root / "trainannot" / "02.png").unlink()


@pytest.mark.parametrize(
    ("breakage", "expected"),
    [
        (remove_images, ("train", "no such folder; give CamVid's root")),
        (remove_labels, ("trainannot", "no such folder; give CamVid's root")),
        (empty_images, ("train", "unpack CamVid's train images there")),
        (remove_a_label, ("trainannot/02.png", "add it or remove the image")),
    ],
)
def test_a_bad_camvid_is_refused_when_opened(
    camvid: Path, image_writer: Writer, label_writer: Writer, breakage: Breakage, expected: tuple[str, str]
) -> None:
    breakage(camvid, image_writer, label_writer)
    with pytest.raises(DataError) as caught:
        open_camvid(camvid)
    names, says = expected
    assert str(caught.value).startswith(str(camvid / names))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def shrink_label(root: Path, _: Writer, label_writer: Writer) -> None:
    label_writer(root / "trainannot" / "02.png", [0, 1], (12, 16))


def unknown_value(root: Path, _: Writer, label_writer: Writer) -> None:
    label_writer(root / "trainannot" / "02.png", [0, 12])


def colour_label(root: Path, image_writer: Writer, _: Writer) -> None:
    image_writer(root / "trainannot" / "02.png")


def truncate_image(root: Path, *_: Writer) -> None:
    path = root / "train" / "02.png"
    path.write_bytes(path.read_bytes()[:200])


def not_an_image(root: Path, *_: Writer) -> None:
    (root / "train" / "02.png").write_text("hello\nworld\n")


def vanish(root: Path, *_: Writer) -> None:
    (root / "train" / "02.png").unlink()


@pytest.mark.parametrize(
    ("breakage", "expected"),
    [
        (shrink_label, ("trainannot/02.png", "16x12, but its image 02.png is 32x24")),
        (unknown_value, ("trainannot/02.png", "label value 12 in 384 pixels, camvid knows 0-11, 255")),
        (colour_label, ("trainannot/02.png", "store class indices, not colours")),
        (truncate_image, ("train/02.png", "copy the file anew")),
        (not_an_image, ("train/02.png", "copy the file anew")),
        (vanish, ("train/02.png", "restore it")),
    ],
)
def test_a_bad_file_is_refused_when_read(
    camvid: Path, image_writer: Writer, label_writer: Writer, breakage: Breakage, expected: tuple[str, str]
) -> None:
    data = open_camvid(camvid)
    breakage(camvid, image_writer, label_writer)
    data[1]  # its neighbours are still good
    with pytest.raises(DataError) as caught:
        data[2]
    names, says = expected
    assert str(caught.value).startswith(str(camvid / names))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cityscapes_maps_ids_and_prefers_train_ids(cityscapes: Path) -> None:
    data = open_data(f"cityscapes:{cityscapes}", "train", (24, 70))
    assert len(data.classes) == 19
    aachen, bochum = data
    by_id = dict(zip([*range(34), 255], aachen.label[0, ::2].tolist(), strict=True))
    official = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9}
    official |= {23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert by_id == {i: official.get(i, IGNORE) for i in by_id}
    assert set(np.unique(bochum.label)) == {*range(19), IGNORE}


def test_a_bad_cityscapes_is_refused(cityscapes: Path, label_writer: Writer) -> None:
    spec = f"cityscapes:{cityscapes}"
    with pytest.raises(DataError, match=r"leftImg8bit/val: no such folder; give Cityscapes' root"):
        open_data(spec, "val", SIZE)
    ids = cityscapes / "gtFine" / "train" / "aachen" / "aachen_0_gtFine_labelIds.png"
    label_writer(ids, [34], (24, 70))
    with pytest.raises(DataError, match=r"label value 34 in 1680 pixels, cityscapes knows 0-33, 255"):
        open_data(spec, "train", SIZE)[0]
    ids.unlink()
    with pytest.raises(DataError, match=r"aachen_0_gtFine_labelIds.png: no label for .*add it"):
        open_data(spec, "train", SIZE)
    for path in (cityscapes / "leftImg8bit" / "train").glob("*/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"unpack leftImg8bit_trainvaltest.zip"):
        open_data(spec, "train", SIZE)


def test_the_original_is_what_is_stored(camvid: Path) -> None:
    data = open_data(f"camvid:{camvid}", "train", (12, 16))
    assert data[3].image.shape == (12, 16, 3)
    original = data.original(3)
    np.testing.assert_array_equal(original.image, np.asarray(Image.open(camvid / "train" / "03.png")))
    assert original.label.shape == (24, 32)
    assert data.original(-2) is original
    with pytest.raises(ValueError, match="read-only"):
        original.image[0, 0, 0] = 1
    with pytest.raises(IndexError):
        data.original(5)


def test_training_crops_are_cut_from_what_is_stored(camvid: Path) -> None:
    """At twice the deployed size, that is at their own resolution, crops hold the stored pixels."""
    data = open_data(f"camvid:{camvid}", "train", (12, 16), crops=Crops((9, 11), (2.0, 2.0)))
    augment = replace(training_augment(data), photometric=False)
    images, labels = training_batch(data, 0, batch_size=2, augment=augment, seed=0)
    assert images.shape == (2, 3, 9, 11) and labels.shape == (2, 9, 11)
    stored = [np.asarray(Image.open(path)) for path in sorted((camvid / "train").iterdir())]
    windows = {
        image[y : y + 9, x : x + 11][:, ::turn].tobytes()
        for image in stored
        for y in range(16)
        for x in range(22)
        for turn in (1, -1)
    }
    for image in images:
        pixels = (image * 128 + 128).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        assert pixels.tobytes() in windows
