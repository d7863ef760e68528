"""CamVid as it is published: colours, lists of names, codes; and every way in which these can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import IGNORE, Dataset, open_data
from nas.data.camvid_colors import CLASSES, GROUPS, OFFICIAL, VOID
from nas.errors import DataError

SIZE = (24, 64)
COLORS = np.array(list(OFFICIAL.values()), np.uint8)
NAMES = list(OFFICIAL)
EXPECTED = [
    IGNORE if name == "Void" else next(i for i, group in enumerate(CLASSES) if name in GROUPS[group]) for name in NAMES
]
STRIPES = np.tile(np.arange(64) // 2, (24, 1))
"""The 32 official classes, two pixels wide each."""


def opened(root: Path, split: str = "train") -> Dataset:
    return open_data(f"camvid:{root}", split, SIZE)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def save_images(folder: Path, *stems: str) -> None:
    for i, stem in enumerate(stems):
        save(folder / f"{stem}.png", np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8))


def colors_file(root: Path) -> None:
    lines = [f"{r} {g} {b}\t\t{name}" for name, (r, g, b) in OFFICIAL.items()]
    (root / "label_colors.txt").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())


def class_dict(root: Path) -> None:
    lines = ["name,r,g,b", *(f"{name},{r},{g},{b}" for name, (r, g, b) in OFFICIAL.items())]
    (root / "class_dict.csv").write_text("\n".join(lines))


def test_the_groups_hold_every_official_class_once() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(set(grouped)) == len(grouped) and set(OFFICIAL) <= set(grouped)
    assert len(set(OFFICIAL.values())) == len(OFFICIAL) == 32
    assert len(CLASSES) == 11 and VOID not in CLASSES


@pytest.mark.parametrize("describe", [colors_file, class_dict, lambda root: None])
@pytest.mark.parametrize("mode", [None, "P", "RGBA"])
def test_labels_in_colours(tmp_path: Path, describe: Callable[[Path], None], mode: str | None) -> None:
    """The layout with class_dict.csv; a palette, as of `convert` and pngquant, changes no colour."""
    for split in ("train", "val"):
        save_images(tmp_path / split, "0001TP_006690", "0001TP_006720")
        for stem in ("0001TP_006690", "0001TP_006720"):
            image = Image.fromarray(COLORS[STRIPES])
            image = image.quantize(32) if mode == "P" else image.convert(mode or "RGB")
            path = tmp_path / f"{split}_labels" / f"{stem}_L.png"
            path.parent.mkdir(exist_ok=True)
            image.save(path)
    describe(tmp_path)
    for split in ("train", "val"):
        data = opened(tmp_path, split)
        assert len(data) == 2 and data.classes == CLASSES
        for sample in data:
            assert sample.label[0, ::2].tolist() == EXPECTED


def test_colours_in_segnets_folders(tmp_path: Path) -> None:
    """Beside files of class indices, which stay what they are, a colour file there or not."""
    save_images(tmp_path / "train", "a", "b")
    save(tmp_path / "trainannot" / "a_L.png", COLORS[STRIPES])
    save(tmp_path / "trainannot" / "b.png", (STRIPES % 12).astype(np.uint8))
    for describe in (lambda root: None, colors_file):
        describe(tmp_path)
        data = opened(tmp_path)
        assert data[0].label[0, ::2].tolist() == EXPECTED
        assert data[1].label[0, ::2].tolist() == [i % 12 if i % 12 < 11 else IGNORE for i in range(32)]


def original(root: Path) -> None:
    save_images(root / "701_StillsRaw_full", "a", "b", "c", "d")
    for stem in "abcd":
        save(root / "LabeledApproved_full" / f"{stem}_L.png", COLORS[STRIPES])


def test_the_original_with_lists(tmp_path: Path) -> None:
    """Lists as SegNet's, as from Windows, and of bare names."""
    original(tmp_path)
    (tmp_path / "train.txt").write_bytes(
        b"\xef\xbb\xbf/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\r\nC:\\camvid\\train\\C.jpg\r\n\r\n"
    )
    (tmp_path / "Val.txt").write_text("b\n")
    assert [pair.image.name for pair in opened(tmp_path).pairs] == ["a.png", "c.png"]  # type: ignore[attr-defined]
    assert [pair.image.name for pair in opened(tmp_path, "val").pairs] == ["b.png"]  # type: ignore[attr-defined]
    assert opened(tmp_path)[1].label[0, ::2].tolist() == EXPECTED


def test_fast_ai_with_codes(tmp_path: Path) -> None:
    save_images(tmp_path / "images", "a", "b", "c")
    for stem in "abc":
        save(tmp_path / "labels" / f"{stem}_P.png", STRIPES.astype(np.uint8))
    (tmp_path / "codes.txt").write_text("\n".join(NAMES))
    (tmp_path / "valid.txt").write_text("b.png\n")
    train, val = opened(tmp_path), opened(tmp_path, "val")
    assert (len(train), len(val)) == (2, 1)
    assert train[1].label[0, ::2].tolist() == val[0].label[0, ::2].tolist() == EXPECTED


def test_void_is_255_too(camvid: Path, label_writer: Callable[..., None]) -> None:
    label_writer(camvid / "trainannot" / "00.png", [0, 10, 11, 255])
    assert opened(camvid)[0].label[0, ::16].tolist() == [0, 10, IGNORE, IGNORE]


def in_colours(root: Path) -> None:
    save_images(root / "train", "a")
    save(root / "train_labels" / "a_L.png", COLORS[STRIPES])


def blurred(root: Path) -> None:
    in_colours(root)
    pixels = COLORS[STRIPES].copy()
    pixels[3, 4] = (1, 2, 3)
    save(root / "train_labels" / "a_L.png", pixels)


def as_jpeg(root: Path) -> None:
    in_colours(root)
    (root / "train_labels" / "a_L.png").unlink()
    save(root / "train_labels" / "a.jpg", COLORS[STRIPES])


def described(text: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        in_colours(root)
        (root / "label_colors.txt").write_text(text)

    return build


def no_lists(root: Path) -> None:
    original(root)


def a_list_too_long(root: Path) -> None:
    original(root)
    (root / "train.txt").write_text("a\nz.png\n")


def unknown_code(root: Path) -> None:
    save_images(root / "images", "a")
    save(root / "labels" / "a_P.png", STRIPES.astype(np.uint8))
    (root / "codes.txt").write_text("Sky\nUnicorn\n")


def empty_stills(root: Path) -> None:
    (root / "701_StillsRaw_full").mkdir()
    (root / "LabeledApproved_full").mkdir()


def only_images(root: Path) -> None:
    save_images(root / "train", "a")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (blurred, r"a_L\.png: colour 1,2,3 and others in 1 pixels, CamVid has 32 colours without them"),
        (as_jpeg, r"a\.jpg: a label in JPEG has lost its values; export it as a\.png"),
        (
            described("64 128 64 Animal\nblue Sky\n"),
            r"label_colors\.txt: 'blue Sky': give each line as 'RED GREEN BLUE",
        ),
        (described("64 128 264 Animal\n"), r"'64 128 264 Animal': red, green and blue are 0 to 255"),
        (described("64 128 64 Unicorn\n"), r"'Unicorn' is none of CamVid's 32 classes"),
        (described("\n"), r"label_colors\.txt: no colour in it"),
        (described("64 128 64 Animal\n"), r"label_colors\.txt has 1 colours without them; name each colour there"),
        (no_lists, r"which images are for training\? 701_StillsRaw_full/ holds .*add train\.txt and val\.txt"),
        (a_list_too_long, r"train\.txt: names 'z\.png', which .*701_StillsRaw_full lacks; add the image or remove"),
        (unknown_code, r"codes\.txt: 'Unicorn' is none of CamVid's"),
        (empty_stills, r"701_StillsRaw_full: holds no image that can be read; unpack"),
        (only_images, r"trainannot: no such folder; .*or train_labels/; 701_StillsRaw_full/ and LabeledApproved_full/"),
    ],
)
def test_what_is_wrong_with_a_layout(tmp_path: Path, build: Callable[[Path], None], says: str) -> None:
    build(tmp_path)
    with pytest.raises(DataError, match=says) as caught:
        opened(tmp_path)[0]
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_label_drawn_on_pixels_as_stored_is_named(camvid: Path) -> None:
    """Turned by a quarter it does not fit; turned by half it would, so that the whole set is to be looked at."""
    tag = Image.Exif()
    tag[0x0112] = 6
    with Image.open(camvid / "train" / "02.png") as image:
        image.save(camvid / "train" / "02.png", exif=tag)
    with pytest.raises(DataError, match=r"02\.png: 32x24, but .* is 24x32 as its EXIF orientation turns it; turn the"):
        opened(camvid)[2]


def test_a_turned_photo_trains_on_labels_of_the_right_half(camvid: Path, label_writer: Callable[..., None]) -> None:
    tag = Image.Exif()
    tag[0x0112] = 3
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:, :16] = 255  # the left half, once turned the right one
    Image.fromarray(pixels).save(camvid / "train" / "00.png", exif=tag)
    label_writer(camvid / "trainannot" / "00.png", [0, 1])
    sample = opened(camvid).original(0)
    assert (sample.image[sample.label == 1] == 255).all() and (sample.image[sample.label == 0] == 0).all()
