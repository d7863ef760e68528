"""Placement: the facts of the targets' rules, and what the command makes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from board_scripts import interpret
from deploy.compile.block_forms import random_reference
from deploy.formats.tflite.writer import write
from deploy.targets.inspected_operator import Operator
from deploy.targets.inspection import Inspection, inspect_model
from deploy.targets.placement import UNKNOWN, Placement, lint, load_target, place
from deploy.targets.rule import CONDITIONS, Rule
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.networks.segmenter import Head
from tests.deploy.inspected_models import CHANNEL, TENSOR, one_operator
from tests.deploy.networks import space

NPU, CPU = load_target(None, "imx8mp-vx"), load_target(None, "cpu-xnnpack")
MAP = (1, 24, 32, 64)
EMPTY = inspect_model(one_operator("RELU", [(MAP, b"")], MAP))


def operator(name: str, kernel: int | None = None, /, **facts: object) -> Operator:
    """An int8 operator on a 24x32x64 map, per tensor where it has weights."""
    base = dataclasses.replace(
        EMPTY.operators[0], name=name, input_dtypes=("INT8",), output_dtypes=("INT8",), at_output=False
    )
    if kernel:
        window = {"kernel": (kernel, kernel), "stride": (1, 1), "dilation": (1, 1), "macs": 100}
        weights = {"granularity": TENSOR, "weight_bits": 8, "weight_dtype": "INT8", "weight_shape": (1, 1, 1, 1)}
        base = dataclasses.replace(base, **window, **weights)
    return dataclasses.replace(base, **facts)


def model_of(*operators: Operator) -> Inspection:
    return dataclasses.replace(EMPTY, operators=operators, macs=sum(op.macs for op in operators))


def placed(op: Operator, target=NPU) -> Placement:
    return place(model_of(op), target)[0]


# The facts of the i.MX8M Plus


@pytest.mark.parametrize("dtype", ["INT8", "UINT8"])
@pytest.mark.parametrize(
    ("name", "kernel", "facts", "where"),
    [
        ("CONV_2D", 1, {}, "NN"),
        ("CONV_2D", 3, {"dilation": (4, 4)}, "NN"),
        ("CONV_2D", 5, {"dilation": (3, 3)}, "NN"),
        ("CONV_2D", 3, {"dilation": (7, 7)}, "NN"),
        ("CONV_2D", 7, {"stride": (3, 3)}, "NN"),
        ("CONV_2D", 3, {"dilation": (8, 8)}, "TP"),
        ("DEPTHWISE_CONV_2D", 3, {"dilation": (4, 4)}, "NN"),
        ("DEPTHWISE_CONV_2D", 5, {"dilation": (2, 2)}, "NN"),
        ("DEPTHWISE_CONV_2D", 7, {"dilation": (2, 2)}, "NN"),
        ("DEPTHWISE_CONV_2D", 5, {"dilation": (4, 4)}, "TP"),
        ("DEPTHWISE_CONV_2D", 7, {"dilation": (4, 4)}, "TP"),
        ("CONV_2D", 1, {"granularity": CHANNEL}, "SH"),
        ("DEPTHWISE_CONV_2D", 3, {"granularity": CHANNEL}, "SH"),
        ("DEPTHWISE_CONV_2D", 7, {"granularity": CHANNEL, "dilation": (4, 4)}, "SH"),
        ("CONV_2D", 3, {"weight_bits": 4, "weight_dtype": "INT4"}, "CPU"),
        ("CONV_2D", 3, {"weight_bits": 4, "weight_dtype": "INT4", "granularity": CHANNEL}, "CPU"),
        ("CONV_2D", 3, {"groups": 2, "input_shapes": ((2, 24, 32, 64),)}, "CPU"),
        ("CONV_2D", 3, {"groups": 2}, "NN"),
        ("CONV_2D", 3, {"input_shapes": ((2, 24, 32, 64),)}, "NN"),
        ("ADD", None, {}, "NN"),
        ("ADD", None, {"scale_ratio": 19.0}, "NN"),
        ("ADD", None, {"scale_ratio": 25.0}, "SH"),
        ("MAX_POOL_2D", None, {"kernel": (2, 2), "stride": (2, 2)}, "NN"),
        ("MAX_POOL_2D", None, {"kernel": (3, 3), "stride": (2, 2)}, "TP"),
        ("RESIZE_NEAREST_NEIGHBOR", None, {}, "NN"),
        ("RESIZE_NEAREST_NEIGHBOR", None, {"constant_size": False}, "CPU"),
        ("CONCATENATION", None, {}, "TP"),
        ("CONCATENATION", None, {"equal_scales": True}, "NN"),
        ("HARD_SWISH", None, {}, "TP"),
        ("LOGISTIC", None, {}, "TP"),
        ("LEAKY_RELU", None, {}, "TP"),
        ("RELU6", None, {}, "NN"),
        ("RELU6", None, {"at_output": True}, "TP"),
        ("MEAN", None, {"kernel": (7, 7)}, "NN"),
        ("MEAN", None, {"kernel": (16, 12)}, "SH"),
        ("AVERAGE_POOL_2D", None, {"kernel": (7, 7), "stride": (1, 1)}, "NN"),
        ("AVERAGE_POOL_2D", None, {"kernel": (8, 8), "stride": (8, 8)}, "SH"),
        ("AVERAGE_POOL_2D", None, {"kernel": (24, 24), "stride": (1, 1)}, "SH"),
        ("MUL", None, {}, "SH"),
        ("SOFTMAX", None, {}, "SH"),
        ("QUANTIZE", None, {}, "SH"),
        ("DEQUANTIZE", None, {"output_dtypes": ("FLOAT32",)}, "SH"),
        ("DEQUANTIZE", None, {"output_dtypes": ("FLOAT32",), "per_channel_activations": True}, "CPU"),
        ("ARG_MAX", None, {"output_dtypes": ("INT32",)}, "SH"),
        ("ARG_MAX", None, {"output_dtypes": ("INT64",)}, "CPU"),
        ("ADD", None, {"input_shapes": ((1,) * 7, (1,) * 7)}, "CPU"),
        ("ADD", None, {"input_shapes": ((1,) * 6,)}, "NN"),
        ("ADD", None, {"input_shapes": ((1, 0, 4),)}, "CPU"),
        ("CUSTOM", None, {"custom": "Mine"}, "REFUSED"),
        ("CUSTOM", None, {"custom": "TFLite_Detection_PostProcess"}, "CPU"),
    ],
)
def test_where_the_npu_runs_it(dtype, name, kernel, facts, where):
    found = placed(operator(name, kernel, **{"input_dtypes": (dtype,), **facts}))
    assert (found.place, found.wrong) == (where, False) and found.evidence in ("simulator", "source")
    assert found.fast == (where == "NN") and found.error == (where == "REFUSED")


@pytest.mark.parametrize("dtype", ["INT64", "INT4"])
def test_types_that_the_delegate_refuses(dtype):
    found = placed(operator("ADD", input_dtypes=(dtype,)))
    assert found.place == "CPU" and found.evidence == "source"


def test_hybrid_convolutions_are_refused():
    found = placed(operator("CONV_2D", 3, input_dtypes=("FLOAT32",)))
    assert found.place == "CPU" and "hybrid" in found.reason


@pytest.mark.parametrize(
    ("op", "target"),
    [
        (operator("CONV_2D", 11), NPU),
        (operator("CONV_2D", 3, stride=(3, 3)), NPU),
        (operator("COS"), NPU),
        (operator("RESIZE_BILINEAR", resize="7x", centers="half pixel"), NPU),
        (operator("COS"), CPU),
    ],
)
def test_what_no_rule_knows_is_counted_as_cpu(op, target):
    found = placed(op, target)
    assert (found.place, found.reason, found.evidence, found.fast) == ("CPU", UNKNOWN, None, False)


@pytest.mark.parametrize(
    ("resize", "centers", "wrong"),
    [
        *((f"{n}x", "half pixel", False) for n in (2, 3, 4, 8)),
        ("from 1x1", "half pixel", False),
        ("from 1x1", "align corners", False),
        ("16x", "align corners", False),
        ("unequal", "half pixel", True),
        ("16x", "half pixel", True),
        ("5x", "half pixel", True),
        ("6x", "half pixel", True),
        ("fractional up", "half pixel", True),
    ],
)
def test_bilinear_resizes(resize, centers, wrong):
    found = placed(operator("RESIZE_BILINEAR", resize=resize, centers=centers))
    assert (found.place, found.wrong, found.error) == ("SH", wrong, wrong)
    assert not wrong or "LSB" in found.reason


# A CPU


@pytest.mark.parametrize(("kernel", "fast"), [(3, True), (5, True), (7, False)])
@pytest.mark.parametrize("granularity", [CHANNEL, TENSOR])
def test_depthwise_on_a_cpu(kernel, fast, granularity):
    found = placed(operator("DEPTHWISE_CONV_2D", kernel, granularity=granularity), CPU)
    assert (found.place, found.fast, found.evidence) == ("CPU", fast, "board")


def test_few_bits_buy_no_time_on_a_cpu():
    found = placed(operator("CONV_2D", 3, weight_bits=4, weight_dtype="INT4"), CPU)
    assert not found.fast and "0.55" in found.reason


def test_lint_of_a_model_without_multiply_accumulates():
    assert lint(model_of(operator("SOFTMAX")), NPU, 0.0).holds


# The files of rules


def test_every_rule_can_match_something_and_says_what_it_rests_on():
    fields = {field.name for field in dataclasses.fields(Rule)}
    assert fields - set(CONDITIONS) == {"place", "reason", "evidence", "cost", "wrong", "slow"}
    for target in (NPU, CPU):
        assert all(rule.reason and "\n" not in rule.reason for rule in target.rules)
    assert not [rule for rule in NPU.rules if rule.evidence == "board"]  # nothing was measured on one yet


RULES = """
description = "d"
fast_place = "NN"
[[rules]]
operators = ["CONV_2D"]
place = "NN"
reason = "r"
evidence = "source"
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("operators =", "operatrs =", ("unknown key 'rules.0.operatrs'", "did you mean 'operators'?")),
        ("fast_place", "fast_plaice", ("unknown key 'fast_plaice'", "did you mean 'fast_place'?")),
        ("CONV_2D", "CONV2D", ("'rules.0'", "did you mean 'CONV_2D'?")),
        ('reason = "r"', 'reason = "r"\ninput_dtypes = ["INT9"]', ("input_dtypes has no 'INT9'", "did you mean")),
        ('place = "NN"\nreason', 'place = "XX"\nreason', ("rules.0.place", "'NN'")),
        ('"source"', '"hearsay"', ("rules.0.evidence", "'simulator'")),
        ('reason = "r"', 'reason = "r"\nwrong = "maybe"', ("rules.0.wrong",)),
        ('reason = "r"', "", ("rules.0.reason",)),
        ("[[rules]]", "[[rules", ("not readable as TOML",)),
    ],
)
def test_a_wrong_rule_is_named(tmp_path, old, new, words):
    (tmp_path / "t.toml").write_text(RULES)
    assert placed(operator("CONV_2D", 3), load_target(tmp_path, "t")).place == "NN"
    (tmp_path / "t.toml").write_text(RULES.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_target(tmp_path, "t")
    assert all(word in str(caught.value) for word in ("t.toml", *words)), caught.value


def test_the_first_rule_that_matches_decides(tmp_path):
    rule = RULES.partition("[[rules]]")[2]
    (tmp_path / "t.toml").write_text(f"{RULES}\n[[rules]]{rule.replace('NN', 'SH')}")
    assert placed(operator("CONV_2D", 3), load_target(tmp_path, "t")).place == "NN"


def test_an_unknown_target():
    with pytest.raises(UsageError, match="did you mean 'imx8mp-vx'"):
        load_target(None, "imx8mp")
    with pytest.raises(UsageError, match=r"target 'npu': not in /none/targets, .*; there are cpu-xnnpack, imx8mp-vx"):
        load_target(Path("/none/targets"), "npu")


def test_what_a_real_delegate_leaves_is_named(tmp_path):
    """XNNPACK, as the delegate that is at hand, takes all of a student but the class map's ARG_MAX."""
    content = write(random_reference(space("demo"), (64, 96), head=Head(16, (2, 4))))
    (tmp_path / "student.tflite").write_bytes(content)
    interpreter = interpret.import_runtime().Interpreter(str(tmp_path / "student.tflite"))
    interpreter.allocate_tensors()
    assert interpret.left_to_cpu(interpret.nodes_of(interpreter)) == ["ARG_MAX"]
