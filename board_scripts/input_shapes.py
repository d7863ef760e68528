"""The sizes of a model's inputs: those of its file, or those of the job where the file leaves them open.

Needs Python 3.9 and its standard library.
"""

from __future__ import annotations

from typing import Any

MOST_AXES = 16
MOST_SIZE = 2**31 - 1


def are_input_shapes(value: Any) -> bool:
    """Whether it is [name, [size, ...]] of each input; a size is a whole number of 1 or more."""
    return isinstance(value, list) and len(value) > 0 and all(is_input_shape(entry) for entry in value)


def is_input_shape(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    name, sizes = entry
    named = isinstance(name, str) and name != "" and "\0" not in name
    return named and isinstance(sizes, list) and len(sizes) <= MOST_AXES and all(is_size(size) for size in sizes)


def is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SIZE


def is_open(signature: list[int]) -> bool:
    """Whether a size is left open; a batch alone is not, it is 1. The same as on the host (InputInfo.is_open)."""
    first = 1 if len(signature) > 1 else 0
    return any(size < 1 for size in signature[first:])


def set_shapes(interpreter: Any, job: dict[str, Any]) -> None:
    """Resizes inputs to the job's sizes. Raises ValueError where there are none for an input that has none."""
    details, shapes = interpreter.get_input_details(), job.get("input_shapes")
    if shapes is None:
        for detail in details:
            signature = [int(size) for size in detail.get("shape_signature", detail["shape"])]
            if is_open(signature):
                name = detail["name"]
                raise ValueError(f"its file leaves sizes of input {name} open ({signature}): give its input shape")
        return
    if len(shapes) != len(details):
        raise ValueError(f"{len(shapes)} input shapes were given for {len(details)} inputs")
    for number, detail in enumerate(details):
        if [int(size) for size in detail["shape"]] != shapes[number][1]:
            interpreter.resize_tensor_input(detail["index"], shapes[number][1])


def program_arguments(job: dict[str, Any]) -> list[str]:
    """As benchmark_model reads them: in the model's order, and of a name that is another it only warns."""
    shapes = job.get("input_shapes")
    if not shapes:
        return []
    names = ",".join(name.replace(",", "_") for name, _ in shapes)
    sizes = ":".join(",".join(str(size) for size in shape) for _, shape in shapes)
    return [f"--input_layer={names}", f"--input_layer_shape={sizes}"]
