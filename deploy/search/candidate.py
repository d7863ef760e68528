"""A model that a search proposes for a budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.compile.scheme import QuantizationScheme
from nas.space import Architecture


@dataclass(frozen=True)
class Candidate:
    """An architecture, how it is quantized, and what it is ranked by.

    Attributes:
        scheme: None where the experiment has one scheme for all.
        estimate: of how far it is from the teacher, less is better; the model is the same one however it is ranked.
    """

    architecture: Architecture
    scheme: QuantizationScheme | None
    estimate: float = field(compare=False)

    def __str__(self) -> str:
        return f"{self.architecture} ({self.scheme})" if self.scheme else str(self.architecture)
