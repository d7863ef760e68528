"""Images for an application: read by Pillow, by OpenCV or as PPM, resized as in training, written as PNG.

Needs Python 3.9 and numpy; Pillow and OpenCV are used where they are there. `numpy` is passed in, so that importing
this costs nothing.
"""

from __future__ import annotations

import importlib
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PPM = re.compile(rb"P6(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+255\s", re.ASCII)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
OVERLAY = 0.5  # the classes' share of an overlay
TOP_BYTE = 255


class Unreadable(Exception):  # noqa: N818
    """An image that cannot be read here; its text says what to do."""


def optional(name: str) -> Any:
    """A module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def read_image(numpy: Any, path: Path) -> Any:
    """uint8 (H, W, 3), RGB, upright."""
    pillow = optional("PIL.Image")
    if path.suffix.lower() == ".ppm":
        return read_ppm(numpy, path)
    if pillow is not None:
        try:
            with pillow.open(path) as image:
                return numpy.array(importlib.import_module("PIL.ImageOps").exif_transpose(image).convert("RGB"))
        except (OSError, ValueError) as error:
            raise Unreadable(f"{path}: {error}") from None
    opencv = optional("cv2")
    if opencv is None:
        raise Unreadable(f"{path}: neither Pillow nor OpenCV is installed here; give a binary PPM (P6)")
    image = opencv.imread(str(path), opencv.IMREAD_COLOR)
    if image is None:
        raise Unreadable(f"{path}: no image that OpenCV reads")
    return numpy.ascontiguousarray(image[..., ::-1])


def read_ppm(numpy: Any, path: Path) -> Any:
    data = path.read_bytes()
    header = PPM.match(data)
    if header is None:
        raise Unreadable(f"{path}: no binary PPM (P6) of 8 bits")
    width, height = int(header[1]), int(header[2])
    if len(data) - header.end() < 3 * width * height:
        raise Unreadable(f"{path}: ends before its last pixel; copy it again")
    return numpy.frombuffer(data, numpy.uint8, 3 * width * height, header.end()).reshape(height, width, 3)


def fitted(numpy: Any, image: Any, size: Sequence[int]) -> Any:
    """At (H, W): Pillow's bilinear filter, which averages what it shrinks; without Pillow the same one in numpy."""
    if image.shape[:2] == tuple(size):
        return image
    pillow = optional("PIL.Image")
    if pillow is not None:
        return numpy.asarray(pillow.fromarray(image).resize((size[1], size[0]), pillow.BILINEAR))
    columns, rows = weights(numpy, image.shape[1], size[1]), weights(numpy, image.shape[0], size[0])
    across = rounded(numpy, numpy.tensordot(columns, image.astype(numpy.float32), (1, 1)))  # (W, h, 3)
    return rounded(numpy, numpy.tensordot(rows, across.astype(numpy.float32), (1, 1)))  # (H, W, 3)


def weights(numpy: Any, before: int, after: int) -> Any:
    """(after, before): what each pixel of one axis takes of those before, a triangle as wide as a new pixel."""
    scale = before / after
    centres = (numpy.arange(after) + 0.5) * scale
    distance = numpy.abs(numpy.arange(before) + 0.5 - centres[:, None]) / max(scale, 1.0)
    shares = numpy.maximum(0.0, 1.0 - distance)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(numpy.float32)


def rounded(numpy: Any, values: Any) -> Any:
    return numpy.floor(values + 0.5).clip(0, TOP_BYTE).astype(numpy.uint8)


def overlay(numpy: Any, image: Any, classes: Any, colours: Any) -> Any:
    """uint8 (H, W, 3): the image under its classes' colours; a class map of another size is enlarged to the nearest."""
    rows, columns = (numpy.arange(n) * m // n for n, m in zip(image.shape[:2], classes.shape))  # noqa: B905
    painted = colours[classes[rows][:, columns]]
    return rounded(numpy, (1 - OVERLAY) * image + OVERLAY * painted)


def png(numpy: Any, pixels: Any, colours: Any = None) -> bytes:
    """A PNG of uint8 (H, W, 3), or of (H, W) that are entries of `colours` (N, 3)."""
    height, width = pixels.shape[:2]
    kind = 2 if pixels.ndim == 3 else 3
    lines = numpy.zeros((height, 1 + pixels[0].size), numpy.uint8)  # a filter of 0 before each line
    lines[:, 1:] = pixels.reshape(height, -1)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))]
    if kind == 3:
        parts.append((b"PLTE", numpy.asarray(colours, numpy.uint8).tobytes()))
    parts += [(b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(body)) + name + body + checked(name + body) for name, body in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def checked(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))
