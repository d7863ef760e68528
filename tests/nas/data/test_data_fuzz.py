"""Damaged and made-up files: an image, or one `DataError` that names the file.

HILNAS_FUZZ=100000 pytest tests/nas/data/test_data_fuzz.py
"""

from __future__ import annotations

import io
import os
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from nas.data.camvid_colors import read_codes, read_palette
from nas.data.files import Pair, PairedFiles
from nas.data.folders import open_folders
from nas.data.images import FORMATS, read_facts, read_rgb, read_values, verified_size
from nas.data.labels import Palette, label_table
from nas.data.names import printable, same_name
from nas.errors import DataError

INPUTS = int(os.environ.get("HILNAS_FUZZ", "1000"))
SHARE_OF_TEXT = 0.1
LARGEST_PX = 2**22  # what a damaged header may ask for here: Pillow's own limit is 2**27, and seconds

TEXTS = (
    b"64 128 64\tAnimal\r\n0 0 0 Void\n",
    b"\xef\xbb\xbfname,r,g,b\nSky,128,128,128\n",
    "n01440764 tench, Tinca tinca\ncat größer\n".encode("utf-16"),
    b"Animal\nArchway\nBicyclist\n",
)


def seeds() -> list[bytes]:
    """Small images of every format, in several modes."""
    rng, made = np.random.default_rng(0), list[bytes]()
    picture = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (7, 9), np.uint16))
    tag = Image.Exif()
    tag[0x0112] = 6
    for name in FORMATS:
        if name == "AVIF" and not features.check("avif"):
            continue
        for mode in ("RGB", "L", "P", "1", "RGBA", "LA", "I;16", "CMYK"):
            image = deep if mode == "I;16" else picture.convert(mode)
            for options in ({}, {"exif": tag}, {"compression": "tiff_lzw"}, {"progressive": True}):
                file = io.BytesIO()
                try:
                    image.save(file, name, **options)
                except (OSError, ValueError, KeyError):
                    continue
                made.append(file.getvalue())
    return sorted(set(made))


def damaged(rng: random.Random, content: bytes, other: bytes) -> bytes:
    """Bits turned, numbers changed, ends cut, parts of another file, repeated, or noise."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(data)))
        way = rng.randrange(7)
        if way == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\1\0"))
        elif way == 2:
            del data[at:]
        elif way == 3:
            data[at : at + rng.randint(1, 40)] = other[at : at + rng.randint(1, 40)]
        elif way == 4:
            data[at:at] = rng.randbytes(rng.randint(1, 20))
        elif way == 5:
            del data[at : at + rng.randint(1, 20)]
        else:
            data[min(at, 40) : min(at, 40) + 2] = rng.randbytes(2)  # of headers
    return bytes(data)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LARGEST_PX // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_images_and_labels(tmp_path: Path, quiet: None) -> None:
    rng, made, read, refused = random.Random(f"{INPUTS}"), seeds(), 0, 0
    image, label = tmp_path / "image.png", tmp_path / "label.png"
    palette = Palette({(0, 0, 0): 0, (255, 255, 255): 1}, "CamVid")
    pair = PairedFiles(
        "fuzzed", ("a",) * 256, (8, 8), (Pair(image, label),), {"": label_table({0: 0})}, palette=palette
    )
    Image.new("L", (9, 7)).save(label)
    readers = (read_rgb, read_values, verified_size, read_facts, lambda _: pair.examine(0, fully=False))
    for i in range(round(INPUTS * (1 - SHARE_OF_TEXT))):
        content = (
            rng.randbytes(rng.randint(0, 200)) if i % 50 == 0 else damaged(rng, rng.choice(made), rng.choice(made))
        )
        image.write_bytes(content)
        try:
            readers[i % len(readers)](image)
            read += 1
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{tmp_path}/") and "\n" not in str(error) and len(str(error)) < 600
        except BaseException:
            (tmp_path / f"fuzzed-{i}.bin").write_bytes(content)  # to look into
            raise
    assert min(read, refused) > INPUTS / 20  # neither are all beyond reading, nor is nothing damaged


def test_texts_and_names(tmp_path: Path) -> None:
    rng = random.Random(f"{INPUTS}")
    path = tmp_path / "labels.txt"
    for split in ("train", "val"):
        for name in ("cat", "n01440764"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.png").write_bytes(b"")
    readers = (
        lambda: read_palette(path, always=True),
        lambda: read_codes(path),
        lambda: open_folders(tmp_path, "val", (8, 8)),
    )
    for i in range(round(INPUTS * SHARE_OF_TEXT)):
        content = damaged(rng, rng.choice(TEXTS), rng.choice(TEXTS))
        path.write_bytes(content)
        try:
            readers[i % len(readers)]()
        except DataError as error:
            assert str(error).startswith(f"{path}: ")
        name = os.fsdecode(content[:30])
        printable(name).encode("utf8")
        same_name(name)
