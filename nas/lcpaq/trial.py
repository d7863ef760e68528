"""One trial of quantization's hyperparameters: a network's score by its deployed integers under some settings.

Reference: LCPAQ (arXiv 2402.17706), its third module; which hyperparameters, and their values, it does not publish.
The steps, in order: fold (with the statistics of training, or recalibrated ones), equalize, fine-tune at the policy's
bits, round, calibrate, lower, correct the biases, score. Trials that agree in their first steps share them.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nas.data.batches import images_of
from nas.data.part import Part
from nas.data.sample import Dataset
from nas.lcpaq.policy import Policy, applied
from nas.lcpaq.tuning import fine_tuned
from nas.networks.blocks import recalibrate
from nas.quant.adaptive_rounding import adaptively_rounded
from nas.quant.equalize import equalize
from nas.quant.float_graph import INPUT, Node
from nas.quant.integer_graph import IntegerGraph
from nas.quant.post_training import quantize
from nas.quant.scheme import FewBits, Granularity, Scheme
from nas.settings import STRICT
from nas.tasks.task import Network, fold, score_integer, training_loss
from nas.training.quantization_aware import FoldedNetwork
from nas.training.soft_targets import Forward, Loss, distilled
from nas.training.train import Schedule

Value = str | float | int | bool
Space = Mapping[str, tuple[Value, ...]]


@dataclass(frozen=True)
class Settings:
    """Quantization's hyperparameters.

    Attributes:
        granularity: of weight scales.
        observer: of activations, as `nas.quant.ranges.observer_of` reads it.
        equalize: as in `nas.quant.scheme.Scheme`.
        bias_correction: as in `nas.quant.scheme.Scheme`.
        fold: batch norms with the statistics of training, or recalibrated on the calibration images.
        rounding: of the weights (`nas.quant.adaptive_rounding`).
        distillation: weight of the float network's soft targets in fine-tuning, 0 (labels alone) to 1.
        learning_rate: of fine-tuning.
        calibration_images: of the training split.
        few_bits: as in `nas.quant.scheme.Scheme`.
    """

    granularity: Granularity = "channel"
    observer: str = "minmax"
    equalize: bool = False
    bias_correction: bool = False
    fold: Literal["trained", "recalibrated"] = "trained"
    rounding: Literal["nearest", "adaptive"] = "nearest"
    distillation: float = 0.0
    learning_rate: float = 1e-3
    calibration_images: int = 32
    few_bits: FewBits = "asymmetric"
    __pydantic_config__ = STRICT


SPACE: Space = {
    "granularity": ("channel", "tensor"),
    "observer": ("minmax", "mse", "percentile 99.99", "percentile 99.9", "percentile 99"),
    "equalize": (False, True),
    "bias_correction": (False, True),
    "fold": ("trained", "recalibrated"),
    "rounding": ("nearest", "adaptive"),
    "distillation": (0.0, 0.5),
    "learning_rate": (1e-4, 1e-3),
    "calibration_images": (16, 64),
}
"""The values that are tried; a single value fixes a hyperparameter."""


@dataclass(frozen=True)
class Fidelity:
    """The effort of a trial: validation images, fine-tuning steps, image size as a share of the full one."""

    images: int
    steps: int
    scale: float = 1.0
    __pydantic_config__ = STRICT


@dataclass(frozen=True, eq=False)
class TrialInputs:
    """What all trials have in common.

    Attributes:
        model: the trained float network.
        policy: the bits of its layers.
        data: for each fidelity's scale the (training, validation) data at that size; the second is for evaluation.
        schedule: of fine-tuning; steps and learning rate are the trial's.
        folder: of the fine-tuned networks, so that a search that was killed does not train them again.
        key: a digest of what the network was trained with.
        seed: of fine-tuning.
    """

    model: Network
    policy: Policy
    data: Mapping[float, tuple[Dataset, Dataset]]
    schedule: Schedule
    folder: Path
    key: str
    seed: int = 0


@dataclass(eq=False)
class Evaluator:
    """Scores settings at a fidelity, in the task's metric; steps that several trials share are taken once."""

    inputs: TrialInputs
    _networks: dict[str, list[Node]] = field(default_factory=dict)

    def __call__(self, settings: Settings, fidelity: Fidelity) -> float:
        _, val = self.inputs.data[fidelity.scale]
        count = min(fidelity.images, len(val))
        return score_integer(self.graph(settings, fidelity), Part(val, tuple(range(count))))

    def graph(self, settings: Settings, fidelity: Fidelity) -> IntegerGraph:
        """The deployed network."""
        train, _ = self.inputs.data[fidelity.scale]
        scheme = Scheme(
            settings.granularity,
            settings.observer,
            bias_correction=settings.bias_correction,
            few_bits=settings.few_bits,
        )
        return quantize(self._rounded(settings, fidelity), self._images(settings, fidelity), (*train.size, 3), scheme)

    def _images(self, settings: Settings, fidelity: Fidelity) -> list[Tensor]:
        return list(images_of(self.inputs.data[fidelity.scale][0], settings.calibration_images))

    def _rounded(self, settings: Settings, fidelity: Fidelity) -> list[Node]:
        if settings.rounding == "nearest":
            return self._tuned(settings, fidelity)
        key = self._digest(fidelity, replace(settings, observer="minmax", bias_correction=False))
        if key not in self._networks:
            self._networks[key] = adaptively_rounded(
                self._tuned(settings, fidelity),
                [{INPUT: batch} for batch in self._images(settings, fidelity)],
                settings.granularity,
                settings.few_bits,
            )
        return self._networks[key]

    def _tuned(self, settings: Settings, fidelity: Fidelity) -> list[Node]:
        own = replace(settings, observer="minmax", bias_correction=False, rounding="nearest")
        if not settings.equalize and settings.fold == "trained":
            own = replace(own, calibration_images=0)  # none are used so far
        key = self._digest(fidelity, own)
        if key not in self._networks:
            nodes = self._folded(settings, fidelity)
            schedule = replace(self.inputs.schedule, steps=fidelity.steps, learning_rate=settings.learning_rate)
            self._networks[key] = fine_tuned(
                nodes,
                self._task(settings, fidelity, nodes),
                schedule,
                self.inputs.folder / f"{key}.pt",
                key,
                granularity=settings.granularity,
                few_bits=settings.few_bits,
            )
        return self._networks[key]

    def _task(self, settings: Settings, fidelity: Fidelity, nodes: list[Node]) -> Callable[[Forward], Loss]:
        """The loss that fine-tuning minimises, with the unrounded network's soft targets if requested."""
        train, _ = self.inputs.data[fidelity.scale]
        batch_size, seed = self.inputs.schedule.batch_size, self.inputs.seed

        def task(forward: Forward) -> Loss:
            return training_loss(forward, train, batch_size, seed)

        if not settings.distillation:
            return task
        teacher = FoldedNetwork(nodes).eval()
        return lambda forward: distilled(task, forward, teacher, weight=settings.distillation)

    def _folded(self, settings: Settings, fidelity: Fidelity) -> list[Node]:
        train, _ = self.inputs.data[fidelity.scale]
        model, images = self.inputs.model, self._images(settings, fidelity)
        if settings.fold == "recalibrated":
            model = copy.deepcopy(model)
            recalibrate(model, torch.cat(images))
        nodes = applied(fold(model.eval(), train.size), self.inputs.policy)
        return equalize(nodes, [{INPUT: batch} for batch in images]) if settings.equalize else nodes

    def _digest(self, fidelity: Fidelity, settings: Settings) -> str:
        inputs = self.inputs
        parts = (inputs.key, str(inputs.policy), asdict(inputs.schedule), inputs.seed)
        record = (*parts, fidelity.steps, fidelity.scale, asdict(settings))
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]
