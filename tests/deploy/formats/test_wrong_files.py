"""Files that are no model: called what they are, with what to do about that, and a model is never called one."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deploy.formats.tflite.read import parse, read
from deploy.formats.wrong_file import first_fields, wrong_file
from hil.errors import ModelError, UsageError
from tests.deploy.formats.foreign_files import FILES, LFS, MODEL, array_of, put, zipped
from tests.deploy.networks import REPOSITORY

TENSORFLOW = "needs the extra: pip install 'hilnas[tensorflow]'"


def said_of(path: Path) -> str:
    """The message about a wrong file, checked for its form."""
    with pytest.raises((ModelError, UsageError)) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and all(map(str.isprintable, message))
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_called_what_it_is(tmp_path, name):
    make, what, advice = FILES[name]
    message = said_of(put(tmp_path, make()))
    named, _, advised = message.partition(", not a TFLite file; ")
    assert what in named and advice in advised, message
    with pytest.raises(ModelError, match="not a TFLite file"):
        parse(make(), "m")


@pytest.mark.parametrize("name", ["array", "array after a licence", "base64", "gzip", "hex dump", "hex", "packed"])
def test_the_advice_gives_the_model_back(tmp_path, name):
    """The command of the message, word for word but for the names of the files."""
    path = put(tmp_path, FILES[name][0](), "given")
    (command,) = re.findall(r"`([^`]*MODEL\.tflite)`", said_of(path))
    if "xxd" in command and shutil.which("xxd") is None:
        pytest.skip("no xxd here: apt install xxd")
    if command.startswith("hilnas"):
        from deploy.cli import main

        assert main(command.replace("FILE", str(path)).replace("MODEL", str(tmp_path / "m")).split()[1:]) == 0
    else:
        program = command.replace("FILE", "given").replace("MODEL", "m")
        subprocess.run(["sh", "-ec", program], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "m.tflite").read_bytes() == MODEL


def test_a_model_with_metadata_is_a_zip_and_a_model(tmp_path):
    """Labels appended as a zip, as the metadata's tools do."""
    file = io.BytesIO(MODEL)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "cat\ndog\n")
    path = put(tmp_path, file.getvalue())
    assert zipfile.is_zipfile(path) and len(read(path).operators) == 6


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_model_that_is_cut_short(tmp_path, share):
    message = said_of(put(tmp_path, MODEL[: int(share * len(MODEL))]))
    assert message.startswith("a TFLite file, but cut short or corrupt") and message.endswith("export or copy it again")


def test_a_model_that_went_through_a_text_transfer(tmp_path):
    replaced = MODEL.decode("utf-8", "replace").encode()
    assert "its bytes were read and written as text" in said_of(put(tmp_path, replaced))
    ends = (MODEL + b"\n" * 9).replace(b"\n", b"\r\n")
    ends = ends[:4] + b"TFL3" + ends[8:]
    try:
        read(put(tmp_path, ends))
    except ModelError as error:
        assert "line ends were changed" in str(error)


# What other programs write


def test_an_onnx_model(tmp_path):
    onnx = pytest.importorskip("onnx", reason="needs the extra: pip install 'hilnas[onnx]'")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])
    large = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [100_000], bytes(400_000), raw=True)
    for initializer in ([], [large]):
        node = onnx.helper.make_node("Relu", ["x"], ["x2"])
        graph = onnx.helper.make_graph([node], "g", [value], [value], initializer)
        for model in (onnx.helper.make_model(graph, producer_name="test"), onnx.helper.make_model(graph)):
            message = said_of(put(tmp_path, model.SerializeToString()))
            assert message.startswith("an ONNX model, not a TFLite file; quantize it: `hilnas quantize FILE")


@pytest.mark.tensorflow
def test_what_tensorflow_and_keras_write(tmp_path):
    tensorflow = pytest.importorskip("tensorflow", reason=TENSORFLOW)
    model = tensorflow.keras.Sequential([tensorflow.keras.layers.Input((4,)), tensorflow.keras.layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    model.save(tmp_path / "m.h5")
    model.export(tmp_path / "saved", verbose=False)
    graph = tensorflow.Graph()
    with graph.as_default():
        tensorflow.compat.v1.placeholder(tensorflow.float32, [1, 4], name="x") + 1.0
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    assert said_of(tmp_path / "m.keras").startswith("a Keras model (.keras)")
    assert said_of(tmp_path / "m.h5").startswith("an HDF5 file, as Keras writes it (.h5)")
    assert said_of(tmp_path / "saved").startswith("the directory of a SavedModel, not a TFLite file; quantize")
    assert said_of(tmp_path / "saved" / "saved_model.pb").startswith("the saved_model.pb of a SavedModel")
    assert said_of(tmp_path / "frozen.pb").startswith("a frozen TensorFlow graph (.pb)")


# Directories, and files that are elsewhere


def test_directories(tmp_path):
    said = {}
    for name, files in {
        "saved": ["saved_model.pb", "variables/variables.index"],
        "bundle": ["manifest.json", "model.tflite"],
        "run": ["summary.json", "models/teacher.tflite"],
        "models": ["b.tflite", "a.tflite"],
        "m.mlpackage": ["Data/com.apple.CoreML/model.mlmodel"],
        "other": ["x.txt"],
    }.items():
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        said[name] = said_of(tmp_path / name)
    assert "SavedModel" in said["saved"] and "hilnas quantize" in said["saved"]
    assert "bundle" in said["bundle"] and f"give {tmp_path}/bundle/model.tflite" in said["bundle"]
    assert "run/models/teacher.tflite" in said["run"]
    assert "one of its 2 models" in said["models"] and "models/a.tflite" in said["models"]
    assert "Core ML" in said["m.mlpackage"]
    assert said["other"] == "a directory, not a TFLite file; give the path of a .tflite file"


def test_a_file_that_is_elsewhere(tmp_path):
    assert "give the path of a .tflite file" in said_of(tmp_path / "none.tflite")
    (tmp_path / "annexed.tflite").symlink_to("../.git/annex/objects/x/SHA256E-s5--4d.tflite")
    assert "`git annex get` fetches it" in said_of(tmp_path / "annexed.tflite")
    (tmp_path / "link.tflite").symlink_to("gone.tflite")
    assert "a link to gone.tflite, which is not there" in said_of(tmp_path / "link.tflite")
    put(tmp_path, b"outs:\n", "tracked.tflite.dvc")
    assert "DVC keeps it: `dvc pull`" in said_of(tmp_path / "tracked.tflite")


def test_a_model_through_a_pipe(tmp_path):
    path = put(tmp_path, MODEL)
    program = (
        "from pathlib import Path; from deploy.formats.tflite.read import read; "
        "print(len(read(Path('/dev/stdin')).operators))"
    )
    shell = ['cat "$0" | "$1" -c "$2"', str(path), sys.executable, program]
    done = subprocess.run(["sh", "-c", *shell], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "6\n", done.stderr


# Whatever the bytes

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BEGINNINGS = [
    *(b"PK\3\4", b"\x1f\x8b\x08", b"\x08\x07\x12", b"{", b"<?xml", b"<html", b"\x80\x04", b"\xff\xfe", b"\n", b""),
    *(b"unsigned char a[] = {", b"version https://git-lfs.github.com/spec/", LFS.encode()),
    *(zipped("m.tflite"), array_of(MODEL[:99])),
]


@FUZZ
@given(st.sampled_from(BEGINNINGS), st.binary(max_size=400), st.integers(0, 400))
@example(b"extern char [", b"<!--" * 20_000, 400)
def test_any_bytes_are_called_something_in_one_line(beginning, rest, cut):
    content = (beginning + rest)[: len(beginning + rest) - cut] if cut < len(beginning) else beginning + rest
    started = time.process_time()
    message = wrong_file(io.BytesIO(content))
    assert ", not a TFLite file; " in message and "\n" not in message
    assert time.process_time() - started < 1.0


@FUZZ
@given(st.binary(max_size=200))
def test_a_protobuf_is_walked_to_its_end(message):
    assert all(number > 0 for number in first_fields(message))
