"""What the board does with the sizes of a job's inputs, and without them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from board_scripts.input_shapes import are_input_shapes, is_open, set_shapes
from board_scripts.interpret import MachineFault, apply_delegates
from tests.board_scripts.script_programs import Runner
from tests.hil import tiny_model

MALFORMED: list[Any] = [
    {}, "x", 3, [], [[]], [["x"]], [["x", 3]], [["x", [0]]], [["x", [True]]], [["x", [1.0]]], [["x", [2**31]]],
    [["", [1]]], [[1, [1]]], [["x\0", [1]]], [["x", [1]], 5], [["x", [1] * 17]], [["x", "12"]],
]  # fmt: skip


@pytest.mark.parametrize("shapes", MALFORMED, ids=str)
def test_what_is_no_list_of_shapes_is_malformed(runner: Runner, tmp_path: Path, shapes: Any) -> None:
    assert not are_input_shapes(shapes)
    answer = runner.ask(tiny_model.int8_open(tmp_path / "open.tflite"), input_shapes=shapes)
    assert (answer["id"], answer["failure"]["kind"]) == (None, "harness")
    assert "give [name, [sizes]] of each input" in answer["failure"]["reason"]


@pytest.mark.parametrize(
    ("signature", "left_open"),
    [([1, 8, 8, 3], False), ([-1, 8, 8, 3], False), ([1, -1, 8, 3], True), ([-1], True), ([0], True), ([], False),
     ([-1, -1], True), ([1, 0, 8], True), ([5], False)],
)  # fmt: skip
def test_a_batch_alone_is_not_open(signature: list[int], left_open: bool) -> None:
    assert is_open(signature) == left_open


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
def test_the_outputs_have_the_size(runner: Runner, tmp_path: Path, kernels: str) -> None:
    shape = [2, 5, 7, 16]
    (tmp_path / "x").write_bytes(bytes(range(100)) * 11 + bytes(20))
    (tmp_path / "y").write_bytes(bytes(value + 3 for value in bytes(range(100)) * 11 + bytes(20)))
    model = tiny_model.int8_open(tmp_path / "open.tflite", signature=(-1, -1, -1, 16))
    files = {"input": str(tmp_path / "x"), "expected": str(tmp_path / "y")}
    answer = runner.ask(model, input_shapes=[["x", shape]], kernels=kernels, **files)
    assert answer["ok"] and answer["parity"] == {"elements": 1120, "mismatched": 0, "max_abs_diff": 0.0}


@pytest.mark.parametrize("measured", ["time", "memory", "layers"])
def test_every_pass_refuses_a_size_that_nobody_gave(runner: Runner, tmp_path: Path, measured: str) -> None:
    answer = runner.ask(tiny_model.int8_open(tmp_path / "open.tflite"), **{"pass": measured})
    assert answer["failure"]["kind"] == "model" and "leaves sizes of input x open" in answer["failure"]["reason"]


def test_a_runtime_without_signatures_runs_at_its_shapes() -> None:
    """As TensorFlow 2.1's, whose details have no such field."""
    resized: list[Any] = []
    details = [{"name": "x", "index": 4, "shape": [1, 8, 8, 3]}, {"name": "y", "index": 7, "shape": [1, 5]}]
    interpreter = SimpleNamespace(get_input_details=lambda: details, resize_tensor_input=lambda *a: resized.append(a))
    set_shapes(interpreter, {})
    set_shapes(interpreter, {"input_shapes": [["x", [1, 16, 16, 3]], ["y", [1, 5]]]})
    assert resized == [(4, [1, 16, 16, 3])]


def test_a_runtime_that_applies_no_delegate_later_is_the_boards_fault() -> None:
    with pytest.raises(MachineFault, match="applies no delegate to a model with other input sizes"):
        apply_delegates(SimpleNamespace(), [object()])
