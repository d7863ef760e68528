"""Every file of a data set is read: what is odd or bad about it, what it holds, which pictures are in both splits."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import Dataset, open_data
from nas.data.check import check_samples, in_threads
from nas.data.report import DataReport, SplitReport, SplitTally, in_both

SIZE = (24, 32)


@pytest.fixture
def pets(folders: Path, image_writer: Callable[..., None]) -> Path:
    """`folders`, with another picture in every file."""
    for seed, path in enumerate(sorted(folders.glob("*/*/*"))):
        image_writer(path, seed=seed)
    return folders


def tally(data: Dataset, split: str = "train", threads: int | None = 3) -> SplitTally:
    added = SplitTally(data, split)
    for sample in check_samples(data, threads=threads):
        added.add(sample)
    return added


def checked(spec: str, split: str = "train") -> SplitReport:
    return tally(open_data(spec, split, SIZE, warn=False), split).report()


def test_what_a_good_data_set_holds(camvid: Path) -> None:
    report = checked(f"camvid:{camvid}")
    assert (report.images, report.sizes, report.stored_as) == (5, {"24x32": 5}, {"PNG RGB": 5})
    assert report.values == ("0-11",) and not report.odd and not report.bad
    assert [count.images for count in report.counts] == [5] * 11
    pixels = [count.pixels for count in report.counts]
    assert sum(pixels) + report.unlabelled == 5 * 24 * 32 and report.unlabelled == 5 * 24 * 2
    columns = np.arange(12)[np.arange(32) * 12 // 32]
    assert pixels == [5 * 24 * int((columns == i).sum()) for i in range(11)]


def test_classes_of_folders_are_counted(folders: Path) -> None:
    report = checked(f"folders:{folders}")
    assert [(count.name, count.pixels, count.images) for count in report.counts] == [
        *(("cat", 0, 4), ("dog", 0, 2), ("newt", 0, 3))
    ]
    assert report.stored_as == {"PNG RGB": 5, "JPEG RGB": 4} and report.values == () and report.unlabelled == 0


def test_generated_images_have_no_files() -> None:
    report = tally(open_data("shapes", "val", SIZE, count=5)).report()
    assert report.images == 5 and report.stored_as == {"generated": 5} and not report.bad and not report.odd


def test_the_report_does_not_depend_on_the_threads(camvid: Path) -> None:
    data = open_data(f"camvid:{camvid}", "train", SIZE)
    assert tally(data, threads=1).report() == tally(data, threads=8).report()


def test_every_bad_file_is_reported_and_the_others_are_read(camvid: Path, label_writer: Callable[..., None]) -> None:
    (camvid / "train" / "01.png").write_bytes(b"")
    label_writer(camvid / "trainannot" / "03.png", [0, 200])
    report = checked(f"camvid:{camvid}")
    assert report.images == 5 and sum(report.sizes.values()) == 3
    empty, wrong = report.bad
    assert empty == f"{camvid}/train/01.png: an empty file; copy it anew"
    assert wrong.startswith(f"{camvid}/trainannot/03.png: label value 200")


def odd(report: SplitReport) -> dict[str, list[str]]:
    return {one.what: [Path(file).name for file in one.files] for one in report.odd}


def test_what_is_odd_is_named(pets: Path) -> None:
    cat, tag = pets / "train" / "cat", Image.Exif()
    tag[0x0112] = 6
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 9, 3), np.uint8))
    picture.save(cat / "turned.jpg", exif=tag)
    picture.convert("CMYK").save(cat / "print.jpg")
    picture.convert("RGBA").save(cat / "clear.png")
    picture.save(cat / "named.png", format="JPEG", quality=50)
    Image.fromarray(np.arange(72, dtype=np.uint16).reshape(8, 9) * 900).save(cat / "deep.png")
    Image.fromarray(np.arange(72, dtype=np.uint16).reshape(8, 9) * 50).save(cat / "dark.png")
    Image.new("RGB", (8, 9), "red").save(cat / "red.png")
    picture.rotate(180).save(cat / "moving.gif", save_all=True, append_images=[Image.new("RGB", (9, 8))])
    picture.rotate(90, expand=True).save(cat / "short.png")
    (cat / "short.png").write_bytes((cat / "short.png").read_bytes()[:-14])
    found = odd(checked(f"folders:{pets}"))
    assert found == {
        "turned upright as their EXIF orientation says": ["turned.jpg"],
        "of printing colours (CMYK), which are converted without a profile": ["print.jpg"],
        "partly transparent, which is ignored": ["clear.png"],
        "stored as JPEG under the name of PNG": ["named.png"],
        "of 16 bits, read at 8": ["dark.png", "deep.png"],
        "almost black": ["dark.png"],
        "of one colour only": ["red.png"],
        "animated: the first frame is read": ["moving.gif"],
        "read, though their files are cut or changed (a checksum does not hold)": ["short.png"],
    }


def test_a_label_without_a_class_is_odd(camvid: Path, label_writer: Callable[..., None]) -> None:
    label_writer(camvid / "trainannot" / "04.png", [11])
    assert odd(checked(f"camvid:{camvid}")) == {"without a labelled pixel": ["04.png"]}


def test_pillows_warnings_name_their_files(pets: Path, recwarn: pytest.WarningsRecorder) -> None:
    """In the thread that reads them, and no other."""
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0e\x01\x02\0\xff\0\0\0\x40\0\0\0"
    for i in (0, 2):
        with Image.open(pets / "train" / "cat" / f"{i}.png") as image:
            image.save(pets / "train" / "cat" / f"{i}.png", exif=damaged)
    found = odd(checked(f"folders:{pets}"))
    assert "read with Pillow's warning 'Tag data larger than file. Skipping tag 270'" in found
    assert all(files == ["0.png", "2.png"] for files in found.values())
    assert not recwarn.list
    for sample in check_samples(open_data(f"folders:{pets}", "train", SIZE)):
        if sample.index == 4:
            warnings.warn("of the caller", UserWarning, stacklevel=1)
    assert [str(one.message) for one in recwarn.list] == ["of the caller"]


def test_a_picture_of_both_splits(pets: Path) -> None:
    """By its pixels, not its file: another container, another name."""
    with Image.open(pets / "train" / "cat" / "0.png") as image:
        image.save(pets / "val" / "dog" / "copy.webp", lossless=True)
        image.save(pets / "train" / "newt" / "again.bmp")
    spec = f"folders:{pets}"
    train, val = (tally(open_data(spec, split, SIZE), split) for split in ("train", "val"))
    report = DataReport(spec, "classification", (), (train.report(), val.report()), in_both(train, val))
    (same,) = report.same
    assert (Path(same.train).name, Path(same.val).name) == ("0.png", "copy.webp")
    (repeated,) = train.report().odd
    assert repeated.what == "of one class and, as the same picture, of another"
    assert repeated.files == (f"{pets}/train/newt/again.bmp (= {pets}/train/cat/0.png)",)


def test_the_fast_form_finds_the_bad_files_and_hashes_the_others(camvid: Path) -> None:
    data = open_data(f"camvid:{camvid}", "train", SIZE)
    whole = list(check_samples(data, fully=False))
    assert len({sample.digest for sample in whole}) == 5 and not any(sample.error for sample in whole)
    path = camvid / "train" / "02.png"
    path.write_bytes(path.read_bytes()[:-200])
    assert [bool(sample.error) for sample in check_samples(data, fully=False)] == [False, False, True, False, False]


def test_the_fast_form_believes_an_orientation_behind_the_pixels(camvid: Path) -> None:
    """A PNG may hold EXIF after its pixels, where verifying it has not looked yet."""
    tag = Image.Exif()
    tag[0x0112] = 6
    path = camvid / "train" / "02.png"
    Image.fromarray(np.zeros((32, 24, 3), np.uint8)).save(path, exif=tag)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    path.write_bytes(content[:start] + content[end:last] + content[start:end] + content[last:])
    (sample,) = (s for s in check_samples(open_data(f"camvid:{camvid}", "train", SIZE), fully=False) if s.index == 2)
    assert sample.error == "" and sample.size == (24, 32)


def test_results_come_in_order_from_several_threads_that_do_not_run_far_ahead() -> None:
    made: list[int] = []
    names: set[str] = set()

    def make(index: int) -> int:
        made.append(index)
        names.add(threading.current_thread().name)
        return index

    found = in_threads(make, range(1000), threads=2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    assert len(made) < 50
    assert list(found) == list(range(3, 1000)) and sorted(made) == list(range(1000)) and len(names) == 2
