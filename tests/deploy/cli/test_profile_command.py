"""`hilnas profile`: models, protocols and stores that cannot be used; names in full."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deploy.cli import main
from tests.deploy.cli.failing import BOARDS, MODEL, SUBNET, USAGE, profile, truncate


@pytest.mark.parametrize("option", [("--runs", "0"), ("--rounds", "0"), ("--warmup-runs", "-1")])
def test_an_impossible_protocol(fails, tmp_path, model, option):
    fails(USAGE, ["profile", model, "--boards", BOARDS, "--store", tmp_path / "s", *option], "runs and rounds")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a text file\n", "not a TFLite file"), (b"", "not a TFLite file"), (b"\0\0\0\0TFL3", "cut short or corrupt")],
)
def test_a_file_that_is_no_model(fails, tmp_path, content, words):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    fails(MODEL, profile(tmp_path, path), "model.tflite", words)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97])
def test_a_model_that_is_cut_short(fails, tmp_path, model, share):
    path = Path(shutil.copyfile(model, tmp_path / "model.tflite"))
    truncate(path, share)
    fails(MODEL, profile(tmp_path, path), "model.tflite")


def test_a_model_that_is_missing_or_a_folder(fails, tmp_path):
    fails(USAGE, profile(tmp_path, tmp_path / "none.tflite"), "none.tflite", "No such file")
    fails(USAGE, profile(tmp_path, tmp_path), str(tmp_path), "directory")


def test_a_store_that_is_none(fails, tmp_path, model):
    (tmp_path / "store.sqlite").write_text("not a database, but long enough to look like one" * 40)
    fails(USAGE, profile(tmp_path, model), "store.sqlite", "not a usable store")


def test_a_model_is_named_in_full_where_no_terminal_is(tmp_path, finished, capfd):
    model = finished.folder / "subnets" / "b2_k3e2-k3e6_w8.tflite"
    assert main([str(word) for word in profile(tmp_path, model)]) == 0
    assert model.name in capfd.readouterr().out


def test_one_model_under_two_names(tmp_path, model, capfd):
    """Measured once, shown under both."""
    same = Path(shutil.copyfile(model, tmp_path / "same.tflite"))
    assert main([str(word) for word in profile(tmp_path, model)]) == 0
    capfd.readouterr()
    first, *others = [str(word) for word in profile(tmp_path, model)]
    assert main([first, str(same), *others, "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert sorted(m["model"] for m in shown) == sorted([SUBNET, "same.tflite"])
    assert shown[0]["latencies_us"] == shown[1]["latencies_us"]
