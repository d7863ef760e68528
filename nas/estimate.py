"""A number with its doubt: the one form in which measured and predicted values travel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.settings import STRICT

Source = Literal["computed", "measured", "predicted", "corrected", "replayed", "resampled"]


@dataclass(frozen=True)
class Estimate:
    """One number; its unit is that of the table or record which holds it.

    Attributes:
        value: the estimate itself.
        std_error: its standard error; None where only the interval is known.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        n: samples behind it; 0 where it follows from others alone.
        source: measured on a board; predicted by a model of other measurements; corrected by measurements of full
            networks; replayed from a recording; computed, which leaves no doubt (a size in bits); or computed on images
            that are resampled for the interval.
    """

    value: float
    std_error: float | None
    low: float
    high: float
    n: int
    source: Source
    __pydantic_config__ = STRICT

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """A number that was computed, not sampled."""
        return cls(value, 0.0, value, value, 1, "computed")
