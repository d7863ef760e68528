"""Files that people give as a TFLite model, made by what makes them where it is here."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from deploy.formats.pack import pack
from tests.deploy.inspected_models import written

MODEL = written()
LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 3577760\n"
)
GITHUB_PAGE = (
    '\n\n\n<!DOCTYPE html>\n<html lang="en" data-color-mode="auto">\n<head>\n<meta charset="utf-8">\n'
    "<title>models/m.tflite at main · someone/models · GitHub</title>\n</head><body>\u2026</body></html>\n"
)
DENIED = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message>'
    "<RequestId>A1</RequestId></Error>"
)
DVC = "outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  size: 3577760\n  hash: md5\n  path: m.tflite\n"


def zipped(*names: str, content: bytes = b"x") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def saved_by_torch(*, zip_file: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, file, _use_new_zipfile_serialization=zip_file)
    return file.getvalue()


def scripted() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # people have such files all the same
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def array_of(content: bytes, *, base: int = 16, head: str = "") -> bytes:
    """As `xxd -i` and TFLite Micro's generator write it."""
    numbers = [f"0x{byte:02x}" if base == 16 else str(byte) for byte in content]
    lines = [", ".join(numbers[i : i + 12]) for i in range(0, len(numbers), 12)]
    body = ",\n  ".join(lines)
    return (
        f"{head}alignas(8) const unsigned char g_model_data[] DATA_ALIGN_ATTRIBUTE = {{\n  {body}\n}};\n"
        f"const int g_model_len = {len(content)};\n"
    ).encode()


def numpy_file(*, several: bool) -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3), b=np.ones(2)) if several else np.save(file, np.zeros(3))
    return file.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE measurements (number INTEGER)")
    return bytes(connection.serialize())


def safetensors() -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return len(header).to_bytes(8, "little") + header + bytes(4)


def hex_dump(content: bytes) -> bytes:
    """As `xxd` writes it."""
    lines = []
    for at in range(0, len(content), 16):
        part = content[at : at + 16]
        pairs = " ".join(part[i : i + 2].hex() for i in range(0, len(part), 2))
        lines.append(f"{at:08x}: {pairs:<39}  {'.' * len(part)}\n")
    return "".join(lines).encode()


FILES: Mapping[str, tuple[Callable[[], bytes], str, str]] = {
    "nothing": (lambda: b"", "an empty file", "export or download it again"),
    "lfs": (LFS.encode, "a Git LFS pointer to 3577760 bytes", "`git lfs pull`"),
    "lfs of Windows": (lambda: LFS.replace("\n", "\r\n").encode(), "a Git LFS pointer to 3577760", "`git lfs pull`"),
    "annex": (lambda: b"/annex/objects/SHA256E-s3577760--4d7a.tflite\n", "a git-annex pointer", "`git annex get FILE`"),
    "dvc": (DVC.encode, "a DVC pointer", "`dvc pull`"),
    "page": (GITHUB_PAGE.encode, "an HTML page ('models/m.tflite at main · someone/models · GitHub')", "raw file"),
    "page after a mark": (lambda: b"\xef\xbb\xbf<html><body>404</body></html>", "an HTML page", "download the file"),
    "denied": (DENIED.encode, "an XML text, a server's answer ('AccessDenied')", "download the file itself"),
    "not found": (lambda: b'{"message":"Not Found","status":"404"}', 'a JSON text (\'{"message"', "server's answer"),
    "tfjs": (lambda: b'{"format":"layers-model","modelTopology":{}}', "a TensorFlow.js model", "made from"),
    "keras as json": (lambda: b'{"class_name":"Sequential","config":{"layers":[]}}', "a Keras model's arch", "of"),
    "openvino": (lambda: b'<?xml version="1.0"?>\n<net name="m" version="11">', "an OpenVINO model", "made from"),
    "link as text": (lambda: b"../shared/m.tflite", "a link or an address as text ('../shared/m", "that it names"),
    "address": (lambda: b"https://example.com/m?download=1\n", "a link or an address as text", "that it names"),
    "text": (lambda: b"a text\x1b[31m file\n", "a text file ('a text [31m file')", "the path of a .tflite"),
    "text in UTF-16": (lambda: "модель\n".encode("utf-16"), "a text file ('модель')", "the path of a .tflite"),
    "array": (lambda: array_of(MODEL), "a TFLite model as a C array, for TFLite Micro", "or restore it: `grep"),
    "array after a licence": (lambda: array_of(MODEL, head="/* " + "x" * 9000 + " */\n"), "as a C array", "restore"),
    "decimal array": (lambda: array_of(MODEL, base=10), "a TFLite model as a C array", "that it was made from"),
    "other array": (lambda: array_of(b"0123456789"), "a C array", "the path of a .tflite"),
    "declared": (lambda: b"#pragma once\nextern const unsigned char g_model_data[];\n", "only declares", "made from"),
    "base64": (lambda: base64.encodebytes(MODEL), "a TFLite model as base64", "`base64 -d FILE > MODEL.tflite`"),
    "hex dump": (lambda: hex_dump(MODEL), "a hex dump of a TFLite model", "`xxd -r FILE > MODEL.tflite`"),
    "hex": (lambda: MODEL.hex().encode(), "a hex dump of a TFLite model", "`xxd -r -p FILE > MODEL.tflite`"),
    "gzip": (lambda: gzip.compress(MODEL), "a TFLite model compressed by gzip", "`gunzip -c FILE > MODEL.tflite`"),
    "tar.gz": (lambda: gzip.compress(tarred("m.tflite", MODEL)), "a tar archive compressed by gzip", "`tar xzf FILE`"),
    "gzip of another": (lambda: gzip.compress(b"x" * 99), "a file compressed by gzip", "`gunzip FILE`"),
    "half a gzip": (lambda: gzip.compress(MODEL)[:12], "a file compressed by gzip", "`gunzip FILE`"),
    "bzip2": (lambda: bz2.compress(MODEL), "a bzip2 archive", "`bunzip2 FILE`"),
    "xz": (lambda: lzma.compress(MODEL), "an xz archive", "`unxz FILE`"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(20), "a zstd archive", "`unzstd FILE`"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(20), "a 7z archive", "unpack it"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\x00" + bytes(20), "a RAR archive", "unpack it"),
    "tar": (lambda: tarred("m.tflite", MODEL), "a tar archive", "`tar xf FILE`"),
    "zip": (lambda: zipped("a/m.tflite", "b.tflite", "c.txt"), "of a/m.tflite and 1 more", "`unzip FILE`"),
    "zip of a saved model": (lambda: zipped("m/saved_model.pb", "m/v"), "of a SavedModel", "hilnas quantize"),
    "zip of others": (lambda: zipped("photo.jpg"), "a zip archive of photo.jpg", "there is none in it"),
    "zip of nothing": (zipped, "a zip archive without a file", "there is none in it"),
    "half a zip": (lambda: zipped("m.tflite", content=MODEL)[:500], "a zip archive that is cut short", "it again"),
    "keras": (
        lambda: zipped("metadata.json", "config.json", "model.weights.h5"),
        "a Keras model (.keras)",
        "hilnas quantize",
    ),
    "hdf5": (
        lambda: b"\x89HDF\r\n\x1a\n" + bytes(99),
        "an HDF5 file, as Keras writes it (.h5)",
        "hilnas quantize FILE",
    ),
    "torch": (lambda: saved_by_torch(zip_file=True), "a PyTorch checkpoint or program", "torch.onnx.export"),
    "older torch": (lambda: saved_by_torch(zip_file=False), "a PyTorch checkpoint", "torch.onnx.export"),
    "torchscript": (scripted, "a PyTorch checkpoint or program", "torch.onnx.export"),
    "pickle": (lambda: b"\x80\x04\x95\x03" + bytes(7) + b"K\x01.", "a Python pickle", "torch.onnx.export"),
    "safetensors": (safetensors, "a safetensors file", "torch.onnx.export"),
    "gguf": (lambda: b"GGUF\x03\0\0\0" + bytes(40), "a GGUF file", "a model as .tflite"),
    "pte": (lambda: b"\x20\0\0\0ET12" + bytes(40), "an ExecuTorch program", "torch.onnx.export"),
    "ort": (lambda: b"\x20\0\0\0ORTM" + bytes(40), "an ONNX Runtime model", "hilnas quantize"),
    "circle": (lambda: b"\x20\0\0\0CIR0" + bytes(40), "a Circle model", "made from"),
    "schema 2": (lambda: b"\x20\0\0\0TFL2" + bytes(40), "a TFLite model of schema version 2", "newer TensorFlow"),
    "network binary": (lambda: b"VPMN" + bytes(40), "a network binary for one VeriSilicon NPU", "made from"),
    "packed": (lambda: pack(MODEL), "a model that `hilnas pack` packed", "`hilnas unpack FILE --out MODEL.tflite`"),
    "npy": (lambda: numpy_file(several=False), "a NumPy array (.npy)", "a model as .tflite"),
    "npz": (lambda: numpy_file(several=True), "NumPy arrays (.npz)", "a model as .tflite"),
    "library": (lambda: b"\x7fELF\x02\x01\x01" + bytes(99), "a program or a library (ELF)", "boards.toml"),
    "database": (database, "a SQLite database", "--store"),
    "bytes": (lambda: bytes(range(128, 256)), "a file that begins with 80 81 82 83 84 85", "TFL3"),
    "few bytes": (lambda: b"\xff\xd8", "a file that begins with ff d8", "TFL3"),
}
"""(how it is made, what the message calls it, what it says to do) by a name for the test."""


def put(folder: Path, content: bytes, name: str = "m.tflite") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path
