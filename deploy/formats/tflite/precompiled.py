"""Models that a vendor's compiler has made for one NPU: valid files, of which most is code that only that NPU runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.formats.tflite.read import ModelInfo


@dataclass(frozen=True)
class Compiled:
    """What a model was compiled for.

    Attributes:
        operator: the custom operator that holds the code.
        npu: where that runs.
        compiler: what made it of a plain model.
    """

    operator: str
    npu: str
    compiler: str

    def __str__(self) -> str:
        return f"compiled for {self.npu}: its operator {self.operator} runs nowhere else"

    @property
    def advice(self) -> str:
        return f"give the model that {self.compiler} was given, or name that NPU's delegate in boards.toml"


COMPILERS: Mapping[str, Compiled] = {
    found.operator: found
    for found in (
        Compiled("edgetpu-custom-op", "a Coral Edge TPU", "edgetpu_compiler"),
        Compiled("ethos-u", "an Arm Ethos-U NPU", "vela"),
        Compiled("NeutronGraph", "an NXP eIQ Neutron NPU", "neutron-converter"),
        Compiled("vsi-npu", "one VeriSilicon NPU and driver", "the vendor's compiler"),
    )
}
"""By the code of the custom operator."""


def compiled_for(model: ModelInfo) -> Compiled | None:
    """None for a plain model."""
    return next((COMPILERS[op.custom] for op in model.operators if op.custom in COMPILERS), None)
