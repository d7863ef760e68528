"""What a search hands on before anything is retrained: an architecture, its scheme, and what it is ranked by."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.compile.scheme import QuantizationScheme
from nas.space import Architecture


@dataclass(frozen=True)
class Candidate:
    """A model that a search considers; the same one however it is ranked.

    Attributes:
        scheme: that it is quantized by; None where the experiment has one only.
        estimate: what it is ranked by before any training, less being better: the sum over its blocks, or with
            `[search] candidates` the divergence of its integers' outputs from the teacher's.
        score: of its integers on held-out training images after a brief fine-tuning, in percent; None without one.
    """

    architecture: Architecture
    scheme: QuantizationScheme | None
    estimate: float = field(compare=False)
    score: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.architecture} ({self.scheme})" if self.scheme else str(self.architecture)
