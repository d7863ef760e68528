"""How a network is quantized: the one record that travels from the configuration to every place that quantizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.quant.ranges import observer_of

Granularity = Literal["channel", "tensor"]
FewBits = Literal["asymmetric", "symmetric"]
Rounding = Literal["nearest", "adaptive", "adaptive all"]
OFFSET_BITS = 8  # as `hilnas pack` stores them


@dataclass(frozen=True)
class Scheme:
    """Post-training quantization's choices.

    Attributes:
        granularity: weight scales per output channel, or per tensor.
        observer: how an activation's range follows from its values; as `nas.quant.ranges.observer_of` reads it.
        pooled: the observer sees the values of all calibration batches at once (`nas.quant.pooled_ranges`), and outputs
            keep their smallest and largest; else a range is the union of every batch's.
        equalize: rescale channels across neighbouring convolutions first (`nas.quant.equalize`).
        bias_correction: subtract the mean error from every bias afterwards (`nas.quant.bias_correction`).
        few_bits: weights of fewer than 8 bits span a range of their own, or one that is symmetric about zero as that of
            8-bit weights always is (`nas.quant.weights`).
        rounding: of weights to the nearest, or adaptively (`nas.quant.adaptive_rounding`): those of fewer than 8 bits,
            or all.
    """

    granularity: Granularity = "channel"
    observer: str = "minmax"
    equalize: bool = False
    bias_correction: bool = False
    few_bits: FewBits = "asymmetric"
    rounding: Rounding = "nearest"
    pooled: bool = False

    def __post_init__(self) -> None:
        observer_of(self.observer)  # refuses an unknown one

    @property
    def preparation(self) -> str:
        """The key of `nas.quant.post_training.PREPARATIONS`."""
        return "equalize" if self.equalize else "none"

    def offset_bits(self, outputs: int, bits: int) -> int:
        """What the offsets of a layer with so many outputs take, whose weights have `bits` (as in `IntegerGraph`)."""
        if bits >= 8 or self.few_bits == "symmetric":
            return 0
        return OFFSET_BITS * (outputs if self.granularity == "channel" else 1)


DEFAULT = Scheme()
