"""One image file: upright, 8 bits per channel, or one error that names it, whatever Pillow raises.

EXIF's orientation is applied, as by the viewers in which labels are drawn. 16 bits become the upper 8 of them, as
Pillow reads 16-bit colour. Of several frames the first is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from nas.errors import DataError

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".tga", ".pcx", ".qoi"),
    }
)
"""File name extensions of images. What is in a file counts, not what it is called: a .png may hold a JPEG."""

# All that Pillow decodes itself: a file is never handed to another program (EPS: Ghostscript). TGA, which has no
# signature, is tried last.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "PCX", "QOI", "TGA")

ORIENTATION = 0x0112  # EXIF's tag
TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTER_TURNED = 5  # from this orientation on height and width change places
EXTRA_BITS = {"I;12": 4}  # of 16, by Pillow's raw mode, where it is not 8: 12-bit TIFF keeps its values
GREY_STEPS = {"L;2": 85, "L;4": 17}  # by which Pillow multiplies the values of a PNG of 2 or 4 bits

BEGINNINGS: Mapping[bytes, str] = {
    b"version https://git-lfs": "a Git LFS pointer, not the image; run `git lfs pull` in its repository",
    b"<!doctype html": "an HTML page, not the image: its download failed; download it again",
    b"<html": "an HTML page, not the image: its download failed; download it again",
    b"<?xml": "XML (SVG?), not pixels; export it as PNG",
    b"<svg": "an SVG drawing; export it as PNG",
    b"%pdf": "a PDF document; export it as PNG",
    b"%!ps": "PostScript; export it as PNG",
    b"pk\x03\x04": "a zip file; unpack it",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"\x93numpy": "a NumPy array; save it as PNG",
    b"#?radiance": "a Radiance HDR image; convert it to PNG",
    b"v/1\x01": "an OpenEXR image; convert it to PNG",
}
"""What a file is that is no image of FORMATS, by its first bytes in lower case, and what to do."""
HEIC = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc")
HEIC_ADVICE = "an HEIC photo, which Pillow does not read; convert it to JPEG (heif-convert, or the phone's settings)"


@dataclass(frozen=True)
class ImageFacts:
    """How an image is stored.

    Attributes:
        format: Pillow's name of it, as "JPEG".
        mode: of its pixels before they become RGB, as "CMYK".
        orientation: EXIF's, 1 (upright) to 8; 1 where TIFF's decoder has applied it.
        alpha: whether it has transparent colours, which are read as if they were not.
        animated: whether it has more frames than the first.
    """

    format: str
    mode: str
    orientation: int
    alpha: bool
    animated: bool


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The image, uint8 (H, W, 3).

    Raises:
        DataError: there is none, or its numbers have no fixed white.
    """
    with opened(path) as image:
        return np.array(_upright(_eight_bits(image, path)).convert("RGB"))


def read_facts(path: Path) -> ImageFacts:
    """How the image is stored; raises as `read_rgb`."""
    with opened(path) as image:
        image.load()
        alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
        animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))  # a camera's JPEG has previews
        name = "JPEG" if image.format == "MPO" else image.format or "?"
        return ImageFacts(name, image.mode, _orientation(image), alpha, animated)


def verified_size(path: Path) -> tuple[int, int]:
    """(H, W) of the upright image, whose file is whole as far as that shows without all of its pixels.

    A PNG's checksums are compared, a JPEG is decoded at an eighth of its size. Other formats are read, and what does
    not hold: the pixels may all be there. Raises as `read_rgb`.
    """
    try:
        with opened(path) as image:
            width, height = image.size
            if image.format == "PNG" and image.mode not in ("I", "F"):
                turned = _orientation(image) >= QUARTER_TURNED
                image.verify()
                return (width, height) if turned else (height, width)
            if image.format in ("JPEG", "MPO"):
                image.draft(None, (max(1, width // 8), max(1, height // 8)))
                image.load()
                return (width, height) if _orientation(image) >= QUARTER_TURNED else (height, width)
    except DataError:
        pass
    height, width, _ = read_rgb(path).shape
    return height, width


def checksums_hold(path: Path) -> bool:
    """False for a PNG whose file is cut or changed, perhaps where no pixel shows it."""
    try:
        with opened(path) as image:
            if image.format == "PNG":
                image.verify()
    except DataError:
        return False
    return True


def read_values(path: Path) -> NDArray[np.uint8]:
    """A label file as stored: uint8 (H, W), or (H, W, 3) where the channels differ.

    Raises:
        DataError: there is no image, or a value is above 255.
    """
    with opened(path) as image:
        step = GREY_STEPS.get(_raw_mode(image), 1)
        stored = _upright(image)
        if stored.mode == "1":
            return np.array(stored, np.uint8)
        if stored.mode in ("L", "P"):
            return np.array(stored) // np.uint8(step)
        if stored.mode in ("LA", "PA"):
            return np.array(stored.getchannel(0))
        if stored.mode in ("RGB", "RGBA"):
            colors = np.array(stored)[:, :, :3]
            alike = (colors == colors[:, :, :1]).all()  # a grey image that a program stored as colour
            return colors[:, :, 0] if alike else colors
        if stored.mode.startswith("I"):
            values = np.asarray(stored)
            if values.size and not 0 <= values.min() <= values.max() <= 255:
                raise DataError(
                    f"{path}: label value {values.max()}; a label holds class indices from 0 to 255: map the values"
                )
            return values.astype(np.uint8)
        raise DataError(
            f"{path}: a label must be 8-bit with one channel, this one is {stored.mode}; store class indices as PNG"
        )


def read_colors(path: Path) -> NDArray[np.uint8]:
    """A label file as the colours that it shows: uint8 (H, W, 3); raises as `read_rgb`."""
    return read_rgb(path)


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The image of a file, not decoded; whatever goes wrong with it is a `DataError` that names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(f"{path}: a link to {path.readlink()}, which is not there; restore it") from error
        raise DataError(f"{path}: gone since the data set was opened; restore it and open it again") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: too large, or damaged ({_reason(error)}); reduce the image or copy the file anew"
        ) from error
    except MemoryError as error:
        raise DataError(f"{path}: does not fit into memory, or is damaged; reduce it or copy the file anew") from error
    except Exception as error:  # decoders raise what their code meets: struct.error, KeyError, SyntaxError, zlib.error
        raise DataError(_what_is_wrong(path, error)) from error


def _what_is_wrong(path: Path, error: Exception) -> str:
    if path.is_dir():
        return f"{path}: a folder with the name of an image; rename or remove it"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{path}: cannot be read ({error.strerror}); fix its rights or the disk, then run again"
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError:
        head = b"?"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return f"{path}: an empty file; copy it anew"
    if start[4:8] == b"ftyp" and start[8:12] in HEIC:
        return f"{path}: {HEIC_ADVICE}"
    if known := next((text for beginning, text in BEGINNINGS.items() if start.startswith(beginning)), None):
        return f"{path}: {known}"
    reason = "no known format, or damaged" if isinstance(error, UnidentifiedImageError) else _reason(error)
    return f"{path}: cannot be read as an image ({reason}); copy the file anew"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's word for how the file stores its numbers; known until the image is decoded."""
    arguments = image.tile[0].args if image.tile else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _eight_bits(image: ImageFile.ImageFile, path: Path) -> Image.Image:
    """The decoded image; grey of 16 bits at 8. `Image.convert` would clip it."""
    bits = EXTRA_BITS.get(_raw_mode(image), 8)
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        grey = Image.fromarray((np.asarray(image) >> bits).astype(np.uint8))
        grey.info = image.info
        return grey
    if image.mode in ("I", "F"):
        raise DataError(
            f"{path}: pixels of 32 bits ({image.mode}) have no fixed white; save it with 8 or 16 bits per channel"
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 where it has none. XMP may repeat it, and is out of date where an editor has turned the pixels."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        value = exif.get(ORIENTATION, 1)
        return value if value in TURNS else 1
    except Exception:  # damaged metadata of a good image
        return 1
