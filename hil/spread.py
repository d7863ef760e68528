"""What two right kernel sets differ by on one model and input, against which a full network's outputs are compared.

Kernel sets round the last place differently, and depth magnifies that: little with trained weights, on up to a third of
a class map's pixels with random ones. No fixed tolerance of a board fits both.
"""

from __future__ import annotations

from dataclasses import dataclass

from hil.measurement import Parity

FACTOR = (
    1.5  # random weights, the NPU's simulator: 30 to 35 % of pixels differed, where the two kernel sets did on 30 %
)
MOST = 0.5  # of class maps: outputs that differ on more are not alike, whatever kernel sets do


@dataclass(frozen=True)
class KernelSpread:
    """How far XNNPACK and the reference kernels are apart on a file.

    Attributes:
        share: of the output elements, that differ at all.
        max_abs_diff: the largest difference of scores; None of a class map, where a distance means nothing.
    """

    share: float
    max_abs_diff: float | None = None

    @property
    def of_classes(self) -> bool:
        return self.max_abs_diff is None

    @property
    def allowed(self) -> float:
        """The share of a class map's elements that may differ; of scores the most by which one may."""
        return min(FACTOR * self.share, MOST) if self.max_abs_diff is None else FACTOR * self.max_abs_diff

    def allows(self, parity: Parity) -> bool:
        """Whether outputs are no further from the expected ones than those of another right kernel set may be."""
        if self.of_classes:
            return parity.mismatched <= self.allowed * parity.elements
        return parity.max_abs_diff <= self.allowed

    def __str__(self) -> str:
        if self.of_classes:
            allowed, apart = f"{self.allowed:.3g} of them", f"on {self.share:.3g}"
        else:
            allowed, apart = f"by {self.allowed:g}", f"by {self.max_abs_diff:g}"
        return f"{allowed}, since XNNPACK and the reference kernels differ {apart} for this file"
