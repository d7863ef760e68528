"""`hilnas board characterize` on boards with planted latencies and outputs: findings, a target of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.characterize import graphs
from deploy.cli import main
from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import write
from deploy.targets.inspection import inspect_model
from deploy.targets.placement import Placement, Target, load_target, place
from nas.quant.integer_graph import IntegerGraph
from tests.deploy.characterize.planted_npu import FACTORS, SIZE, WRONG, Planted, boards_file
from tests.deploy.tiny_experiment import one_line

SHAPE = (24, 32, 32)


@pytest.fixture
def characterize(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)

    def run(planted: Planted, *options: str) -> tuple[int, dict[str, dict[str, object]], str]:
        boards = tmp_path / "boards" / "boards.toml"
        if not boards.exists():
            boards_file(boards.parent, planted)
        size = "x".join(map(str, SIZE))
        words = ["--size", size, "--boards", str(boards), "--store", str(tmp_path / "s.sqlite"), "--json", *options]
        code = main(["board", "characterize", "imx8mp", *words])
        said = capsys.readouterr()
        found = {fact["fact"]: fact for fact in json.loads(said.out)["facts"]} if said.out else {}
        return code, found, said.err

    return run


def own(tmp_path: Path) -> Target:
    return load_target(tmp_path / "config" / "hilnas" / "targets", "imx8mp")


def placed(graph: IntegerGraph, target: Target) -> Placement:
    return place(inspect_model(parse(write(graph), "m.tflite")), target)[-1]


def verdicts(found: dict[str, dict[str, object]], verdict: str) -> set[str]:
    return {name for name, fact in found.items() if fact["verdict"] == verdict}


def test_a_board_that_is_as_its_rules_say(characterize, tmp_path):
    code, found, err = characterize(Planted())
    assert verdicts(found, "disagrees") == verdicts(found, "undecided") == verdicts(found, "no rule") == set(), found
    assert code == 0 and err.count("\n") == 2  # measuring starts and ends
    assert found["convolution 3x3: per channel"]["ratio"] == pytest.approx(30 / 1.4, rel=0.02)
    target = own(tmp_path)
    assert target.safe_resize_factors == (2, 3, 4, 8) and target.arithmetic == "xnnpack"
    assert target.schemes == load_target(None, "imx8mp-vx").schemes
    assert placed(graphs.convolution(SHAPE, 3, per_channel=True), target).evidence == "board"
    assert placed(graphs.convolution(SHAPE, 3, stride=2), target).evidence == "board"
    assert {note.evidence for note in target.notes if note.cost != "none"} == {"board"}
    assert len(target.rules) == len(load_target(None, "imx8mp-vx").rules)
    text = (tmp_path / "config" / "hilnas" / "targets" / "imx8mp.toml").read_text()
    assert "convolution 3x3: per channel: agrees; 2" in text and "libvx_delegate.so" in text


OTHER = Planted(
    factors={**FACTORS, "conv3-channel": 1.4, "add-16": 15.0, "conv1-relu": 2.5},
    wrong=tuple(name for name in (*WRONG, "resize3") if name != "resize5"),
    arithmetic="litert",
    keeps_graphs=False,
)
DIFFERS = {
    "convolution 3x3: per channel",
    "addition: scales 16 times apart",
    "convolution: RELU at an output",
    "resize by 3",
    "resize by 5",
    "rounding of uint8",
    "graph cache",
}


def test_what_the_board_does_otherwise_is_a_finding_and_its_own_target_follows_it(characterize, tmp_path):
    code, found, err = characterize(OTHER)
    assert code == 1 and verdicts(found, "disagrees") == DIFFERS, verdicts(found, "disagrees") ^ DIFFERS
    assert "hilnas: board imx8mp disagrees with imx8mp-vx on convolution 3x3: per channel (and 6 more): 1." in err
    target = own(tmp_path)
    assert target.safe_resize_factors == (2, 4, 5, 8) and target.arithmetic == "litert"
    channel = placed(graphs.convolution(SHAPE, 3, per_channel=True), target)
    assert (channel.place, channel.fast, channel.evidence) == ("NN", True, "board") and "imx8mp: 1." in channel.reason
    other = placed(graphs.convolution(SHAPE, 5, per_channel=True), target)
    assert (other.place, other.evidence) == ("SH", "board")
    sixteen, near = (placed(graphs.addition(SHAPE, apart=apart), target) for apart in (16, 4))
    assert (sixteen.fast, sixteen.cost, near.fast, near.cost) == (False, "high", True, "low")
    relu = placed(graphs.convolution(SHAPE, 1, activation="relu"), target)
    assert (relu.fast, relu.cost) == (True, "medium") and placed(graphs.convolution(SHAPE, 1), target).cost == "low"
    assert placed(graphs.resize((6, 8, 32), (18, 24)), target).wrong
    assert not placed(graphs.resize((6, 8, 32), (30, 40)), target).wrong

    code, found, _ = characterize(OTHER, "--target", "imx8mp")
    assert verdicts(found, "disagrees") == {"graph cache"}  # which is boards.toml's, and no rule's


def test_what_every_inference_costs_may_hide_a_fact(characterize):
    """Where 30 times the work is 3 % of an inference, a ratio of 1 is no finding."""
    code, found, _ = characterize(Planted(overhead_us=1e6, noise=0.001))
    assert code == 0 and verdicts(found, "disagrees") == set()
    for fact in ("convolution 3x3: per channel", "convolution 3x3: dilation 2"):  # slower than its base, and not
        assert found[fact]["verdict"] == "undecided" and "hidden by the 100" in str(found[fact]["said"])


def test_a_noisy_board_decides_less_and_nothing_wrongly(characterize):
    code, found, _ = characterize(Planted(noise=1.5))
    assert code == 0 and verdicts(found, "disagrees") == set()
    assert "resize by 16" in verdicts(found, "agrees")


def test_a_base_that_fails_leaves_its_facts_open(characterize):
    _, found, _ = characterize(replace(Planted(), wrong=(*WRONG, "depthwise5")))
    assert found["depthwise: 7x7"]["verdict"] == "undecided" and "depthwise5" in str(found["depthwise: 7x7"]["said"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rounds", "3"], ("--rounds 3", "4 or more")),
        (["--size", "23x32"], ("--size 23x32", "24 and more")),
        (["--size", "32"], ("--size 32", "write HxW")),
        (["--target", "imx8mp-xv"], ("did you mean 'imx8mp-vx'?",)),
        (["--runs", "21"], ("21 runs per round", "there are 20")),
    ],
)
def test_what_cannot_be_characterized(characterize, options, words):
    code, _, err = characterize(Planted(), *options)
    assert code == 2
    one_line(err, *words)


def test_rules_that_somebody_wrote_are_not_replaced(characterize, tmp_path):
    path = tmp_path / "config" / "hilnas" / "targets" / "imx8mp.toml"
    path.parent.mkdir(parents=True)
    path.write_text('description = "mine"\n')
    code, _, err = characterize(Planted())
    assert code == 2 and path.read_text() == 'description = "mine"\n'
    one_line(err, "imx8mp.toml", "not written by this command", "--out")


def test_a_board_without_a_target_and_one_that_is_emulated(tmp_path, capsys):
    boards = tmp_path / "boards.toml"
    boards.write_text('[bare]\nkind = "loopback"\n[emu]\nkind = "qemu"\ntarget = "cpu-xnnpack"\n')
    for name, words in (
        ("bare", ("no target", "--target")),
        ("emu", ("latencies mean nothing",)),
        ("no", ("no board",)),
    ):
        assert main(["board", "characterize", name, "--boards", str(boards), "--out", str(tmp_path / "t")]) == 2
        one_line(capsys.readouterr().err, *words)
    assert not (tmp_path / "t").exists()
