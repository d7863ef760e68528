"""What post-training quantization may choose: the scheme of the file, and what is done to weights and biases."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from deploy.compile.scheme import QuantizationScheme
from nas.quant.scheme import DEFAULT, Scheme

SCHEMES = (QuantizationScheme("channel"), QuantizationScheme("tensor"), QuantizationScheme("tensor", "uint8"))


@dataclass(frozen=True)
class SchemeOption:
    """A scheme with the other choices of `nas.quant.scheme.Scheme`, whose granularity does not count here.

    Attributes:
        in_float: layers that stay in float.
    """

    scheme: QuantizationScheme
    choices: Scheme = DEFAULT
    in_float: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = {
            "equalized": self.choices.equalize,
            "biases corrected": self.choices.bias_correction,
            "adaptive rounding": self.choices.rounding == "adaptive",
            f"ranges by {self.choices.observer}": self.choices.observer != DEFAULT.observer,
            f"{len(self.in_float)} in float": bool(self.in_float),
        }
        return ", ".join((str(self.scheme), *(text for text, on in said.items() if on)))


OPTIONS = tuple(
    SchemeOption(scheme, Scheme(equalize=equalize, bias_correction=corrected))
    for scheme, equalize, corrected in product(SCHEMES, (False, True), (False, True))
)
"""All that `auto` tries."""
