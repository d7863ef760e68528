"""`hilnas compile`: options that do not go together, and a run's trained weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.cli import main
from deploy.formats.tflite.read import read
from tests.deploy.cli.failing import BOARDS, MODEL, USAGE
from tests.deploy.tiny_experiment import (
    Finished,
    write_experiment,
)


@pytest.mark.parametrize("size", ["96", "0x128", "axb", "96x128x3", "-1x4", "1e3x4", "x", "99999x8"])
def test_an_impossible_size(fails, tmp_path, size):
    fails(USAGE, ["compile", "b1_k3e3_w8", f"--size={size}", "--out", tmp_path], f"--size {size}")


@pytest.mark.parametrize("name", ["nonsense", "b9_k3e3_w8", "b1_k3e3_w8", "b1_k3e3-k3e3_w3"])
def test_a_subnet_that_there_is_not(fails, tmp_path, name):
    fails(USAGE, ["compile", name, "--out", tmp_path / "out"], name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("name subnets", "--all")),
        (("b1_k3e3-k3e3_w8", "--all"), ("name subnets", "--all")),
        (("--all", "--jobs", "0"), ("--jobs 0", "at least 1")),
        (("--all", "--jobs", "-2"), ("--jobs -2",)),
        (("--all", "--bits", "3"), ("--bits 3", "4, 5, 6, 7 or 8")),
        (("--all", "--bits", "8,9"), ("--bits 8,9", "4, 5, 6, 7 or 8")),
        (("--all", "--bits", "eight"), ("--bits eight", "4,6,8")),
        (("--all", "--bits", ""), ("--bits ", "4,6,8")),
        (("b1_k3e3-k3e3_w4",), ("b1_k3e3-k3e3_w4", "at 8 bits", "--bits")),
        (("--all", "--activations", "uint8"), ("--granularity tensor",)),
        (("--all", "--activations", "uint8", "--granularity", "tensor", "--few-bits", "int4"), ("leave one out",)),
        (("--all", "--format", "onnx"), ("--format onnx", "single subnets")),
        (("b1_k3e3-k3e3_w8", "--format", "converter", "--graph-io", "float"), ("--format converter", "quantized inp")),
        (("b1_k3e3-k3e3_w8", "--format", "onnx", "--few-bits", "int4"), ("written as int8", "leave one out")),
        (("b1_k3e3-k3e3_w8", "--format", "converter", "--granularity", "tensor"), ("--format converter",)),
        (("b1_k3e3-k3e3_w4", "--bits", "4", "--format", "converter"), ("8 bits wide",)),
        (("--all", "--weights", "none.pt"), ("none.pt", "no such file", "supernets.pt")),
        (("--all", "--config", "demo-scenes"), ("--config", "--weights")),
        (("--all", "--data", "scenes"), ("--data", "--config")),
        (("--all", "--space", "none.toml"), ("none.toml", "no such file")),
    ],
    ids=" ".join,
)
def test_compile_options_that_do_not_go_together(fails, tmp_path, options, words):
    fails(USAGE, ["compile", *options, "--out", tmp_path / "out"], *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "form", [(), ("--granularity", "tensor", "--activations", "uint8"), ("--graph-io", "float")], ids=" ".join
)
def test_onnx_in_every_form_answers_as_its_golden_pair(tmp_path, form):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert main(["compile", "b2_k5e6-k3e3_w8", "--format", "onnx", "--out", str(tmp_path), *form]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "b2_k5e6-k3e3_w8.onnx")
    (x,), (y,) = session.get_inputs(), session.get_outputs()
    kinds = {"tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(float)": np.float32}
    assert kinds[x.type] is kinds[y.type] is (np.float32 if "float" in form else np.uint8 if form else np.int8)
    source, expected = (
        np.fromfile(tmp_path / f"b2_k5e6-k3e3_w8.{part}.bin", kinds[end.type]).reshape(end.shape)
        for part, end in (("input", x), ("expected", y))
    )
    (found,) = session.run(None, {x.name: source})
    step = np.unique(np.diff(np.unique(expected))).min() if "float" in form else 1
    most = 2 if "uint8" in form else 1  # one operator's last bit, magnified by the next
    assert np.abs(found.astype(np.float64) - expected).max() <= 1.01 * most * step


# A run's trained weights


def trained(finished: Finished, checkpoint: Path, out: Path, *more: str) -> list[str]:
    space = ("--space", str(finished.config.parent / "space.toml"), "--size", "64x96")
    return ["compile", "--all", "--jobs", "1", "--out", str(out), "--weights", str(checkpoint), *(more or space)]


def with_config(finished: Finished) -> tuple[str, ...]:
    return ("--config", str(finished.config), "--boards", BOARDS)


def test_with_its_configuration_the_files_are_the_runs_own(finished, tmp_path):
    checkpoint = finished.folder / "supernets.pt"
    assert main(trained(finished, checkpoint, tmp_path / "out", *with_config(finished))) == 0
    header, *lines = (tmp_path / "out" / "index.jsonl").read_text().splitlines()
    assert json.loads(header)["library"]["calibration"] == "scenes"
    rows = [row for line in lines for row in json.loads(line)["subnets"]]
    assert len(rows) == 12
    for row in rows:
        ours, theirs = (
            read(path) for path in (tmp_path / "out" / row["file"], finished.folder / f"subnets/{row['subnet']}.tflite")
        )
        assert repr(ours.operators) == repr(theirs.operators)
        for a, b in zip(ours.tensors, theirs.tensors, strict=True):
            assert (a.name, a.shape, bytes(a.data)) == (b.name, b.shape, bytes(b.data))
            np.testing.assert_array_equal(a.scale, b.scale)
            np.testing.assert_array_equal(a.zero_point, b.zero_point)


def test_one_subnet_of_a_run_is_compiled_with_the_runs_golden_pair(finished, tmp_path):
    command = ["compile", "b1_k3e2_w8", "--out", str(tmp_path), "--weights", str(finished.folder / "supernets.pt")]
    assert main([*command, *with_config(finished)]) == 0
    subnets = finished.folder / "subnets"
    assert (tmp_path / "b1_k3e2_w8.input.bin").read_bytes() == (subnets / "b1.input.bin").read_bytes()
    assert (tmp_path / "b1_k3e2_w8.expected.bin").read_bytes() == (subnets / "b1_k3e2_w8.expected.bin").read_bytes()


def test_without_its_configuration_they_are_calibrated_on_noise_and_say_so(finished, tmp_path):
    checkpoint = finished.folder / "supernets.pt"
    assert main(trained(finished, checkpoint, tmp_path / "out")) == 0
    header = json.loads((tmp_path / "out" / "index.jsonl").read_text().splitlines()[0])["library"]
    assert header["calibration"] == "noise"
    assert header["weights"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16]


def test_weights_that_are_no_checkpoint(fails, finished, tmp_path):
    checkpoint, out = tmp_path / "supernets.pt", tmp_path / "out"
    whole = (finished.folder / "supernets.pt").read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not a complete checkpoint")
    torch.save({"key": "", "model": 3}, checkpoint)
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not the supernets of this space")
    torch.save({"key": "", "model": {"call": subprocess.run}}, checkpoint)
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not a complete checkpoint")
    shutil.copyfile(finished.folder / "teacher.pt", checkpoint)
    fails(USAGE, trained(finished, checkpoint, out), "supernets.pt", "not the supernets of this space")
    checkpoint.write_bytes(whole)
    demo = ("--space", "demo")
    fails(USAGE, trained(finished, checkpoint, out, *demo), "supernets.pt", "not the supernets of this space")
    assert not out.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(fails, finished, tmp_path, value):
    content = torch.load(finished.folder / "supernets.pt", weights_only=True)
    next(iter(content["model"].values())).view(-1)[3] = value
    torch.save(content, tmp_path / "supernets.pt")
    fails(MODEL, trained(finished, tmp_path / "supernets.pt", tmp_path / "out"), "supernets.pt", "NaN or infinity")


def test_a_run_of_another_configuration(fails, finished, tmp_path):
    checkpoint, out = finished.folder / "supernets.pt", tmp_path / "out"
    other = write_experiment(tmp_path, {"seed = 0": "seed = 1"})
    options = ("--config", str(other), "--boards", BOARDS)
    fails(USAGE, trained(finished, checkpoint, out, *options), "teacher.pt", "other settings")
    fails(USAGE, trained(finished, checkpoint, out, *with_config(finished), "--size", "64x96"), "--size", "leave")
    alone = Path(shutil.copyfile(checkpoint, tmp_path / "supernets.pt"))
    fails(USAGE, trained(finished, alone, out, *with_config(finished)), "teacher.pt", "no such file")
