"""What one TFLite operator consists of, beside the feature maps that it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from numpy.typing import NDArray

Codes = schema.BuiltinOperator
Options = schema.BuiltinOptions
ACTIVATIONS = {name: getattr(schema.ActivationFunctionType, name.upper()) for name in ("none", "relu", "relu6")}
INT4, INT8, UINT8, INT32 = (getattr(schema.TensorType, name) for name in ("INT4", "INT8", "UINT8", "INT32"))


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant tensor; quantized when it has a scale, along `axis` when that has several entries."""

    name: str
    data: NDArray[Any]
    scale: NDArray[np.float32] | None = None
    axis: int = 0
    bits: int = 8  # of quantized weights
    asymmetric: bool = False  # their integers are not about zero
    zero_point: int = 0


@dataclass(frozen=True, eq=False)
class Emitted:
    """One TFLite operator: its inputs are `before`, the feature maps that it reads, then `constants`."""

    code: int
    version: int
    options_type: int
    options: Any
    constants: tuple[Constant, ...] = ()
    before: tuple[Constant, ...] = ()


def integers(name: str, values: object) -> Constant:
    """Shapes, axes and positions."""
    return Constant(name, np.array(values, np.int32))
