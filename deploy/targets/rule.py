"""One rule of a target: the conditions that an operator meets, where it then runs, and what that costs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

from deploy.targets.inspected_operator import Operator, Shape, WeightScales
from nas.errors import ConfigError
from nas.settings import STRICT

Place = Literal["NN", "TP", "SH", "CPU", "REFUSED"]
Evidence = Literal["simulator", "board", "source", "assumed"]
"""Seen on the vendor's simulator, on a board, in the source or documents; or assumed and not yet checked."""
Cost = Literal["none", "low", "medium", "high"]
"""No layer of its own; one layer; several times the same operator's time where it is fast; may outweigh all others."""
COSTS: tuple[Cost, ...] = get_args(Cost)
Texts = tuple[str, ...] | None


@dataclass(frozen=True)
class Rule:
    """Where operators run for which every condition that is given holds.

    Attributes:
        place: NN, TP, SH, CPU, or REFUSED where the model does not run at all.
        cost: what it costs there.
        wrong: it runs there and gives wrong outputs.
        slow: it runs on the fast place, far slower than other operators of its kind.
        operators, custom: TFLite's names (any operator if left out), and codes of CUSTOM ones.
        input_dtypes, output_dtypes: any of the inputs (constants aside) or outputs has one of these.
        granularity: of the weights: 'per tensor', 'per channel', 'per block'.
        kernel, stride, dilation: height x width, as '3x3'.
        effective_kernel_min, effective_kernel_max: of the larger side, (kernel - 1) * dilation + 1.
        resize, centers: words of `resize_ratio`; 'half pixel', 'align corners' or 'corner'.
        window_min, window_max: of the elements under a kernel, height times width.
        scale_ratio_min, scale_ratio_max: of `Operator.scale_ratio`.
        readers: one of the operators that read its outputs has one of these names.
        rank_over, zero_dimension, batch_over: of any input or output.
    """

    __pydantic_config__ = STRICT

    place: Place
    reason: str
    evidence: Evidence
    cost: Cost = "low"
    wrong: bool = False
    slow: bool = False
    operators: Texts = None
    custom: Texts = None
    input_dtypes: Texts = None
    output_dtypes: Texts = None
    weight_dtypes: Texts = None
    weight_bits: tuple[int, ...] | None = None
    granularity: tuple[WeightScales, ...] | None = None
    activation: Texts = None
    kernel: Texts = None
    stride: Texts = None
    dilation: Texts = None
    effective_kernel_min: int | None = None
    effective_kernel_max: int | None = None
    grouped: bool | None = None
    resize: Texts = None
    centers: tuple[Literal["half pixel", "align corners", "corner"], ...] | None = None
    constant_size: bool | None = None
    per_channel_activations: bool | None = None
    rank_over: int | None = None
    zero_dimension: bool | None = None
    batch_over: int | None = None
    at_output: bool | None = None
    window_min: int | None = None
    window_max: int | None = None
    scale_ratio_min: float | None = None
    scale_ratio_max: float | None = None
    equal_scales: bool | None = None
    readers: Texts = None


CONDITIONS: Mapping[str, Callable[[Any, Operator], bool]] = {
    "operators": lambda names, op: op.name in names,
    "custom": lambda codes, op: op.custom in codes,
    "input_dtypes": lambda dtypes, op: bool(set(dtypes) & set(op.input_dtypes)),
    "output_dtypes": lambda dtypes, op: bool(set(dtypes) & set(op.output_dtypes)),
    "weight_dtypes": lambda dtypes, op: op.weight_dtype in dtypes,
    "weight_bits": lambda bits, op: op.weight_bits in bits,
    "granularity": lambda words, op: op.granularity in words,
    "activation": lambda words, op: op.activation in words,
    "kernel": lambda sizes, op: by(op.kernel) in sizes,
    "stride": lambda sizes, op: by(op.stride) in sizes,
    "dilation": lambda sizes, op: by(op.dilation) in sizes,
    "effective_kernel_min": lambda least, op: (effective_kernel(op) or 0) >= least,
    "effective_kernel_max": lambda most, op: 0 < (effective_kernel(op) or 0) <= most,
    "grouped": lambda wanted, op: (op.groups > 1) == wanted,
    "resize": lambda words, op: op.resize in words,
    "centers": lambda words, op: op.centers in words,
    "constant_size": lambda wanted, op: op.constant_size == wanted,
    "per_channel_activations": lambda wanted, op: op.per_channel_activations == wanted,
    "rank_over": lambda most, op: any(len(shape) > most for shape in _shapes(op)),
    "zero_dimension": lambda wanted, op: any(0 in shape for shape in _shapes(op)) == wanted,
    "batch_over": lambda most, op: any(shape[:1] > (most,) for shape in _shapes(op)),
    "at_output": lambda wanted, op: op.at_output == wanted,
    "window_min": lambda least, op: op.kernel is not None and prod(op.kernel) >= least,
    "window_max": lambda most, op: op.kernel is not None and prod(op.kernel) <= most,
    "scale_ratio_min": lambda least, op: op.scale_ratio >= least,
    "scale_ratio_max": lambda most, op: op.scale_ratio <= most,
    "equal_scales": lambda wanted, op: op.equal_scales == wanted,
    "readers": lambda names, op: bool(set(names) & set(op.readers)),
}


def by(size: Shape | None) -> str | None:
    """(3, 5) as '3x5'."""
    return None if size is None else "x".join(map(str, size))


def effective_kernel(op: Operator) -> int | None:
    """The larger side of the kernel with its dilation; None where there is no kernel."""
    if op.kernel is None:
        return None
    return max((k - 1) * d + 1 for k, d in zip(op.kernel, op.dilation or (1, 1), strict=True))


def _shapes(op: Operator) -> Iterable[Shape]:
    return (*op.input_shapes, *op.output_shapes)


def matches(rule: Rule, op: Operator) -> bool:
    """Whether every condition of the rule holds."""
    return all(holds(getattr(rule, name), op) for name, holds in CONDITIONS.items() if getattr(rule, name) is not None)


def check_words(where: str, rule: Rule) -> None:
    """Raises ConfigError for a misspelt name of an operator or type: it would never match, and nobody would notice."""
    import ai_edge_litert.schema_py_generated as schema

    for key, known in (
        ("operators", vars(schema.BuiltinOperator)),
        ("readers", vars(schema.BuiltinOperator)),
        ("input_dtypes", vars(schema.TensorType)),
        ("output_dtypes", vars(schema.TensorType)),
        ("weight_dtypes", vars(schema.TensorType)),
        ("activation", vars(schema.ActivationFunctionType)),
    ):
        for word in getattr(rule, key) or ():
            if word not in known:
                close = difflib.get_close_matches(word, [n for n in known if n[0].isupper()], n=1)
                raise ConfigError(
                    f"{where}: {key} has no '{word}'" + (f"; did you mean '{close[0]}'?" if close else " in TFLite")
                )
