"""`hilnas debug`: float, integers and a board at every tensor of a user's network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from deploy.cli import main
from tests.deploy.onnx_files import network
from tests.deploy.tiny_experiment import one_line

BOARDS = """
[bench]
kind = "loopback"
server = "asyncssh"
kernels = "{kernels}"
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    model = network(tmp_path / "net.onnx")
    return ["debug", str(model), "--data", "random", "--images", "4", "--compared", "2"]


def on_a_board(tmp_path: Path, kernels: str) -> list[str]:
    (tmp_path / "boards.toml").write_text(BOARDS.format(kernels=kernels))
    return ["--board", "bench", "--boards", str(tmp_path / "boards.toml")]


def test_without_a_board_it_shows_who_adds_the_noise(command, tmp_path, capfd) -> None:
    assert main([*command, "--out", str(tmp_path / "out"), "--plot", str(tmp_path / "noise.svg")]) == 0
    said = capfd.readouterr().out
    assert "adds most noise" in said and "otherwise" not in said
    record = json.loads((tmp_path / "out" / "debug.json").read_text())
    assert record["board"] is None and all(one["noise_db"] < -10 for one in record["operators"] if one["noise_db"])
    drawn = (tmp_path / "noise.svg").read_text()
    assert all(one["name"] in drawn for one in record["operators"][:1]) and "noise, dB" in drawn


@pytest.mark.parametrize("cut", [[], ["--cut"]])
def test_a_board_that_computes_as_the_simulation(command, tmp_path, capfd, cut) -> None:
    assert main([*command, *on_a_board(tmp_path, "xnnpack"), *cut]) == 0
    said = capfd.readouterr().out
    assert "bench computes all" in said and "operators as the simulation does" in said


def test_other_kernels_are_found_operator_by_operator(command, tmp_path, capfd) -> None:
    """The reference kernels round some operators otherwise; those that only read other numbers are not named."""
    assert main([*command, *on_a_board(tmp_path, "reference"), "--json"]) == 1
    said = capfd.readouterr()
    record = json.loads(said.out)
    wrong = [one["name"] for one in record["operators"] if one["board_alone"]["share"]]
    differing = [one["name"] for one in record["operators"] if one["board"]["share"]]
    assert wrong and set(wrong) <= set(differing)
    one_line(said.err.splitlines()[-1], "bench computes otherwise than the simulation", wrong[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--compared", "0"], "--compared 0: give at least 1"),
        (["--plot", "noise.png"], "figures are written as SVG"),
        (["--board", "nowhere"], "nowhere"),
    ],
)
def test_options_that_cannot_be(command, capfd, options, words) -> None:
    assert main([*command, *options]) == 2
    one_line(capfd.readouterr().err, words)
