"""One graph per rule of the i.MX8M Plus: each rule decides the operator of a model, and no rule is without one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from deploy.characterize import graphs
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import ModelInfo, OperatorOptions, parse
from deploy.formats.tflite.writer import write
from deploy.targets.inspection import inspect_model
from deploy.targets.placement import load_target, place
from nas.quant.integer_graph import IntegerGraph, QArgMax, QAveragePool, QConv
from tests.deploy.inspected_models import Tensor, model_of_one

NPU = load_target(None, "imx8mp-vx")
SHAPE = (24, 32, 8)
MAP = Tensor((1, *SHAPE))
FLOAT = Tensor((1, *SHAPE), "FLOAT32")


@dataclass(frozen=True)
class Row:
    """What a target says of one operator of a model."""

    name: str
    expected: str
    model: ModelInfo
    operator: int


CHANNEL = {"per_channel": True}
RELU6 = {"activation": "relu6"}


def file(graph: IntegerGraph, form: Form | None = None) -> ModelInfo:
    return parse(write(graph, form=form or Form()), "m.tflite")


def weights(shape: tuple[int, ...], dtype: str = "INT8") -> Tensor:
    size = int(np.prod(shape)) * (4 if dtype == "FLOAT32" else 1)
    return Tensor(shape, dtype, data=bytes(size // 2 if dtype == "INT4" else size))


def convolution(x: Tensor, w: Tensor, output: Tensor = MAP, name: str = "CONV_2D", **options: object) -> ModelInfo:
    given = {"stride": (1, 1), "dilation": (1, 1), **options}
    return model_of_one(name, [x, w], output, OperatorOptions(**given))


def pool(kernel: int, stride: int, name: str = "AVERAGE_POOL_2D") -> ModelInfo:
    return model_of_one(name, [MAP], MAP, OperatorOptions(window=(kernel, kernel), stride=(stride, stride)))


def resized(factor: tuple[float, float], **options: bool) -> ModelInfo:
    size = Tensor((2,), "INT32", data=bytes(8))
    after = Tensor((1, round(24 * factor[0]), round(32 * factor[1]), 8))
    return model_of_one("RESIZE_BILINEAR", [MAP, size], after, OperatorOptions(**options))


def averaged(height: int, width: int) -> ModelInfo:
    return file(graphs.mean((height, width, 8)))


def folded_pooling() -> ModelInfo:
    pooled = (QAveragePool("pool", graphs.INPUT, 3, 1), (22, 30, 8), graphs.SCALE)
    conv = graphs.convolution((22, 30, 8), 1).operators[0]
    assert isinstance(conv, QConv)
    last = (QConv(**{**vars(conv), "x": "pool"}), (22, 30, 8), graphs.SCALE)
    return file(graphs.graph(SHAPE, [pooled, last]))


def classes_of_a_sum() -> ModelInfo:
    """An ADD with RELU6 before ARG_MAX."""
    graph = graphs.addition(SHAPE, **RELU6)
    steps = [(op, SHAPE, graph.tensors[op.name].scale) for op in graph.operators]
    return file(graphs.graph(SHAPE, [*steps, (QArgMax("classes", "add"), (24, 32, 1), 1.0)]))


def on(expected: str, *rows: tuple[str, ModelInfo], operator: int = -1) -> list[Row]:
    """`expected`: place and cost, and whether its outputs are wrong there."""
    return [Row(name, expected, model, operator) for name, model in rows]


ROWS = [
    *on(
        "CPU low",
        ("a detection's postprocessing", model_of_one("CUSTOM", [MAP], MAP, custom="TFLite_Detection_PostProcess")),
        ("int4 weights", convolution(MAP, weights((8, 3, 3, 8), "INT4"))),
        ("int4 values", model_of_one("ADD", [Tensor((1, 4), "INT4"), Tensor((1, 4), "INT4")], MAP)),
        ("a hybrid convolution", convolution(FLOAT, weights((8, 3, 3, 8)), FLOAT)),
        ("int64 classes", model_of_one("ARG_MAX", [MAP], Tensor((1, 24, 32), "INT64"))),
        ("int64 output", model_of_one("CAST", [MAP], Tensor((1, 24, 32, 8), "INT64"))),
        ("int64 input", model_of_one("CAST", [Tensor((1, 4), "INT64")], MAP)),
        ("seven dimensions", model_of_one("ADD", [Tensor((1,) * 7)], Tensor((1,) * 7))),
        ("a dimension of 0", model_of_one("ADD", [Tensor((1, 0, 4))], Tensor((1, 0, 4)))),
        ("groups of a batch", convolution(Tensor((2, *SHAPE)), weights((8, 3, 3, 4)), Tensor((2, *SHAPE)))),
        ("QUANTIZE per channel", model_of_one("QUANTIZE", [FLOAT], Tensor((1, *SHAPE), scale=(0.5,) * 8))),
        (
            "a RESIZE to a computed size",
            model_of_one("RESIZE_NEAREST_NEIGHBOR", [MAP, Tensor((2,), "INT32")], Tensor((1, 48, 64, 8))),
        ),
    ),
    *on("REFUSED low", ("a custom operator", model_of_one("CUSTOM", [MAP], MAP, custom="Mine"))),
    *on(
        "SH high",
        ("per channel at dilation 12", file(graphs.convolution(SHAPE, 3, dilation=12, **CHANNEL))),
        ("per channel", file(graphs.convolution(SHAPE, 3, **CHANNEL))),
        ("a float32 convolution", convolution(FLOAT, weights((8, 3, 3, 8), "FLOAT32"), FLOAT)),
        ("a class map", file(graphs.tail(SHAPE))),
    ),
    *on("TP high", ("effective kernel 17", file(graphs.convolution(SHAPE, 3, dilation=8)))),
    *on(
        "NN medium",
        ("stride 2", file(graphs.convolution(SHAPE, 3, stride=2))),
        ("RELU6 at an output", file(graphs.convolution(SHAPE, 1, **RELU6))),
        ("dilated depthwise", file(graphs.convolution(SHAPE, 5, depthwise=True, dilation=3))),
        ("ADD with RELU6 at an output", file(graphs.addition(SHAPE, **RELU6))),
    ),
    *on("NN medium", ("RELU6 before ARG_MAX", file(graphs.tail(SHAPE, **RELU6))), operator=0),
    *on("NN medium", ("ADD with RELU6 before ARG_MAX", classes_of_a_sum()), operator=1),
    *on("NN none", ("AVERAGE_POOL 3x3 before a convolution", folded_pooling()), operator=0),
    *on(
        "NN low",
        ("1x1 of stride 2", file(graphs.convolution(SHAPE, 1, stride=2))),
        ("effective kernel 15", file(graphs.convolution(SHAPE, 3, dilation=7))),
        ("7x7", file(graphs.convolution(SHAPE, 7))),
        ("depthwise of stride 2", file(graphs.convolution(SHAPE, 5, depthwise=True, stride=2))),
        ("fully connected", file(graphs.fully_connected(16, 8))),
        ("ADD, scales 19 times apart", file(graphs.addition(SHAPE, apart=19))),
        ("MAX_POOL 2x2 of stride 2", file(graphs.max_pool(SHAPE, 2, 2))),
        ("AVERAGE_POOL 2x2 of stride 2", file(graphs.average_pool(SHAPE, 2, 2))),
        ("AVERAGE_POOL 7x7", file(graphs.average_pool(SHAPE, 7, 1))),
        ("MEAN over 7x7", averaged(7, 7)),
        ("RESIZE_NEAREST_NEIGHBOR", model_of_one("RESIZE_NEAREST_NEIGHBOR", [MAP, weights((2,))], MAP)),
    ),
    *on(
        "NN none",
        ("CONCATENATION of equal scales", file(graphs.concatenation(SHAPE))),
        ("RELU", model_of_one("RELU", [MAP], MAP)),
    ),
    *on(
        "SH low",
        ("from 1x1", file(graphs.resize((1, 1, 8), (24, 32)))),
        ("by 3", file(graphs.resize(SHAPE, (72, 96)))),
        ("by 16, align corners", resized((369 / 24, 497 / 32), align_corners=True)),
        ("SOFTMAX", model_of_one("SOFTMAX", [MAP], MAP)),
        ("QUANTIZE float32", model_of_one("QUANTIZE", [FLOAT], MAP)),
        ("RESHAPE", model_of_one("RESHAPE", [MAP], MAP)),
    ),
    *on(
        "SH low wrong",
        ("by 5", file(graphs.resize(SHAPE, (120, 160)))),
        ("by 2 and 4", file(graphs.resize(SHAPE, (48, 128)))),
        ("by 16", file(graphs.resize(SHAPE, (384, 512)))),
        ("by 3/2", file(graphs.resize(SHAPE, (36, 48)))),
    ),
    *on(
        "SH medium",
        ("ADD, scales 25 times apart", file(graphs.addition(SHAPE, apart=25.5))),
        ("ADD, scales 22 times apart", file(graphs.addition(SHAPE, apart=22))),
        ("AVERAGE_POOL over 24x24", pool(24, 1)),
        ("AVERAGE_POOL 8x8 of stride 8", pool(8, 8)),
        ("AVERAGE_POOL 5x5", pool(5, 2)),
        ("MEAN over 16x12", averaged(16, 12)),
        ("MEAN over 8x8", averaged(8, 8)),
    ),
    *on(
        "TP low",
        ("MAX_POOL 3x3", file(graphs.max_pool(SHAPE, 3, 2))),
        ("MAX_POOL 2x2 of stride 1", file(graphs.max_pool(SHAPE, 2, 1))),
        ("CONCATENATION", model_of_one("CONCATENATION", [MAP, Tensor((1, *SHAPE), scale=(0.7,))], MAP)),
        ("HARD_SWISH", model_of_one("HARD_SWISH", [MAP], MAP)),
        ("PAD", file(graphs.pad(SHAPE))),
        ("RELU6", model_of_one("RELU6", [MAP], MAP)),
        ("QUANTIZE uint8", model_of_one("QUANTIZE", [Tensor((1, 4), "UINT8")], Tensor((1, 4), "UINT8"))),
    ),
]


def placed(row: Row):
    return place(inspect_model(row.model), NPU)[row.operator]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_where_the_npu_runs_it_and_at_what_cost(row):
    found = placed(row)
    assert f"{found.place} {found.cost}{' wrong' if found.wrong else ''}" == row.expected, found.reason


def test_no_rule_is_without_a_graph():
    decided = [placed(row).rule for row in ROWS]
    assert [rule.reason for rule in NPU.rules if not any(rule is each for each in decided)] == []
