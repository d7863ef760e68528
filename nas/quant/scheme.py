"""How a network is quantized: the one record that travels from the configuration to every place that quantizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.quant.ranges import observer_of

Granularity = Literal["channel", "tensor"]


@dataclass(frozen=True)
class Scheme:
    """Post-training quantization's choices.

    Attributes:
        granularity: weight scales per output channel, or per tensor.
        observer: how an activation's range follows from its values; as `nas.quant.ranges.observer_of` reads it.
        equalize: rescale channels across neighbouring convolutions first (`nas.quant.equalize`).
        bias_correction: subtract the mean error from every bias afterwards (`nas.quant.bias_correction`).
    """

    granularity: Granularity = "channel"
    observer: str = "minmax"
    equalize: bool = False
    bias_correction: bool = False

    def __post_init__(self) -> None:
        observer_of(self.observer)  # refuses an unknown one

    @property
    def preparation(self) -> str:
        """The key of `nas.quant.post_training.PREPARATIONS`."""
        return "equalize" if self.equalize else "none"


DEFAULT = Scheme()
