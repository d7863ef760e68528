"""One image file: upright, scaled, of every common format, and named by whatever goes wrong with it."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from nas.data.images import SUFFIXES, checksums_hold, read_facts, read_rgb, read_values, verified_size
from nas.errors import DataError

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def png(path: Path, size: tuple[int, int], depth: int, color: int, rows: bytes) -> Path:
    """A PNG as Pillow does not write it: `rows` are packed lines, (H, W) = `size`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    length = max(1, len(rows) // size[0])
    filtered = b"".join(b"\0" + rows[i : i + length] for i in range(0, len(rows), length))
    header = struct.pack(">IIBBBBB", size[1], size[0], depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(filtered)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"photo{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(PICTURE).save(path, exif=exif(orientation), **options)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert verified_size(path) == expected.shape[:2]
    if suffix != ".jpg":
        turned = {1: PICTURE, 3: PICTURE[::-1, ::-1], 6: np.rot90(PICTURE, -1), 8: np.rot90(PICTURE)}
        if orientation in turned:
            np.testing.assert_array_equal(read_rgb(path), turned[orientation])


@pytest.mark.parametrize("block", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0nonsense", exif(9).tobytes()])
def test_damaged_metadata_leave_the_image_as_it_is(tmp_path: Path, block: bytes) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PICTURE).save(path, exif=block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(read_rgb(path), PICTURE)


def test_an_orientation_of_xmp_alone_turns_nothing(tmp_path: Path) -> None:
    """Editors that turn the pixels drop EXIF's and forget the copy."""
    path = tmp_path / "photo.png"
    Image.fromarray(PICTURE).save(path, xmp=b'<x:xmpmeta tiff:Orientation="3"></x:xmpmeta>')
    np.testing.assert_array_equal(read_rgb(path), PICTURE)


def test_grey_of_16_bits_is_scaled(tmp_path: Path) -> None:
    """As Pillow reads colour of 16 bits: the same picture, stored in either way, is the same."""
    upper = (RAMP >> 8).astype(np.uint8)
    rows = RAMP.astype(">u2")
    grey = png(tmp_path / "grey.png", RAMP.shape, 16, 0, rows.tobytes())
    color = png(tmp_path / "color.png", RAMP.shape, 16, 2, rows[:, :, None].repeat(3, axis=2).tobytes())
    Image.fromarray(RAMP).save(tmp_path / "grey.tif")
    (tmp_path / "grey.pgm").write_bytes(b"P5 256 256 65535\n" + rows.tobytes())
    for path in (grey, color, tmp_path / "grey.tif", tmp_path / "grey.pgm"):
        np.testing.assert_array_equal(read_rgb(path), np.dstack([upper] * 3), err_msg=path.name)


def test_numbers_without_a_fixed_white_are_refused(tmp_path: Path) -> None:
    for name, values in {"int.tif": np.int32(7), "float.tif": np.float32(0.5)}.items():
        Image.fromarray(np.full((4, 4), values)).save(tmp_path / name)
        with pytest.raises(DataError, match=rf"{name}: pixels of 32 bits \([IF]\) have no fixed white; save it with 8"):
            read_rgb(tmp_path / name)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "RGBA", "LA", "CMYK"])
def test_what_was_read_rightly_before_is_read_alike(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.fromarray(PICTURE).convert(mode).save(path)
    np.testing.assert_array_equal(read_rgb(path), np.array(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_common_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    options = {".webp": {"lossless": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}.get(suffix, {})
    mode = {".pgm": "L", ".pbm": "1", ".gif": "P"}.get(suffix, "RGB")
    image = Image.fromarray(PICTURE).convert(mode)
    image.save(path, format={".pnm": "PPM", ".dib": "DIB", ".apng": "PNG", ".jpx": "JPEG2000"}.get(suffix), **options)
    read = read_rgb(path)
    assert read.shape == PICTURE.shape and verified_size(path) == PICTURE.shape[:2]
    if suffix not in (".jpg", ".jpeg", ".jpe", ".jfif", ".avif", ".jp2", ".j2k", ".jpx"):
        np.testing.assert_array_equal(read, np.asarray(image.convert("RGB")))
    assert read_facts(path).format == Image.registered_extensions().get(suffix, "PPM")


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 4), color) for color in ("red", "blue")]
    for suffix in (".gif", ".webp", ".png", ".tif"):
        path = tmp_path / f"moving{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        red, _, blue = read_rgb(path)[0, 0].tolist()
        assert red > 250 and blue < 5, suffix
        assert read_facts(path).animated


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def cut_png(path: Path) -> None:
    Image.fromarray(PICTURE).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:60])


def huge(path: Path) -> None:
    png(path, (60_000, 60_000), 8, 0, b"")


def loop_of_links(path: Path) -> None:
    path.symlink_to(path)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (write(b""), "an empty file; copy it anew"),
    "text": (write(b"hello\nworld"), "no known format"),
    "cut": (cut_png, "copy the file anew"),
    "pointer": (write(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"), "Git LFS pointer.*git lfs pull"),
    "page": (write(b"\n<!DOCTYPE html><html>404"), "an HTML page, not the image.*download it again"),
    "marked page": (write(b"\xef\xbb\xbf<html>"), "an HTML page"),
    "heic": (write(b"\0\0\0\x18ftypheic\0\0\0\0mif1"), "an HEIC photo.*convert it to JPEG"),
    "svg": (write(b"<svg xmlns='x'/>"), "an SVG drawing; export it as PNG"),
    "postscript": (write(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "PostScript; export it as PNG"),
    "zip": (write(b"PK\x03\x04"), "a zip file; unpack it"),
    "folder": (Path.mkdir, "a folder with the name of an image"),
    "gone": (lambda path: None, "gone since the data set was opened"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "a link to nowhere, which is not there"),
    "link to itself": (loop_of_links, "cannot be read .*symbolic links"),
    "bomb": (huge, "too large, or damaged"),
    "many zeros": (write(bytes(4096)), "no known format"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_for_what_it_is(tmp_path: Path, kind: str) -> None:
    spoil, says = BAD[kind]
    path = tmp_path / "image.png"
    spoil(path)
    for read in (read_rgb, read_values, verified_size, read_facts):
        with pytest.raises(DataError, match=f"^{path}: .*{says}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), struct.error("unpack"), KeyError(7), RuntimeError(), IndexError("x")])
def test_whatever_a_decoder_raises_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    path = tmp_path / "image.png"
    Image.fromarray(PICTURE).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(DataError, match=rf"^{path}: .*copy the file anew"):
        read_rgb(path)


def test_a_jpeg_cut_short_shows_without_all_of_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)).save(path)
    assert verified_size(path) == (400, 300)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="truncated"):
        verified_size(path)


def test_a_png_whose_pixels_are_all_there_is_read_and_noticed(tmp_path: Path) -> None:
    """Its end is cut, as by a program that was killed: Pillow reads it, and what is checked is what is read."""
    path = tmp_path / "image.png"
    Image.fromarray(PICTURE).save(path)
    assert checksums_hold(path)
    path.write_bytes(path.read_bytes()[:-14])
    assert not checksums_hold(path)
    assert verified_size(path) == PICTURE.shape[:2]
    np.testing.assert_array_equal(read_rgb(path), PICTURE)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="truncated"):
        verified_size(path)


def packed(values: NDArray[np.uint8], bits: int) -> bytes:
    """Lines of values of a few bits each."""
    spread = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - bits :]
    return np.packbits(spread.reshape(len(values), -1), axis=1).tobytes()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_label_values_are_what_the_file_stores(tmp_path: Path, bits: int) -> None:
    """Of grey with few bits Pillow gives multiples, and of many it would give none."""
    values = np.arange(64, dtype=np.uint8).reshape(4, 16) % min(2**bits, 12)
    rows = values.astype(">u2").tobytes() if bits == 16 else packed(values, bits)
    np.testing.assert_array_equal(read_values(png(tmp_path / "label.png", values.shape, bits, 0, rows)), values)


def test_grey_labels_that_were_stored_as_colour_are_values(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for mode in ("RGB", "RGBA", "LA"):
        Image.fromarray(values).convert(mode).save(tmp_path / "label.png")
        np.testing.assert_array_equal(read_values(tmp_path / "label.png"), values)
    Image.fromarray(PICTURE).save(tmp_path / "label.png")
    np.testing.assert_array_equal(read_values(tmp_path / "label.png"), PICTURE)


def test_a_label_value_above_255_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 24001, np.uint16)).save(tmp_path / "label.png")
    with pytest.raises(DataError, match=r"label.png: label value 24001; .*from 0 to 255"):
        read_values(tmp_path / "label.png")
