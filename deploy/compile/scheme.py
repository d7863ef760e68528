"""Ways to quantize and write full networks, as an experiment names them: `tensor uint8`.

Boards prefer different schemes: the VIP NPU runs per-channel convolutions on slow shaders and uint8 natively; on a CPU
they differ little. A scheme is that of a full network: between int8 and uint8, or between neighbours of another scheme,
every map would have to be requantized, so blocks are not mixed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast, get_args

from deploy.formats.tflite.operators import Form
from nas.errors import ConfigError
from nas.quant.arithmetic import LITERT, Activations, Arithmetic
from nas.quant.scheme import Granularity, Scheme
from nas.quant.simulations import SIMULATIONS


@dataclass(frozen=True)
class QuantizationScheme:
    """Per-channel or per-tensor weight scales, and the type of maps and weights in the file."""

    granularity: Granularity
    activations: Activations = "int8"

    def __post_init__(self) -> None:
        if self.granularity == "channel" and self.activations == "uint8":
            raise ConfigError("scheme 'channel uint8': uint8 weights are per-tensor; write 'tensor uint8'")

    @classmethod
    def parse(cls, text: str) -> QuantizationScheme:
        """Of `tensor uint8`; `ConfigError` for anything that is no scheme."""
        granularity, _, activations = text.partition(" ")
        if granularity not in get_args(Granularity) or activations not in get_args(Activations):
            raise ConfigError(f"scheme '{text}': write 'channel int8', 'tensor int8' or 'tensor uint8'")
        return cls(cast(Granularity, granularity), cast(Activations, activations))

    def __str__(self) -> str:
        return f"{self.granularity} {self.activations}"

    @property
    def slug(self) -> str:
        """In the names of files."""
        return f"{self.granularity}-{self.activations}"

    def scheme(self, base: Scheme) -> Scheme:
        """The experiment's scheme with this granularity."""
        return replace(base, granularity=self.granularity)

    @property
    def form(self) -> Form:
        return Form(activations=self.activations)

    def key(self, arithmetic: Arithmetic) -> tuple[str, ...]:
        """What counts in the keys of its tables: also the arithmetic, where its outputs are not LiteRT's on a CPU."""
        alike = SIMULATIONS[arithmetic][self.activations] is SIMULATIONS[LITERT][self.activations]
        return (str(self),) if alike else (str(self), arithmetic)
