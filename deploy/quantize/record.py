"""quantization.json: what a network was quantized to, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records.base import OMITTED, Record
from deploy.ship.input_images import ImagePreprocessing
from nas.settings import STRICT

EXACT_DB = -200.0
"""Of a tensor without any error: below what 8 bits, and float32, can have."""


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of the file.

    Attributes:
        name: in the file.
        shape: in the file.
        low, high: the real values of its lowest and its highest integer.
        scale: of one integer.
        zero_point: the integer that is zero.
        noise_db: of its errors over the float network's values, both squared; None where there is nothing to compare
            with: indices, and tensors that the float network has not.
    """

    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    scale: float
    zero_point: int
    noise_db: float | None
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class NetworkOrigin:
    """Where a file comes from; what is not known is left out.

    Attributes:
        file: the float network's file; `sha256`: of it, of a SavedModel's folder over its files.
        images: how an image became the network's input.
        target: whose arithmetic gave the expected outputs; None: a CPU's.
        command: what makes it again.
    """

    file: str | None = field(default=None, metadata=OMITTED)
    sha256: str | None = field(default=None, metadata=OMITTED)
    images: ImagePreprocessing | None = field(default=None, metadata=OMITTED)
    target: str | None = field(default=None, metadata=OMITTED)
    command: str | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class QuantizationRecord(Record):
    """What a network of the user's was quantized to.

    Attributes:
        model: the name of the float network.
        scheme: granularity of the weights, type of the maps.
        data: what it was calibrated on, as it was given.
        images: how many it was calibrated on.
        noise_images: how many of them gave the noise.
        outputs: the names of the network's outputs, which are tensors too.
        tensors: those of the file, in the order in which they are computed.
        origin: None of a network that came from Python, unless its caller said it.
    """

    @property
    def file_name(self) -> str:
        """Of the model's file, without its suffix."""
        return f"{self.model}.{'uint8' if 'uint8' in self.scheme else 'int8'}"

    FILE: ClassVar[str] = "quantization.json"
    COMMAND: ClassVar[str] = "quantize"

    model: str
    scheme: str
    data: str
    images: int
    noise_images: int
    outputs: tuple[str, ...]
    tensors: tuple[TensorRecord, ...]
    origin: NetworkOrigin | None = field(default=None, metadata=OMITTED)
