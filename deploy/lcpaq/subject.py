"""What `hilnas lcpaq` works on: the network that gets its bits, and what the command line asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from deploy.formats.digest import digest
from deploy.lcpaq import resnet
from deploy.run.context import Context
from deploy.run.keys import settings_of
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import SearchRecord
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.lcpaq.options import int8_costs
from nas.lcpaq.policy import (
    ACTIVATION_BITS,
    INT8,
    WEIGHT_BITS,
    Choice,
    Options,
    Policy,
    load_policy,
    network_digest,
    policy_of,
)
from nas.lcpaq.sensitivity import SENSITIVITIES
from nas.networks.resnet import ResNet
from nas.quant.float_graph import Node
from nas.quant.integer_graph import IntegerGraph
from nas.space import Architecture
from nas.tasks.task import Network, fold

UNITS: Mapping[str, Mapping[str, float]] = {
    "size_bits": {"bits": 1.0, "B": 8.0, "kB": 8e3, "MB": 8e6},
    "bops": {"M": 1e6, "G": 1e9, "T": 1e12},
    "latency_us": {"us": 1.0, "ms": 1e3, "s": 1e6},
}
AMOUNT = re.compile(r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?) ?([A-Za-z]+|%)")
OPTION = {"size_bits": "--size-limit", "bops": "--bops-limit", "latency_us": "--latency-limit"}
BLOCKS = "blocks"


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        limits: by cost, as `67%` of the all-INT8 network's, with a unit, or `blocks` (size_bits only): what the found
            model's own block bits take.
        kind: of sensitivity.
        images: labelled training images, for the sensitivity and for scoring each.
        k: policies of the frontier that are scored, up to `factor` times the answer's perturbation.
        activation_widths: of what a layer reads.
        tie_bits: weights and activations of a layer share one width.
    """

    limits: Mapping[str, str] = field(default_factory=lambda: {"size_bits": "67%"})
    kind: str = "hessian"
    widths: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    exempt_ends: bool = True
    images: int = 64
    judged: int = 512
    k: int = 8
    factor: float = 1.1
    trials: int = 40
    tuning_steps: int = 64
    activation_widths: tuple[int, ...] = (INT8,)
    tie_bits: bool = False

    def __post_init__(self) -> None:
        if self.kind not in SENSITIVITIES:
            raise UsageError(f"--sensitivity {self.kind}: there are {', '.join(SENSITIVITIES)}")
        wrong = [width for width in self.widths if width not in WEIGHT_BITS]
        if wrong or not self.widths:
            raise UsageError(f"--bits: weights take 2 to 8 bits, not {wrong[0] if wrong else 'none'}")
        wrong = [width for width in self.activation_widths if width not in ACTIVATION_BITS]
        if wrong or not self.choices:
            what = f"activations take 4 to 8 bits, not {wrong[0]}" if wrong else "none of them is one of --bits"
            raise UsageError(f"--activation-bits: {what}")
        if self.exempt_ends and (INT8, INT8) not in self.choices:
            raise UsageError(
                "--bits, --activation-bits: the first and the last layer keep 8 bits; name 8, or give --all-layers"
            )
        if min(self.images, self.judged, self.k, self.trials) < 1 or self.tuning_steps < 0:
            raise UsageError("--images, --judged, --k, --trials: give at least 1 of each")
        for name, text in self.limits.items():
            if (name, text) != ("size_bits", BLOCKS):
                amount(name, text)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What a layer may take."""
        if self.tie_bits:
            return tuple((width, width) for width in self.widths if width in self.activation_widths)
        return tuple((width, read) for width in self.widths for read in self.activation_widths)

    @property
    def narrows_activations(self) -> bool:
        return self.activation_widths != (INT8,)


@dataclass(frozen=True, eq=False)
class Subject:
    """The network that gets its bits: the teacher, a found model with its block bits as `architecture`, a ResNet18."""

    context: Context
    name: str
    model: Network
    architecture: Architecture | None

    @classmethod
    def of(cls, context: Context, name: str) -> Subject:
        """`UsageError` for a name that the run has no network of."""
        if name == "teacher":
            return cls(context, name, context.teacher, None)
        if (width := resnet.width_in(context.experiment, name)) is not None:
            return cls(context, name, resnet.trained(context, name, width), None)
        entries = SearchRecord.read(context.path / SearchRecord.FILE).selected
        subnets = {entry.name: entry.subnet for entry in entries}
        if name not in subnets:
            raise UsageError(f"--model {name}: the run has {', '.join(('teacher', *subnets))}")
        architecture = Architecture.parse(subnets[name])
        return cls(context, name, retrained(context, name, architecture), architecture)

    @cached_property
    def nodes(self) -> list[Node]:
        return fold(self.model.eval(), self.context.experiment.data.size, self.architecture)

    @property
    def folder(self) -> Path:
        return self.context.path / "lcpaq" / self.name

    @cached_property
    def key(self) -> str:
        """A digest of the network's weights and of how it is quantized."""
        e = self.context.experiment
        if isinstance(self.model, ResNet):
            weights = resnet.key_of(self.context, self.model.width)
        else:
            weights = self.context.keys["teacher" if self.architecture is None else "retrain"]
        return digest(weights, self.name, str(self.architecture), settings_of(e.quantization.scheme),
                      e.quantization.calibration_images)  # fmt: skip

    def graph(self, policy: Policy | None = None) -> IntegerGraph:
        """The deployed network at the policy's bits."""
        return quantize_network(self.context, self.model, self.architecture, policy=policy)


def amount(name: str, text: str) -> tuple[float, str]:
    """(value, unit) of a limit as it is written, `%` among the units; `UsageError` for anything that is none."""
    match = AMOUNT.fullmatch(text)
    value, unit = (float(match[1]), match[2]) if match else (math.nan, "")
    if not (0 < value < math.inf and unit in {*UNITS[name], "%"}):
        raise UsageError(f"{OPTION[name]} {text}: give a positive number with {', '.join(UNITS[name])}, or % of INT8's")
    return value, unit


def limits_of(subject: Subject, wanted: Wanted, options: Options) -> dict[str, float]:
    """The limits in the costs' own units; `ConfigError` for anything that is none."""
    return {name: _limit(subject, options, name, text) for name, text in wanted.limits.items()}


def _limit(subject: Subject, options: Options, name: str, text: str) -> float:
    if name == "size_bits" and text == BLOCKS:
        own = policy_of(subject.nodes)
        return float(sum(layer.size_bits(own.bits[layer.name]) for layer in options.layers))
    value, unit = amount(name, text)
    if unit != "%":
        return value * UNITS[name][unit]
    if name not in options.costs:
        raise ConfigError(f"{OPTION[name]}: no latency was measured; delete {subject.folder} and run again")
    return value / 100 * int8_costs(options)[name]


def stored_policy(subject: Subject) -> Policy:
    """policy.json; `ConfigError` if it is not there, damaged or of another network."""
    return load_policy(subject.folder / "policy.json", network_digest(subject.nodes))
