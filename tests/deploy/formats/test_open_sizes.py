"""Which sizes a file leaves open, and what a user's shapes make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deploy.formats.tflite.input_shapes import check_names, declared, input_shapes, inputs_of, options_for, resized
from deploy.formats.tflite.read import ModelInfo, parse, read
from deploy.targets.inspection import inspect_model
from hil.errors import ModelError, UsageError
from hil.input_shape import InputShape
from tests.deploy.inspected_models import edited, written
from tests.hil import tiny_model


def opened(*signature: int, shape: list[int] | None = None) -> Callable[[Any], None]:
    """An edit of a model: its input has this signature, and 1 in place of what is open."""

    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        tensor = graph.tensors[graph.inputs[0]]
        tensor.shapeSignature, tensor.shape = list(signature), shape or [max(size, 1) for size in signature]

    return change


def model_of(*signature: int) -> tuple[ModelInfo, bytes]:
    content = edited(written(), opened(*signature))
    return parse(content, "m"), content


@pytest.mark.parametrize(
    ("signature", "options"),
    [
        ((1, 9, 10, 4), ""),
        ((-1, 9, 10, 4), ""),
        ((1, -1, -1, 4), "--input-shape in=1xHxWx4"),
        ((-1, -1, -1, 4), "--input-shape in=1xHxWx4"),
        ((1, -1, 10, 4), "--input-shape in=1xNx10x4"),
        ((-1, 9, 10, -1), "--input-shape in=1x9x10xN"),
    ],
)
def test_the_option_that_helps(signature, options):
    model, _ = model_of(*signature)
    assert declared(inputs_of(model)[0]) == signature
    assert options_for(model) == options


def test_a_name_that_a_shell_would_split(tmp_path):
    model = read(tiny_model.int8_open(tmp_path / "m.tflite", name="my input;1", signature=(-1, -1)))
    assert options_for(model) == "--input-shape 'my%20input;1=1xN'"
    assert InputShape.parse("my%20input;1=1x5").name == "my input;1"


def test_a_vector_of_any_length_has_no_batch(tmp_path):
    assert options_for(read(tiny_model.int8_open(tmp_path / "m.tflite", signature=(-1,)))) == "--input-shape x=N"


def test_a_signature_of_another_rank_says_nothing():
    assert options_for(parse(edited(written(), opened(-1, -1, shape=[1, 9, 10, 4])), "m")) == ""


def test_shapes_of_all_inputs():
    model, _ = model_of(1, -1, -1, 4)
    given = [InputShape("in", (1, 18, 20, 4)), InputShape("of another model", (1,))]
    assert input_shapes(model, given, "m") == (InputShape("in", (1, 18, 20, 4)),)


def test_shapes_as_the_file_has_them_are_none():
    """So that the same measurement has the same identity, however it was asked for."""
    model = parse(written(), "m")
    assert input_shapes(model, [InputShape("in", (1, 9, 10, 4))], "m") == ()
    assert input_shapes(model, [], "m") == ()
    batch, _ = model_of(-1, 9, 10, 4)
    assert input_shapes(batch, [InputShape("in", (1, 9, 10, 4))], "m") == ()
    assert input_shapes(batch, [InputShape("in", (8, 9, 10, 4))], "m") == (InputShape("in", (8, 9, 10, 4)),)
    one, _ = model_of(1, -1, -1, 4)
    assert input_shapes(one, [InputShape("in", (1, 1, 1, 4))], "m")  # somebody means it


@pytest.mark.parametrize("shape", [(18, 20, 4), (1, 4, 18, 20), (1, 18, 20, 3), (1, 18, 20, 4, 1)])
def test_a_shape_that_contradicts_the_file(shape):
    model, _ = model_of(1, -1, -1, 4)
    with pytest.raises(UsageError, match=r"m: --input-shape in=[0-9x]+ contradicts .* 'in' is \[1, -1, -1, 4\]"):
        input_shapes(model, [InputShape("in", shape)], "m")


def test_a_size_that_is_missing():
    said = r"m: its file leaves .*'in' \[1, -1, -1, 4\]; -1: any.*add --input-shape in=1xHxW"
    with pytest.raises(UsageError, match=said):
        input_shapes(model_of(1, -1, -1, 4)[0], [], "m")


def test_names_of_no_input():
    model, _ = model_of(1, -1, -1, 4)
    with pytest.raises(UsageError, match="no model has an input 'im'; there is 'in'"):
        check_names([InputShape("im", (1,))], [model])
    with pytest.raises(UsageError, match="'in' has a shape already"):
        check_names([InputShape("in", (1,)), InputShape("in", (2,))], [model])


def test_the_sizes_of_a_resized_model():
    """Multiply-accumulates by hand: 18x20 through a convolution of stride 2 is 9x10."""
    model, content = model_of(1, -1, -1, 4)
    found = inspect_model(resized(model, content, [InputShape("in", (1, 18, 20, 4))], "m"))
    a, b, c, d, e, f = found.operators
    assert (a.output_shapes, c.input_shapes) == (((1, 9, 10, 6),), ((1, 9, 10, 6),) * 2)
    assert (a.macs, b.macs, d.macs) == (9 * 10 * 6 * 3 * 3 * 4, 9 * 10 * 6 * 5 * 5, 9 * 10 * 3 * 6)
    assert (e.output_shapes, f.output_shapes) == (((1, 10, 10, 3),), ((1, 10, 10),))
    assert found.inputs[0].shape == (1, 18, 20, 4) and found.inputs[0].signature == ()
    assert [op.weight_shape for op in (a, b, d)] == [(6, 3, 3, 4), (1, 5, 5, 6), (3, 1, 1, 6)]


def test_a_shape_that_the_runtime_does_not_take():
    content = written()
    with pytest.raises(ModelError, match="m: the runtime does not take inputs in=1x9x10x7: ") as caught:
        resized(parse(content, "m"), content, [InputShape("in", (1, 9, 10, 7))], "m")
    assert "\n" not in str(caught.value)
