"""The sizes of a model's inputs: which ones its file leaves open, and what a user gave for them.

A converter writes a size that it does not know as 1, and -1 into the tensor's signature: such a model runs, at a size
that nobody means. Of a batch alone, 1 is what everybody means.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from deploy.formats.tflite.read import ModelInfo, TensorInfo
from hil.errors import ModelError, UsageError
from hil.input_shape import InputShape, text_of

OPTION = "--input-shape"
LETTERS = {1: "H", 2: "W"}  # of the axes of an image


def declared(tensor: TensorInfo) -> tuple[int, ...]:
    """An input's shape with -1 for each size that its file leaves open."""
    return tuple(-1 if size < 1 else size for size in tensor.signature or tensor.shape)


def is_open(tensor: TensorInfo) -> bool:
    """Whether a size is left open, other than the batch."""
    shape = declared(tensor)
    return -1 in shape[1 if len(shape) > 1 else 0 :]


def inputs_of(model: ModelInfo) -> tuple[TensorInfo, ...]:
    """In order, each with a name."""
    found = (model.tensors[index] for index in model.inputs)
    return tuple(replace(tensor, name=tensor.name or "?") for tensor in found)


def options_for(model: ModelInfo) -> str:
    """The options that give all open inputs their sizes, with letters in place of those to choose; "" if none is."""
    return " ".join(f"{OPTION} {shlex.quote(_pattern(tensor))}" for tensor in inputs_of(model) if is_open(tensor))


def _pattern(tensor: TensorInfo) -> str:
    shape = declared(tensor)
    image = len(shape) == 4 and shape[1] == shape[2] == -1
    sizes = [str(size) if size > 0 else LETTERS.get(axis, "N") if image else "N" for axis, size in enumerate(shape)]
    if len(shape) > 1 and shape[0] == -1:
        sizes[0] = "1"
    name = str(InputShape(tensor.name, ())).rpartition("=")[0]
    return f"{name}={'x'.join(sizes)}"


def input_shapes(model: ModelInfo, given: Sequence[InputShape], where: str) -> tuple[InputShape, ...]:
    """The shapes of all inputs, in order, where those in `given` have theirs; empty where all are those of the file.

    A shape for an input that the model does not have is for another model. Raises `UsageError` naming `where` for an
    input that is left open, and for a shape that contradicts the file's.
    """
    wanted = {entry.name: entry.shape for entry in given}
    for tensor in inputs_of(model):
        if tensor.name in wanted:
            _check(tensor, wanted[tensor.name], where)
    left = [tensor for tensor in inputs_of(model) if is_open(tensor) and tensor.name not in wanted]
    if left:
        names = ", ".join(f"'{tensor.name}' {list(declared(tensor))}" for tensor in left)
        raise UsageError(
            f"{where}: its file leaves sizes of its inputs open ({names}; -1: any), and would run at 1 there; "
            f"add {options_for(model)}, with your sizes in place of the letters"
        )
    shapes = [(tensor, wanted.get(tensor.name, tensor.shape)) for tensor in inputs_of(model)]
    if all(shape == tensor.shape and not is_open(tensor) for tensor, shape in shapes):
        return ()
    return tuple(InputShape(tensor.name, shape) for tensor, shape in shapes)


def _check(tensor: TensorInfo, shape: tuple[int, ...], where: str) -> None:
    """Of an open input only the open sizes and the batch are to choose; of any other the runtime says what it takes."""
    file = declared(tensor)
    fits = len(shape) == len(file)
    if fits and is_open(tensor):
        fits = all(size in (-1, chosen) for size, chosen in zip(file[1:], shape[1:], strict=True))
    if not fits:
        raise UsageError(
            f"{where}: {OPTION} {InputShape(tensor.name, shape)} contradicts the file, whose input '{tensor.name}' is "
            f"{list(file)} (-1: any size); give as many sizes, and those that are there"
        )


def check_names(given: Sequence[InputShape], models: Sequence[ModelInfo]) -> None:
    """Raises `UsageError` for a shape of no model's input, and for two shapes of one name."""
    names = [tensor.name for model in models for tensor in inputs_of(model)]
    for i, entry in enumerate(given):
        if entry.name not in names:
            there = ", ".join(f"'{name}'" for name in dict.fromkeys(names))
            raise UsageError(f"{OPTION} {entry}: no model has an input '{entry.name}'; there is {there}")
        if entry.name in (other.name for other in given[:i]):
            raise UsageError(f"{OPTION} {entry}: '{entry.name}' has a shape already; run the command once for each")


def resized(model: ModelInfo, content: bytes, shapes: Sequence[InputShape], where: str) -> ModelInfo:
    """The model in a file of these bytes with the shapes that its tensors have where its inputs have `shapes`.

    The runtime infers them. Raises `ModelError` naming `where` for shapes that it does not take.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
        for detail, entry in zip(interpreter.get_input_details(), shapes, strict=True):
            interpreter.resize_tensor_input(detail["index"], entry.shape)
        interpreter.allocate_tensors()
        found = {int(d["index"]): tuple(int(size) for size in d["shape"]) for d in interpreter.get_tensor_details()}
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{where}: the runtime does not take inputs {text_of(shapes)}: {error}") from None
    tensors = [
        tensor if len(tensor.data) else replace(tensor, shape=found.get(index, tensor.shape), signature=())
        for index, tensor in enumerate(model.tensors)
    ]
    return replace(model, tensors=tuple(tensors))
