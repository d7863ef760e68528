"""`hilnas lint` and the placement of real files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest

from deploy.cli import main
from deploy.formats.tflite.read import read
from deploy.targets.inspection import Inspection, inspect_model
from deploy.targets.placement import lint, load_target, place
from tests.deploy.inspected_models import CHANNEL, TENSOR, edited, written
from tests.deploy.networks import REPOSITORY
from tests.deploy.tiny_experiment import one_line

NPU = load_target(None, "imx8mp-vx")


def inspected(content: bytes, folder: Path) -> Inspection:
    path = folder / "m.tflite"
    path.write_bytes(content)
    return inspect_model(read(path))


def _int64(model):
    graph = model.subgraphs[0]
    graph.tensors[graph.outputs[0]].type = schema.TensorType.INT64


@pytest.mark.parametrize(
    ("granularity", "places"),
    [(TENSOR, ["NN", "NN", "NN", "NN", "SH", "SH"]), (CHANNEL, ["SH", "SH", "NN", "SH", "SH", "SH"])],
)
def test_written_models(tmp_path, granularity, places):
    assert [p.place for p in place(inspected(written(granularity), tmp_path), NPU)] == places


def test_lint_counts_multiply_accumulates(tmp_path):
    found = lint(inspected(written(TENSOR, dilation=4), tmp_path), NPU, 0.3)
    assert [p.operator.name for p in found.off] == ["DEPTHWISE_CONV_2D", "RESIZE_BILINEAR", "ARG_MAX"]
    assert found.off_macs == 3750 and found.off_share == 3750 / 9600 and not found.holds and not found.errors
    assert dataclasses.replace(found, allowed_share=0.4).holds
    assert [p.operator.index for p in found.costly] == [0]  # a stride of 2
    assert len(found.notes) == 3 and "int8" in found.notes[0]


def test_what_runs_wrong_fails_whatever_share_is_allowed(tmp_path):
    found = lint(inspected(written(TENSOR, size=(10, 20)), tmp_path), NPU, 1.0)
    assert [p.operator.index for p in found.errors] == [4] and not found.holds


def test_int4_weights_leave_alone(tmp_path):
    """int4 weights in a file whose other convolutions stay on the NN cores."""

    def int4(model):
        tensor = model.subgraphs[0].tensors[model.subgraphs[0].operators[0].inputs[1]]
        tensor.type = schema.TensorType.INT4
        model.buffers[tensor.buffer].data = np.zeros(108, np.uint8)

    found = lint(inspected(edited(written(TENSOR), int4), tmp_path), NPU, 0.0)
    assert (found.off[0].place, found.off[0].operator.index, found.off_macs) == ("CPU", 0, 5400)


# The command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)

    def run(content: bytes, *options: str) -> tuple[int, str, str]:
        path = tmp_path / "m.tflite"
        path.write_bytes(content)
        code = main(["lint", str(path), "--target", "imx8mp-vx", *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_lint_of_a_model_that_fits(command):
    code, said, wrong = command(written(TENSOR))
    assert code == 0 and not wrong
    assert "ok on imx8mp-vx: 0.0% of 0.010 MMACs off NN" in said and "1 ARG_MAX (5)" in said


def test_lint_of_a_model_that_leaves_the_cores(command):
    code, said, wrong = command(written(CHANNEL))
    assert code == 1
    one_line(wrong, "m.tflite on imx8mp-vx", "100.0% of the MACs off NN", "--max-off-nn")
    assert said.splitlines()[0].startswith("off   SH  high     60.9% of MACs  2 CONV_2D (0, 3): per-channel weights")
    assert command(written(CHANNEL), "--max-off-nn", "1")[0] == 0


def test_findings_stand_in_the_order_of_what_they_cost(command):
    """A wrong RESIZE first, then ARG_MAX before a stride of 2, whatever multiply-accumulates they have."""
    _, said, _ = command(written(TENSOR, size=(80, 80)))
    assert [line.split()[:3] for line in said.splitlines()[:3]] == [
        ["ERROR", "SH", "low"],
        ["off", "SH", "high"],
        ["cost", "NN", "medium"],
    ]


def test_lint_of_a_model_that_answers_wrongly(command):
    code, said, wrong = command(written(TENSOR, size=(80, 80)))
    assert code == 1 and "ERROR SH" in said and "4x, then by 4x" in said
    one_line(wrong, "1 operators wrong or refused")


def test_lint_of_int64_class_maps(command):
    code, said, _ = command(edited(written(TENSOR), _int64))
    assert code == 0 and "off   CPU low       0.0% of MACs  1 ARG_MAX (5): Int64 output is not supported" in said


def test_lint_for_a_machine(command):
    code, said, _ = command(written(CHANNEL), "--json")
    record = json.loads(said)
    assert code == 1 and record["holds"] is False and record["off_share"] == 1.0
    assert [entry["index"] for entry in record["off"]] == [0, 1, 3, 4, 5]
    assert {entry["place"] for entry in record["off"]} == {"SH"} and record["errors"] == []
    assert [entry["cost"] for entry in record["off"]] == ["high", "high", "high", "low", "high"]
    assert record["costly"] == []


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan"])
def test_an_impossible_share(command, share):
    code, _, wrong = command(written(TENSOR), f"--max-off-nn={share}")
    assert code == 2
    one_line(wrong, "--max-off-nn", "within 0 and 1")


@pytest.mark.parametrize("words", [["inspect"], ["lint"]])
def test_a_target_that_there_is_not(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "m.tflite").write_bytes(written(TENSOR))
    assert main([*words, str(tmp_path / "m.tflite"), "--target", "imx8mp-xv"]) == 2
    one_line(capsys.readouterr().err, "target 'imx8mp-xv'", "did you mean 'imx8mp-vx'?")
