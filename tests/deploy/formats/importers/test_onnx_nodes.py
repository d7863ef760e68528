"""ONNX's own node tests: every one that consists of operators that are imported, or the reason why it is left out.

The first input is the network's, others are bound as constants. Whatever ONNX's version converter lowers to opset 11
has to give the same.
"""

from __future__ import annotations

import importlib
import re
import warnings
from functools import cache

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from deploy.formats.importers.onnx import HANDLERS, imported  # noqa: E402
from deploy.formats.importers.onnx_graph import OLDEST_OPSET, parse  # noqa: E402
from hil.errors import ModelError  # noqa: E402

MODULES = (
    "add argmax averagepool batch_normalization cast castlike clip concat constant conv convtranspose depthtospace div "
    "dropout expand flatten gather gemm globalaveragepool globalmaxpool hardsigmoid hardswish identity leakyrelu "
    "matmul max maxpool min mul neg pad prelu reducemean relu reshape resize shape sigmoid size slice softmax "
    "spacetodepth split squeeze sub sum swish tanh transpose unsqueeze"
)
FOLDED = {"Constant", "ConstantOfShape"}
BATCHED = ("test_convtranspose_group_2_image_3", "test_spacetodepth", "test_spacetodepth_expanded")
"""Imported with a batch of 1, run on several."""
UNROUNDED = "_to_BFLOAT16"
LEFT_OUT = {
    r"_(u?int\d+|int\d+_trunc)(_expanded)?$|_int8_|_(edge|reflect|wrap)_pad$": "it reads integers",
    r"(pool|convtranspose)_3d(_|$)": "windows over three axes: TFLite's have one or two",
    r"select_last_index": "of equal elements TFLite's ARG_MAX takes the first",
    r"pool_2d_dilations|maxpool_with_argmax": "TFLite's pools are not dilated, and give no places",
    r"_training_": "training, not inference",
    r"batchnorm_.*_training_mode": "training, not inference",
    r"cast(like)?_.*(E\dM\d|INT\d)": "other types than floats",
    r"cubic|antialias|tf_crop|not_larger|not_smaller|half_pixel_symmetric": "interpolation that TFLite does not have",
    r"resize_downsample_(sizes_nearest|scales_linear|scales_linear_align_corners)$|linear_pytorch_half_pixel|"
    r"nearest_(floor_align|round_prefer_ceil_asym|ceil_half)": "TFLite samples at other places",
    r"expand_dim": "it repeats what is computed: TFLite has no such operator on integers",
    r"gather_(0|1|2d_indices|negative_indices)$": "indices that are no slice",
    UNROUNDED: "it rounds to bfloat16; here networks stay in float32",
    r"matmul_(3d|4d|bcast|1d_3d)$": "weights that differ along a batch",
    r"test_(max|min)_(example|two_inputs|float\d+)": "the largest of two tensors: only limits that are constants",
    r"zero_size|allowzero|start_out_of_bounds|greater_than_end": "an empty tensor",
    r"constant_pad": "padding with other numbers than zero",
    r"identity_(sequence|opt)|maxunpool": "no tensors",
}


@cache
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in MODULES.split():
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    from onnx.backend.test.case.node import _NodeTestCases

    known = set(HANDLERS) | FOLDED
    found = {}
    for case in _NodeTestCases:
        kinds = {node.op_type for node in case.model.graph.node}
        if kinds <= known and kinds & set(HANDLERS):
            found[case.name] = case
    return found


def array_of(given) -> np.ndarray:
    return onnx.numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)


def reason(name: str) -> str | None:
    return next((why for pattern, why in LEFT_OUT.items() if re.search(pattern, name)), None)


def network_of(model, inputs, batched=False):
    """`model`, all of whose inputs but the first are constants, and that one."""
    names = [entry.name for entry in model.graph.input]
    bound = {name: array_of(array) for name, array in zip(names[1:], inputs[1:], strict=True)}
    x = array_of(inputs[0]).astype(np.float32)
    shapes = {names[0]: (1, *x.shape[1:])} if batched else {}
    if batched:
        model.graph.input[0].type.tensor_type.shape.dim[0].ClearField("value")
    return imported(parse(model.SerializeToString(), "m.onnx"), "m.onnx", shapes, (), bound), x


def answers(model, inputs, batched):
    """The outputs of `model` for its first input."""
    network, x = network_of(model, inputs, batched)
    return network.run(x)


def held_to(case, model):
    ((inputs, outputs),) = case.data_sets
    got = answers(model, inputs, case.name in BATCHED)
    for entry, wanted in zip(model.graph.output, outputs, strict=True):
        expected = array_of(wanted)
        assert got[entry.name].shape == expected.shape
        np.testing.assert_allclose(got[entry.name], expected.astype(np.float32), rtol=case.rtol, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in cases() if reason(name) is None])
def test_a_node(name):
    case = cases()[name]
    held_to(case, case.model)
    try:
        lowered = onnx.version_converter.convert_version(case.model, OLDEST_OPSET)
    except Exception:
        return  # the converter has no way down for some
    kinds = {node.op_type for node in lowered.graph.node}
    if kinds <= set(HANDLERS) | FOLDED and "Softmax" not in kinds:  # the converter keeps its axis, which means another
        held_to(case, lowered)


def test_what_is_left_out_is_refused_in_one_line_that_names_the_node():
    left_out = [case for case in cases().values() if reason(case.name)]
    accepted = []
    for case in left_out:
        ((inputs, _),) = case.data_sets
        if all(isinstance(array, np.ndarray | np.generic | onnx.TensorProto) for array in inputs):
            try:
                answers(case.model, inputs, False)
                if not re.search(UNROUNDED, case.name):  # imported, but not to the last place
                    accepted.append(case.name)
            except ModelError as error:
                assert "\n" not in str(error) and "m.onnx: " in str(error)
    assert accepted == []


def test_every_reason_is_needed():
    names = list(cases())
    assert [pattern for pattern in LEFT_OUT if not any(re.search(pattern, name) for name in names)] == []


def test_enough_is_tested():
    kept = [name for name in cases() if reason(name) is None]
    assert len(kept) >= 250, len(kept)
