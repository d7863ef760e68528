"""The three widths of a model's weights: asked for, stored, multiplied. Few bits may save space and no time.

Requested: what the weights were quantized to, from our writer's metadata. Stored: what a weight takes in the file,
by its tensor's type, to which the reader held the tensor's bytes. Executed: what the runtime multiplies in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deploy.formats.tflite.read import BITS, ModelInfo, OperatorInfo


def executed_bits(op: OperatorInfo, model: ModelInfo) -> int | None:
    """The width of an operator's multiplications, from the types of its weights and of what they are multiplied with.

    Rests on LiteRT's kernels: weights of fewer than 8 bits are unpacked to int8 before they are multiplied (with the
    same outputs: tests/deploy/compile/test_compile_target.py), int8 weights meet float values that were quantized to
    int8, int16 values make it 16 bits, and float weights are multiplied as floats. It holds for the i.MX8M Plus too,
    whose delegate takes no weights under 8 bits (deploy/targets/rules/imx8mp-vx.toml); narrower multipliers elsewhere
    were not looked for.
    """
    source = op.inputs[2 if op.name == "TRANSPOSE_CONV" else 0]
    x, weights = model.tensors[source].dtype, model.tensors[op.inputs[1]].dtype
    width = BITS.get(weights)
    if width is None or "FLOAT" in weights:
        return width
    return max(8, width, BITS.get(x, 8) if "INT" in x else 8)


def executed_as(bits: int) -> int:
    """The width in which weights of `bits` are multiplied that our writer stored as int8, its default."""
    return max(8, bits)


def widths(bits: Iterable[int | None]) -> tuple[int, ...]:
    """The distinct ones, ascending."""
    return tuple(sorted({b for b in bits if b is not None}))


def requested_bits(metadata: Mapping[str, Any] | None) -> tuple[int, ...] | None:
    """The widths in the metadata; None for anything that is no width and no list of widths."""
    found = (metadata or {}).get("requested_bits")
    found = [found] if type(found) is int else found
    if not isinstance(found, list) or not all(type(b) is int for b in found):
        return None
    return widths(found)
