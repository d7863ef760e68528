"""The trained network of a run that LCPAQ assigns bit widths to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deploy.formats.digest import digest
from deploy.lcpaq import resnet
from deploy.lcpaq.settings import BLOCKS, OPTION, UNITS, StepSettings, amount
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.keys import settings_of
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import SearchRecord
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.lcpaq.options import int8_costs
from nas.lcpaq.policy import Options, Policy, load_policy, network_digest, policy_of, save_policy
from nas.networks.resnet import ResNet
from nas.quant.float_graph import Node
from nas.quant.integer_graph import IntegerGraph
from nas.space import Architecture
from nas.tasks.task import Network, fold

TEACHER = "teacher"


QUANTIZER = 2
"""Raise when weights come to be quantized otherwise: sensitivities and policies are computed again."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The teacher, a selected model with its block bits as `architecture`, or a ResNet."""

    context: Context
    name: str
    model: Network
    architecture: Architecture | None

    @classmethod
    def of(cls, context: Context, name: str) -> Subject:
        """`UsageError` for a name that the run has no network of."""
        if name == TEACHER:
            return cls(context, name, context.teacher, None)
        if (form := resnet.form_in(context.experiment, name)) is not None:
            return cls(context, name, resnet.trained(context, name, form), None)
        selected = {model.name: model for model in SearchRecord.read(context.path / SearchRecord.FILE).selected}
        if name not in selected:
            raise UsageError(f"--model {name}: the run has {', '.join((TEACHER, *selected))}")
        architecture = selected[name].architecture
        return cls(context, name, retrained(context, name, architecture), architecture)

    @cached_property
    def nodes(self) -> list[Node]:
        return fold(self.model.eval(), self.context.experiment.data.size, self.architecture)

    @cached_property
    def network(self) -> str:
        """A digest of what a policy belongs to."""
        return network_digest(self.nodes)

    @property
    def folder(self) -> Path:
        return self.context.path / "lcpaq" / self.name

    @cached_property
    def key(self) -> str:
        """A digest of the network's weights and of how it is quantized."""
        e = self.context.experiment
        if isinstance(self.model, ResNet):
            weights = resnet.key_of(self.context, self.model.form)
        else:
            weights = self.context.keys[TEACHER if self.architecture is None else "retrain"]
        scheme, images = settings_of(e.quantization.scheme), e.quantization.calibration_images
        return digest(weights, self.name, str(self.architecture), scheme, images, QUANTIZER)

    def graph(self, policy: Policy | None = None) -> IntegerGraph:
        """The deployed network at the policy's bits."""
        return quantize_network(self.context, self.model, self.architecture, policy=policy)

    def save_policy(self, policy: Policy) -> None:
        """policy.json."""
        save_policy(policy, self.folder / "policy.json", self.network)

    def policy(self) -> Policy:
        """policy.json; `ConfigError` if it is not there, damaged or of another network."""
        return load_policy(self.folder / "policy.json", self.network)


def check_name(experiment: Experiment, name: str, settings: StepSettings) -> None:
    """`UsageError` for a network that the experiment has not, and for limits that it cannot have."""
    budgets = [budget.name for budget in experiment.budgets]
    if name not in (TEACHER, *budgets) and resnet.form_in(experiment, name) is None:
        raise UsageError(f"--model {name}: '{experiment.name}' has {', '.join((TEACHER, *budgets, resnet.NAMES))}")
    if BLOCKS in settings.limits.values() and name not in budgets:
        raise UsageError(f"--size-limit {BLOCKS}: {name} has no block bits; name a selected model or give %")


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
