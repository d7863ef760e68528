"""A network, its loss and its images; and the quadratic form of the loss's Hessian along one tensor.

The Hessian along one layer's weights is J'BJ (`nas.lcpaq.traces` says where that is all of it), and z'J'BJz is
(Jz)'B(Jz): the change z is propagated forward through the layers that follow, and only the loss is differentiated
twice. Kinks are ignored. All of it holds for activations as for weights, image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import ConfigError, QuantizationError
from nas.lcpaq.losses import Loss
from nas.quant.float_graph import (
    INPUT,
    Add,
    FullyConnected,
    MaxPool,
    Mean,
    Node,
    Rearranging,
    Weighted,
    inputs_of,
    last_reads,
)
from nas.quant.ranges import IMAGE_RANGE, Range
from nas.quant.windows import pair


@dataclass(frozen=True, eq=False)
class Problem:
    """A folded network, its loss and its images.

    Attributes:
        nodes: the network; operators that no output depends on (the deployed argmax) are left out.
        batches: (images (N, 3, H, W), labels) on the nodes' device; the loss is the mean over their images.
        loss: of (output, labels), the mean over a batch.
        outputs: the tensors that the loss reads (`logits`).
        input_range: what the images' integers will span.
    """

    nodes: Sequence[Node]
    batches: Sequence[tuple[Tensor, Tensor]]
    loss: Loss
    outputs: tuple[str, ...] = ("logits",)
    input_range: Range = IMAGE_RANGE

    def __post_init__(self) -> None:
        for name in set(self.outputs) - {node.name for node in self.nodes}:
            raise ConfigError(f"sensitivity: the network has no tensor '{name}' for the loss to read")
        if not sum(len(images) for images, _ in self.batches):
            raise ConfigError("sensitivity: no images; set quant.calibration_images")

    @cached_property
    def needed(self) -> tuple[Node, ...]:
        """The nodes that the outputs depend on, in order."""
        wanted, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if node.name in wanted:
                wanted.update(inputs_of(node))
                kept.append(node)
        return tuple(reversed(kept))

    @cached_property
    def layers(self) -> tuple[Weighted, ...]:
        """Those of them with weights."""
        return tuple(node for node in self.needed if isinstance(node, Weighted))

    @cached_property
    def images(self) -> int:
        return sum(len(images) for images, _ in self.batches)

    def logits(self, env: Mapping[str, Tensor]) -> Tensor:
        """The output among the results in `env`, as the loss takes it: (N, classes, h, w) of a map.

        A fully connected layer's is (N, classes), and several are (N, elements), one behind the other.
        """
        ys = [env[name] for name in self.outputs]
        if len(ys) > 1:
            return torch.cat([y.flatten(1) for y in ys], 1)
        return ys[0].flatten(1) if isinstance(self.needed[-1], FullyConnected) else ys[0]

    def loss_of(self, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one batch, by `weights` where a layer is named there; `QuantizationError` if it is not finite."""
        env = forward(self.needed, weights, images)
        return self.checked_loss(env, self.logits(env), labels)

    def checked_loss(self, env: Mapping[str, Tensor], logits: Tensor, labels: Tensor) -> Tensor:
        """The loss; `QuantizationError` naming the first tensor of `env` that is not finite, if it is not."""
        value = self.loss(logits, labels)
        if not bool(torch.isfinite(value)):
            raise _not_finite(env, float(value.detach()))
        return value


def forward(nodes: Sequence[Node], weights: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """Every node's result, differentiable, by `weights` where a layer is named there."""
    env = {INPUT: images}
    for node in nodes:
        used = replace(node, weight=weights[node.name]) if isinstance(node, Weighted) and node.name in weights else node
        env[node.name] = used(env)
    return env


def _not_finite(env: Mapping[str, Tensor], loss: float) -> QuantizationError:
    for name, y in env.items():
        if not bool(torch.isfinite(y).all()):
            what = "the images hold" if name == INPUT else f"tensor '{name}' holds"
            todo = "fix the data set" if name == INPUT else "the network diverged; retrain it"
            return QuantizationError(f"the loss is {loss}: {what} NaN or infinity: {todo}")
    return QuantizationError(f"the loss is {loss} of finite outputs: is every pixel of a batch unlabelled?")


Change = Callable[[Mapping[str, Tensor]], Tensor]
"""From a batch's results to the change of one tensor with each probe, (probes x N, C, H, W)."""


def quadratic_forms(
    problem: Problem, layers: Sequence[Weighted], probes: Sequence[Sequence[Tensor]]
) -> list[list[float]]:
    """z'H_i z for each layer and each of its probes (shaped as its weight), where H_i is that of the mean loss."""

    def changed(layer: Weighted, of_layer: Sequence[Tensor]) -> Change:
        moved = [_linear(replace(layer, weight=z)) for z in of_layer]
        return lambda env: _through(layer, env, torch.cat([node(env) for node in moved]))

    changes = [(layer.name, changed(layer, of_layer)) for layer, of_layer in zip(layers, probes, strict=True)]
    return forms(problem, changes, len(probes[0]))


def forms(problem: Problem, changes: Sequence[tuple[str, Change]], count: int) -> list[list[float]]:
    """v'Hv of the mean loss for each (tensor, its change v with each of `count` probes), (changes, count)."""
    total = torch.zeros(len(changes), count, dtype=torch.float64)
    for images, labels in problem.batches:
        with torch.no_grad():
            env = forward(problem.needed, {}, images)
        logits = problem.logits(env).requires_grad_()
        (slope,) = torch.autograd.grad(problem.checked_loss(env, logits, labels), logits, create_graph=True)
        share = len(images) / problem.images
        for i, (name, change) in enumerate(changes):
            with torch.no_grad():
                first = change(env)
            for number, v in enumerate(_propagated(problem, env, name, first).view(-1, *logits.shape)):
                (product,) = torch.autograd.grad(slope, logits, v, retain_graph=True)
                total[i, number] += share * (v * product).sum(dtype=torch.float64).cpu()
    result: list[list[float]] = total.tolist()
    return result


@torch.no_grad()
def _propagated(problem: Problem, env: Mapping[str, Tensor], source: str, first: Tensor) -> Tensor:
    """The change of the output where the tensor `source` changes by `first`, for all probes x N images both."""

    def none(name: str) -> Tensor:
        return env[name].new_zeros(1).expand(len(first), *env[name].shape[1:])

    changes = {source: first}
    start = [INPUT, *(node.name for node in problem.needed)].index(source)
    for node, done in zip(problem.needed[start:], last_reads(problem.needed)[start:], strict=True):
        read = inputs_of(node)
        if any(x in changes for x in read):
            still = {x: none(x) for x in read if x not in changes}
            changes[node.name] = _through(node, env, _changed(node, env, still | changes))
        for name in done:
            if name not in problem.outputs:
                changes.pop(name, None)
    return problem.logits({name: changes[name] if name in changes else none(name) for name in problem.outputs})


def _linear(node: Node) -> Node:
    """The linear part of `node`: itself where it is linear; a layer without its bias and activation."""
    if isinstance(node, Add):
        return replace(node, activation="none")
    return replace(node, bias=torch.zeros_like(node.bias), activation="none") if isinstance(node, Weighted) else node


def _changed(node: Node, env: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> Tensor:
    """The change of the result of `node` for changes (probes x N, C, H, W) of its inputs.

    That of a layer or an addition is before its activation.
    """
    if not isinstance(node, Weighted | Add | Mean | Rearranging):
        return _differentiated(node, env, changes)
    if not isinstance(node, MaxPool):
        return _linear(node)(changes)
    x = node.window.padded(env[node.x], -torch.inf)
    _, largest = F.max_pool2d(x, pair(node.kernel), pair(node.stride), return_indices=True)  # places: (N, C, h, w)
    change = node.window.padded(changes[node.x]).view(-1, *x.shape).flatten(3)
    taken = change.gather(3, largest.flatten(2).expand(len(change), -1, -1, -1))
    return taken.view(-1, *largest.shape[1:])


def _differentiated(node: Node, env: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> Tensor:
    """As `_changed`, to the first order, of an operator that is not linear."""
    read = inputs_of(node)
    moved = tuple(changes[x] for x in read)
    images = max(len(env[x]) for x in read)  # a constant has a batch of 1
    here = tuple(env[x].expand(images, *env[x].shape[1:]) for x in read)
    repeated = tuple(x.repeat(len(moved[0]) // images, *[1] * (x.ndim - 1)) for x in here)
    change: Tensor = torch.func.jvp(lambda *xs: node(dict(zip(read, xs, strict=True))), repeated, moved)[1]
    return change


def _through(node: Node, env: Mapping[str, Tensor], change: Tensor) -> Tensor:
    """`change` (probes x N, C, H, W) where the node's activation passes it on, else 0."""
    if not isinstance(node, Weighted | Add) or node.activation == "none":
        return change
    y = env[node.name]
    open_ = (y > 0) & (y < 6) if node.activation == "relu6" else y > 0
    return (change.view(-1, *y.shape) * open_).view(change.shape)
