"""What LCPAQ's steps ask of a trained network: a run's (`run_network`), or the user's own (`own_network`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.lcpaq.settings import BLOCKS, OPTION, UNITS, StepSettings, amount
from nas.errors import ConfigError
from nas.lcpaq.hessian import Problem
from nas.lcpaq.options import int8_costs
from nas.lcpaq.policy import Options, Policy, load_policy, network_digest, policy_of, save_policy
from nas.quant.float_graph import Node
from nas.quant.scheme import Scheme
from nas.quant.shapes import Shape

POLICY = "policy.json"


@dataclass(frozen=True)
class Scoring:
    """How a policy's integers are scored: more is better.

    Attributes:
        metric: name of the score, in `unit`.
        images: how many it is of.
    """

    metric: str
    unit: str
    images: int
    score: Callable[[Policy], float]


class Subject(Protocol):
    """A trained network, its data, and how it is quantized.

    Attributes:
        folder: of the records.
        key: a digest of the weights, of the data and of how they are quantized.
        nodes: the float network.
        input_shape: (H, W, C), or a vector's (C,).
        loss: what the sensitivity is of; None: what a run's labels say.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def key(self) -> str: ...

    @property
    def nodes(self) -> Sequence[Node]: ...

    @property
    def input_shape(self) -> Shape: ...

    @property
    def scheme(self) -> Scheme: ...

    @property
    def loss(self) -> str | None: ...

    def problem(self, images: int) -> Problem:
        """What the sensitivity is computed on: at most so many images."""

    def scoring(self, images: int) -> Scoring:
        """On at most so many images, none of which the final score is of."""


def keep_policy(subject: Subject, policy: Policy) -> None:
    """policy.json."""
    save_policy(policy, subject.folder / POLICY, network_digest(subject.nodes))


def kept_policy(subject: Subject) -> Policy:
    """policy.json; `ConfigError` if it is not there, damaged or of another network."""
    return load_policy(subject.folder / POLICY, network_digest(subject.nodes))


def limits_of(subject: Subject, settings: StepSettings, options: Options) -> dict[str, float]:
    """The limits in the costs' units; `ConfigError` for anything that is none."""
    return {name: _limit(subject, options, name, text) for name, text in settings.limits.items()}


def _limit(subject: Subject, options: Options, name: str, text: str) -> float:
    if name == "size_bits" and text == BLOCKS:
        policy = policy_of(subject.nodes)
        return float(sum(layer.size_bits(policy.bits[layer.name]) for layer in options.layers))
    value, unit = amount(name, text)
    if unit != "%":
        return value * UNITS[name][unit]
    if name not in options.costs:
        raise ConfigError(f"{OPTION[name]}: no latency was measured; delete {subject.folder} and run again")
    return value / 100 * int8_costs(options)[name]
