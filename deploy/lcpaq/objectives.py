"""What the bits of the user's network are to keep: the task's metric where there are labels, else its own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from deploy.compile.artifact import kernels_of
from deploy.formats.tflite.writer import write
from deploy.lcpaq.own_data import Labels, OwnData
from deploy.quantize.labelled import VALIDATION
from deploy.quantize.noise import noise_of
from deploy.quantize.quantized import Quantized
from hil.errors import UsageError
from nas.lcpaq.hessian import Problem, forward
from nas.lcpaq.losses import flattened, loss_of, squared_distance
from nas.quant.arithmetic import LITERT
from nas.quant.float_graph import ArgMax, Node
from nas.quant.ranges import Range, minmax

NOISE_EXAMPLES = 32  # at most; the noise of the outputs hardly depends on more
SMALLEST = 1e-12  # power of an output that is zero
Loss = Literal["auto", "labels", "outputs"]


class Objective(Protocol):
    """The loss that sensitivities are of, and the score of a policy: more is better.

    Attributes:
        text: the loss, and which form of its Hessian is taken.
        metric: name of the score, in `unit`.
    """

    @property
    def text(self) -> str: ...

    @property
    def metric(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def problem(self, images: int) -> Problem: ...

    def scored(self, images: int) -> int:
        """How many are scored on, of at most so many."""

    def score(self, quantized: Quantized, images: int) -> float: ...


@dataclass(frozen=True, eq=False)
class ByLabels:
    """The task's loss and metric, on training images."""

    labels: Labels

    @property
    def text(self) -> str:
        return f"cross-entropy with the labels ({len(self.labels.classes)} classes), Gauss-Newton form of its Hessian"

    @property
    def metric(self) -> str:
        return self.labels.task.metric

    @property
    def unit(self) -> str:
        return "%"

    def problem(self, images: int) -> Problem:
        task, batches = self.labels.task, self.labels.batches(images)

        loss = loss_of(task) if task.dense else flattened(loss_of(task))
        return Problem(
            self.labels.data.network.nodes, batches, loss, (self.labels.scores,), _span([x for x, _ in batches])
        )

    def scored(self, images: int) -> int:
        return len(self.labels.images("train", images).data)

    def score(self, quantized: Quantized, images: int) -> float:
        return self._score_on("train", quantized, images)

    def validated(self, quantized: Quantized, images: int) -> float:
        """On the validation split, by which nothing was chosen."""
        return self._score_on(VALIDATION, quantized, images)

    def float_validated(self, images: int) -> tuple[float, int]:
        """The float network's score there, and how many images it is of."""
        found = self.labels.images(VALIDATION, images)
        return found.float_counts().score, len(found.data)

    def _score_on(self, split: str, quantized: Quantized, images: int) -> float:
        content = write(quantized.graph, form=quantized.scheme.form)
        return self.labels.images(split, images).counts(quantized, content).score


@dataclass(frozen=True, eq=False)
class ByOutputs:
    """The squared distance of all outputs to the float network's, each over its own power.

    It is zero at the float network, and so is its slope: the Gauss-Newton form is all of its Hessian.
    """

    data: OwnData

    @property
    def text(self) -> str:
        return "squared distance of the outputs to the float network's, Hessian in Gauss-Newton form"

    @property
    def metric(self) -> str:
        return "signal to noise"

    @property
    def unit(self) -> str:
        return "dB"

    @property
    def tensors(self) -> tuple[str, ...]:
        """Of the outputs; of indices the scores that they are of."""
        nodes = {node.name: node for node in self.data.network.nodes}
        ends = [nodes[value.tensor] for value in self.data.network.outputs.values()]
        return tuple(dict.fromkeys(end.x if isinstance(end, ArgMax) else end.name for end in ends))

    def problem(self, images: int) -> Problem:
        return distance_problem(self.data.network.nodes, self.data.batches(images), self.tensors)

    def scored(self, images: int) -> int:
        return self.data.examples(min(images, NOISE_EXAMPLES)).count

    def score(self, quantized: Quantized, images: int) -> float:
        return -self.noise_db(quantized, images)

    def noise_db(self, quantized: Quantized, images: int) -> float:
        """Of the noisiest output."""
        applied = kernels_of(quantized.scheme.form, LITERT)
        batches = self.data.batches(min(images, NOISE_EXAMPLES))
        found = noise_of(quantized.nodes, quantized.graph, batches, applied)
        return max(found[name] for name in self.tensors)


@torch.no_grad()
def distance_problem(nodes: Sequence[Node], images: Sequence[Tensor], outputs: tuple[str, ...]) -> Problem:
    """The outputs on `images` are the labels, the squared distance to them is the loss."""
    own = Problem(nodes, [(x, x) for x in images], squared_distance(torch.ones(1)), outputs, _span(images))
    envs = [forward(own.needed, {}, x) for x in images]
    power = {name: sum(float(env[name].square().sum()) for env in envs) / own.images for name in outputs}
    share = torch.cat([torch.full_like(envs[0][n][0].flatten(), 1 / max(power[n], SMALLEST)) for n in outputs])

    batches = [(x, own.logits(env)) for x, env in zip(images, envs, strict=True)]
    return replace(own, batches=batches, loss=squared_distance(share / len(outputs)))


def _span(images: Sequence[Tensor]) -> Range:
    lows, highs = zip(*map(minmax, images), strict=True)
    return min(lows), max(highs)


def objective_of(data: OwnData, labels: Labels | UsageError, loss: Loss, kind: str) -> Objective:
    """As `loss` says; "auto" takes the labels where there are some, otherwise `labels` says why there are none.

    Raises `UsageError` for labels that are asked for and not there, and for a `kind` of sensitivity that needs a slope.
    """
    if isinstance(labels, Labels) and loss != "outputs":
        return ByLabels(labels)
    if isinstance(labels, UsageError) and loss == "labels":
        raise labels
    if kind == "fisher":
        raise UsageError("--sensitivity fisher: the distance of outputs has no slope: give labels, or another kind")
    return ByOutputs(data)
