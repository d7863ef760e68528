"""Names of the arithmetics that hardware may follow; what each computes: `nas.quant.simulations`. Cheap to import."""

from __future__ import annotations

from typing import Literal

Activations = Literal["int8", "uint8"]
"""The type of maps and weights in a file."""

Arithmetic = Literal["litert", "xnnpack"]
LITERT: Arithmetic = "litert"
"""What a CPU follows, and whatever names no other."""
