"""`hilnas quantize --format tflite,onnx`: the ONNX file beside the .tflite, and what is wrong with a call."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from deploy.cli import main  # noqa: E402
from tests.deploy.cli.failing import USAGE  # noqa: E402
from tests.deploy.onnx_files import network, write_images  # noqa: E402
from tests.deploy.onnx_sessions import OnnxHere  # noqa: E402

FORMAT = ("--format", "tflite,onnx")


def command(tmp_path, *options: object) -> list[str]:
    photos = tmp_path / "photos"
    if not photos.exists():
        write_images(photos, 3)
    model = network(tmp_path / "net.onnx")
    words = ["quantize", model, "--data", photos, "--mean", 127.5, "--std", 127.5, "--out", tmp_path / "out", *options]
    return [str(word) for word in words]


@pytest.mark.parametrize("scheme", ["channel int8", "tensor uint8", "auto"])
def test_the_same_integers_beside_the_tflite_file(tmp_path, capfd, scheme):
    """Of the scheme that is written, with one line on the screen; the record says how it was made."""
    assert main(command(tmp_path, *FORMAT, "--scheme", scheme)) == 0
    said = capfd.readouterr().out
    (file,) = (tmp_path / "out").glob("*.onnx")
    kind = "uint8" if scheme == "tensor uint8" else "int8"
    assert file.name == f"net.{kind}.onnx"
    assert said.count(".onnx:") == 1 and f"{file}: " in said and "QDQ ONNX (opset 21)" in said
    source, expected = (file.with_suffix(f".{end}.bin").read_bytes() for end in ("input", "expected"))
    answer, wanted = (
        np.frombuffer(part, kind).astype(int) for part in (OnnxHere(file.read_bytes()).outputs(source), expected)
    )
    assert np.abs(answer - wanted).max() <= 1
    record = json.loads((tmp_path / "out" / "quantization.json").read_text())
    assert "--format tflite,onnx" in record["origin"]["command"]
    metadata = json.loads(onnx.load(file).metadata_props[0].value)
    assert metadata["scheme"] == record["scheme"] and metadata["model"] == "net"


def test_only_where_it_is_asked_for(tmp_path, capfd):
    assert main(command(tmp_path)) == 0
    assert not list((tmp_path / "out").glob("*.onnx")) and ".onnx:" not in capfd.readouterr().out
    assert main(command(tmp_path, *FORMAT, "--json")) == 0
    json.loads(capfd.readouterr().out)
    assert (tmp_path / "out" / "net.int8.onnx").exists()
    assert main(command(tmp_path)) == 0
    assert not (tmp_path / "out" / "net.int8.onnx").exists(), "of an earlier call, so perhaps of other integers"


@pytest.mark.parametrize("given", ["onnx", "onnx,tflite", "tflite,", ""])
def test_other_formats_are_refused(tmp_path, capfd, given):
    with pytest.raises(SystemExit, match="2"):
        main(command(tmp_path, "--format", given))
    error = capfd.readouterr().err
    assert "argument --format: invalid choice" in error and "'tflite,onnx'" in error
    assert not (tmp_path / "out").exists()


def test_without_the_package_it_fails_before_anything_is_calibrated(tmp_path, capfd, monkeypatch):
    words = command(tmp_path, *FORMAT, "--scheme", "auto")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(words) == USAGE
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "writing ONNX needs the package onnx: pip install 'hilnas[onnx]'" in error
    assert not (tmp_path / "out").exists()
