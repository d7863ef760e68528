"""A trained network of a run: what LCPAQ assigns bit widths to, with the run's data, scheme and board."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deploy.formats.digest import digest
from deploy.lcpaq import resnet
from deploy.lcpaq.settings import BLOCKS, StepSettings
from deploy.lcpaq.subject import Scoring
from deploy.run.config import Experiment
from deploy.run.context import Context
from deploy.run.keys import settings_of
from deploy.run.networks import retrained
from deploy.run.quantizing import quantize_network
from deploy.run.records import SearchRecord
from hil.errors import UsageError
from nas.data.batches import load
from nas.data.part import evenly_spaced
from nas.data.sample import RGB_CHANNELS
from nas.lcpaq.hessian import Problem
from nas.lcpaq.losses import loss_of
from nas.lcpaq.policy import Policy
from nas.networks.resnet import ResNet
from nas.quant.float_graph import Node
from nas.quant.integer_graph import IntegerGraph
from nas.quant.scheme import Scheme
from nas.quant.shapes import Shape
from nas.space import Architecture
from nas.tasks.task import Network, fold, score_integer

TEACHER = "teacher"
QUANTIZER = 2
"""Raise when weights come to be quantized otherwise: sensitivities and policies are computed again."""


@dataclass(frozen=True, eq=False)
class RunNetwork:
    """The teacher, a selected model with its block bits as `architecture`, or a ResNet."""

    context: Context
    name: str
    model: Network
    architecture: Architecture | None

    @classmethod
    def of(cls, context: Context, name: str) -> RunNetwork:
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

    @property
    def input_shape(self) -> Shape:
        return (*self.context.experiment.data.size, RGB_CHANNELS)

    @property
    def scheme(self) -> Scheme:
        return self.context.experiment.quantization.scheme

    @property
    def loss(self) -> None:
        """The task's, on the run's labels."""

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

    def problem(self, images: int) -> Problem:
        """Labelled training images at even distances, a quarter of which they are moved: calibration has the first."""
        context, data = self.context, self.context.train_data
        count, size = min(images, len(data)), context.experiment.distil.schedule.batch_size
        places = [int((i + 0.25) * len(data) / count) for i in range(count)]
        batches = [load(data, places[start : start + size]) for start in range(0, count, size)]
        return Problem(self.nodes, batches, loss_of(context.task))

    def scoring(self, images: int) -> Scoring:
        """The task's metric on held-out training images."""
        held_out = evenly_spaced(self.context.held_out_data, images)

        def score(policy: Policy) -> float:
            return score_integer(self.graph(policy), held_out)

        return Scoring(self.context.task.metric, "%", len(held_out), score)


def check_name(experiment: Experiment, name: str, settings: StepSettings) -> None:
    """`UsageError` for a network that the experiment has not, and for limits that it cannot have."""
    budgets = [budget.name for budget in experiment.budgets]
    if name not in (TEACHER, *budgets) and resnet.form_in(experiment, name) is None:
        raise UsageError(f"--model {name}: '{experiment.name}' has {', '.join((TEACHER, *budgets, resnet.NAMES))}")
    if BLOCKS in settings.limits.values() and name not in budgets:
        raise UsageError(f"--size-limit {BLOCKS}: {name} has no block bits; name a selected model or give %")
