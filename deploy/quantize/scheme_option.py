"""What post-training quantization may choose: the scheme of the file, and what is done to weights and biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

from deploy.compile.scheme import QuantizationScheme
from deploy.formats.tflite.operators import Ends, Form
from nas.quant.scheme import Rounding, Scheme

OWN = Scheme(observer="mse", pooled=True)
"""What is done to the user's own network: less noise than by smallest and largest values (docs/own-network.md)."""
ADAPTIVE: Rounding = "adaptive all"
ROUNDED: Mapping[Rounding, str] = {
    "nearest": "rounded to nearest",
    "adaptive": "adaptive rounding below 8 bits",
    ADAPTIVE: "adaptive rounding",
}
SCHEMES = (QuantizationScheme("channel"), QuantizationScheme("tensor"), QuantizationScheme("tensor", "uint8"))


@dataclass(frozen=True)
class SchemeOption:
    """A scheme with the other choices of `nas.quant.scheme.Scheme`, whose granularity does not count here.

    Attributes:
        in_float: layers that stay in float.
        ends: type of the file's input and outputs.
    """

    scheme: QuantizationScheme
    choices: Scheme = OWN
    in_float: tuple[str, ...] = ()
    ends: Ends = "quantized"

    @property
    def form(self) -> Form:
        """Of the file."""
        return replace(self.scheme.form, ends=self.ends)

    def __str__(self) -> str:
        """What differs from `OWN`."""
        said = {
            "equalized": self.choices.equalize,
            "biases corrected": self.choices.bias_correction,
            ROUNDED[self.choices.rounding]: self.choices.rounding != OWN.rounding,
            f"ranges by {self.choices.observer}": self.choices.observer != OWN.observer,
            f"{len(self.in_float)} in float": bool(self.in_float),
            "float ends": self.ends == "float",
        }
        return ", ".join((str(self.scheme), *(text for text, on in said.items() if on)))


OPTIONS = tuple(
    SchemeOption(scheme, replace(OWN, equalize=equalize, bias_correction=correction, rounding=rounding))
    for scheme, equalize in product(SCHEMES, (False, True))
    for correction, rounding in ((False, OWN.rounding), (True, OWN.rounding), (False, ADAPTIVE))
)
"""All that `auto` tries."""
