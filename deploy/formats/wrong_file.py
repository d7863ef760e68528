"""What a file is that was given as a TFLite model and is none, and what to do about it.

The model's mark is looked for first (deploy/formats/tflite/read.py): a model with metadata is a valid zip too. Nothing
here unpacks or runs what a file holds: its beginning, and a zip's list of names, say what it is.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeAlias

from deploy.formats.wrong_text import MARK, printable, text_of, wrong_text

Found: TypeAlias = "tuple[str, str] | None"
"""What a file is and what to do about it, or that it is something else."""

HEAD_BYTES = 1 << 16
TAR = 257  # where a tar archive has its mark

QUANTIZE = "quantize it: `hilnas quantize FILE --data FOLDER --out DIR`"
QUANTIZE_SAVED_MODEL = "quantize its directory: `hilnas quantize MODEL --data FOLDER --out DIR`"
QUANTIZE_TORCH = (
    "export the network that its weights are of: torch.onnx.export(network.eval(), (example,), 'm.onnx', dynamo=False) "
    "and `hilnas quantize m.onnx`; if a run of this kit made it: `hilnas compile --config CONFIG --weights RUN`"
)
CONVERT_GRAPH = "convert it: tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(FILE, INPUTS, OUTPUTS).convert()"
UNPACK = "unpack it, and give the .tflite in it"
SOURCE = "give the .tflite that it was made from"

MARKS: Sequence[tuple[int, bytes, str, str]] = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it (.h5)", QUANTIZE),
    (0, b"HILNASP", "a model that `hilnas pack` packed", "restore it: `hilnas unpack FILE --out MODEL.tflite`"),
    (0, b"VPMN", "a network binary for one VeriSilicon NPU and driver (.nb)", SOURCE),
    (0, b"LITERTLM", "a LiteRT-LM bundle (.litertlm)", "give one of its models as .tflite"),
    (0, b"GGUF", "a GGUF file, as llama.cpp reads it", "give a model as .tflite"),
    (4, b"ORTM", "an ONNX Runtime model (.ort)", f"take the .onnx that it was made from, and {QUANTIZE}"),
    (4, b"ET1", "an ExecuTorch program (.pte)", QUANTIZE_TORCH),
    (4, b"CIR0", "a Circle model (.circle)", SOURCE),
    (4, b"TFL1", "a TFLite model of schema version 1", "convert it again with a newer TensorFlow"),
    (4, b"TFL2", "a TFLite model of schema version 2", "convert it again with a newer TensorFlow"),
    (0, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch checkpoint (.pt, .pth)", QUANTIZE_TORCH),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", "give a model as .tflite"),
    (0, b"\x7fELF", "a program or a library (ELF)", "give a model; a delegate's library is named in boards.toml"),
    (0, b"SQLite format 3\0", "a SQLite database", "give a model; a store of measurements is named with --store"),
    (0, b"BZh", "a bzip2 archive", f"{UNPACK}: `bunzip2 FILE`, or `tar xjf FILE`"),
    (0, b"\xfd7zXZ\0", "an xz archive", f"{UNPACK}: `unxz FILE`, or `tar xJf FILE`"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", f"{UNPACK}: `unzstd FILE`"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"{UNPACK}: `7z x FILE`"),
    (0, b"Rar!", "a RAR archive", f"{UNPACK}: `unrar x FILE`"),
    (TAR, b"ustar", "a tar archive", f"{UNPACK}: `tar xf FILE`"),
)
"""Where a kind of file has its mark: (offset, mark, what it is, what to do)."""

ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})  # of a ModelProto


def wrong_file(file: BinaryIO) -> str:
    """What a seekable file is and what to do: the message about it after its name."""
    what, advice = identified(file)
    return f"{what}, not a TFLite file; {advice}"


def identified(file: BinaryIO) -> tuple[str, str]:
    """What a seekable file is that is no TFLite model, and what to do about that."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not size:
        return "an empty file", "whatever wrote it stopped before: export or download it again"
    if head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\7\x08"):
        return _zip(file)
    if head[:2] == b"\x1f\x8b":
        return _gzip(head)
    return next((found for look in LOOKS if (found := look(head, size))), None) or _unknown(head)


def damage(content: bytes) -> str:
    """What happened to a file that has the mark of a model and is not one, and what to do."""
    if b"\xef\xbf\xbd" in content and text_of(content, any_signs=True) is not None:
        return "its bytes were read and written as text, and what is no text is lost: copy it again, in binary mode"
    if content.count(b"\n") > 8 and content.count(b"\n") == content.count(b"\r\n"):
        return "its line ends were changed, as a transfer in text mode does: copy it again, in binary mode"
    return "export or copy it again"


def _zip(file: BinaryIO) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises what a wrong offset leads to, and there is no directory to read
        return "a zip archive that is cut short or corrupt", "copy or download it again"
    models = [name for name in names if name.endswith(".tflite")]
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if {"config.json", "model.weights.h5"} <= ends:
        return "a Keras model (.keras)", QUANTIZE
    if ends & {"data.pkl", "archive_format", "serialized_exported_program.json"}:
        return "a PyTorch checkpoint or program (.pt, .pth, .pt2)", QUANTIZE_TORCH
    if models:
        more = f" and {len(models) - 1} more" if len(models) > 1 else ""
        return f"a zip archive of {printable(models[0])}{more}", "unpack it, `unzip FILE`, and give a .tflite in it"
    if ends & {"saved_model.pb", "saved_model.pbtxt"}:
        return "a zip archive of a SavedModel", f"unpack it, `unzip FILE`, and {QUANTIZE_SAVED_MODEL}"
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)", "give a model as .tflite"
    shown = f" of {printable(names[0])}" if names else " without a file"
    return f"a zip archive{shown}", "give the path of a .tflite file; there is none in it"


def _gzip(head: bytes) -> tuple[str, str]:
    try:
        inside = zlib.decompressobj(wbits=31).decompress(head, 2 * TAR)
    except zlib.error:
        inside = b""
    if inside[4:8] == MARK:
        return "a TFLite model compressed by gzip", "unpack it: `gunzip -c FILE > MODEL.tflite`"
    if inside[TAR : TAR + 5] == b"ustar":
        return "a tar archive compressed by gzip", f"{UNPACK}: `tar xzf FILE`"
    return "a file compressed by gzip", f"{UNPACK}: `gunzip FILE`"


def _marked(head: bytes, _: int) -> Found:
    return next(
        ((what, advice) for at, mark, what, advice in MARKS if head[at : at + len(mark)] == mark),
        None,
    )


def _weights(head: bytes, size: int) -> Found:
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "a Python pickle (.pkl, .pt)", QUANTIZE_TORCH
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size:
        return "a safetensors file", QUANTIZE_TORCH
    return None


def _protobuf(head: bytes, _: int) -> Found:
    fields = first_fields(head)
    if {1, 7} <= fields.keys() <= ONNX_FIELDS and isinstance(fields[1], int) and isinstance(fields[7], bytes):
        return "an ONNX model", QUANTIZE
    if fields.keys() == {1, 2} and fields[1] == 1 and isinstance(fields[2], bytes):
        return "the saved_model.pb of a SavedModel", QUANTIZE_SAVED_MODEL
    first = fields.get(1)
    node = first_fields(first) if isinstance(first, bytes) else {}
    if fields.keys() <= {1, 2, 3, 4} and isinstance(node.get(1), bytes) and isinstance(node.get(2), bytes):
        return "a frozen TensorFlow graph (.pb)", CONVERT_GRAPH
    return None


def _text(head: bytes, _: int) -> Found:
    text = text_of(head)
    return None if text is None else wrong_text(text)


def _unknown(head: bytes) -> tuple[str, str]:
    begins = head[:8].hex(" ")
    return f"a file that begins with {begins}", "give the path of a .tflite file; one has TFL3 from its fifth byte on"


LOOKS: Sequence[Callable[[bytes, int], Found]] = (_marked, _weights, _protobuf, _text)


def first_fields(message: bytes) -> dict[int, int | bytes]:
    """The fields of a protobuf message, each with its first value; {} where it is none. Its end may be missing."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at) if tag & 7 in (0, 2) else (0, at)
        if not 0 < tag >> 3 < 1 << 12 or tag & 7 not in (0, 1, 2, 5):
            return {}
        kept: int | bytes = value
        if tag & 7 == 2:
            kept, at = message[at : at + value], at + value
        elif tag & 7:
            at += 8 if tag & 7 == 1 else 4
        found.setdefault(tag >> 3, kept)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(number, where it ends); one that is cut off is as long as it is there."""
    number = shift = 0
    while at < len(message) and shift < 64:
        number |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            break
    return number, at
