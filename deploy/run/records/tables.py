"""profile.json and schemes.json: how the latency tables were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from deploy.run.records.agreement import Interval
from deploy.run.records.base import OMITTED, Record
from hil.measurement import Conditions
from nas.quant.arithmetic import LITERT, Arithmetic
from nas.settings import STRICT


@dataclass(frozen=True)
class Validation:
    """On what evidence a table was taken over to a device that changed: a sample of its entries, measured again.

    Attributes:
        ratio: median of new / old latency, with its 95 % bootstrap interval.
        tau_b: between old and new latencies.
    """

    entries: int
    ratio: float
    ci95: Interval
    tau_b: float
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ProfileRecord(Record):
    """What the stage `profile` measured; `validated`: None for a table of the device that it was measured on."""

    compiled: int
    measured: int
    exact_parity: int
    conditions: Conditions
    validated: Validation | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "profile.json"
    COMMAND: ClassVar[str] = "lut latency"


@dataclass(frozen=True)
class SchemeResult:
    """The tables of another quantization scheme.

    Attributes:
        compiled, measured, exact_parity: numbers of subnets.
        models: full models that gave the constant.
        constant_us: latency of a full model outside its blocks.
        error_held_out: mean absolute error in percent, each model left out of the constant.
        tau_b: of the table's sums and the measured latencies; None where ranks are undefined.
    """

    compiled: int
    measured: int
    exact_parity: int
    models: int
    constant_us: float
    error_held_out: float
    tau_b: float | None
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class SchemesRecord(Record):
    """What the stage `schemes` made: by scheme, as the configuration names it.

    `arithmetic`: that the expected outputs and NSRs follow.
    """

    schemes: Mapping[str, SchemeResult]
    arithmetic: Arithmetic = LITERT

    FILE: ClassVar[str] = "schemes.json"
    COMMAND: ClassVar[str] = "loop"
