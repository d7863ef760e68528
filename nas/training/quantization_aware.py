"""A short quantization-aware finish of a trained network: it learns to live with the integers that it is deployed as.

Forward, weights are rounded by the deployed quantizer and every map to its 8 bits; backward, gradients pass straight
through the rounding (Bengio et al., arXiv 1308.3432), and stop where a value left its range. Batch norms are folded
first, so that what is rounded is what is deployed; afterwards weights and biases are written back into the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.networks.segmenter import Encoder
from nas.quant.float_graph import INPUT, ArgMax, FullyConnected, Node, Resize, Softmax, Weighted
from nas.quant.folding import unfold
from nas.quant.lower import parameters_of
from nas.quant.post_training import prepared
from nas.quant.ranges import IMAGE_RANGE, Parameters, calibrate, observer_of, widths_of
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.weights import grid_of, straight_through
from nas.training.device import FLOAT32, Compute, device_of, on_its_device
from nas.training.log import TrainingLog
from nas.training.soft_targets import Forward, Loss
from nas.training.train import Schedule, Step, restore, train

Folds: TypeAlias = Callable[[tuple[int, int]], list[Node]]
"""From an image's (H, W) to a network's folded nodes at their bits: `lambda size: fold(model, size, architecture)`."""
STEPS_PER_CALIBRATION = 25


class FoldedNetwork(nn.Module):
    """Folded nodes as a module: images (N, 3, H, W) to logits, (N, classes) or (N, classes, h, w).

    With a `scheme` every forward pass rounds the weights to their nodes' bits; None: they are not rounded.
    """

    def __init__(self, nodes: Sequence[Node], scheme: Scheme | None = None) -> None:
        super().__init__()
        self.nodes, self.scheme = list(nodes), scheme
        weighted = [node for node in nodes if isinstance(node, Weighted)]
        if not weighted:
            raise ConfigError("fine-tuning: the network has no layer with weights")
        self.weights = nn.ParameterList(node.weight.detach().clone() for node in weighted)
        self.biases = nn.ParameterList(node.bias.detach().clone() for node in weighted)

    def forward(self, images: Tensor) -> Tensor:
        env = {INPUT: images}
        nodes = until_logits(self.layers(rounded=True))
        for node in nodes:
            env[node.name] = node(env)
        return as_logits(nodes[-1], env[nodes[-1].name])

    def layers(self, *, rounded: bool = False) -> list[Node]:
        """The nodes with the current weights, `rounded` or not."""
        return self.with_weights(self.nodes, {} if rounded and self.scheme else None)

    def with_weights(self, nodes: Sequence[Node], input_scales: Mapping[str, float] | None) -> list[Node]:
        """`nodes` with the current weights; rounded, if the scales of maps are given (those that are known)."""
        parts = iter(zip(self.weights, self.biases, strict=True))
        layers: list[Node] = []
        for node in nodes:
            if isinstance(node, Weighted):
                weight, bias = next(parts)
                current = replace(node, weight=weight, bias=bias)
                if input_scales is not None and self.scheme is not None:
                    grid = grid_of(
                        current, input_scales.get(node.x, 1.0), self.scheme.granularity, self.scheme.few_bits
                    )
                    current = replace(current, weight=straight_through(weight, grid))
                    if node.x in input_scales:  # a few-bit layer's unit is so coarse that its bias feels it
                        current = replace(current, bias=in_units(bias, grid.scale * input_scales[node.x]))
                layers.append(current)
            else:
                layers.append(node)
        return layers


class QuantizedNetwork(FoldedNetwork):
    """A folded network whose weights and maps are rounded as the deployed ones; images of any size.

    The maps' ranges are those of `calibration`, batches of images (N, 3, H, W), by the present weights; they are state,
    so that a training that was killed goes on with them.
    """

    def __init__(self, folds: Folds, calibration: Sequence[Tensor], scheme: Scheme = DEFAULT) -> None:
        if not calibration:
            raise ConfigError("quantization-aware finish: no calibration images; give at least one")
        height, width = calibration[0].shape[2:]
        folded = folds((height, width))
        device = next(node.weight.device for node in folded if isinstance(node, Weighted))
        batches = [batch.to(device) for batch in calibration]
        nodes = prepared(folded, [{INPUT: batch} for batch in batches], scheme)
        super().__init__(nodes, scheme)
        self.folds, self.calibration = folds, batches
        self.by_size = {(height, width): self.nodes}
        self.names = [INPUT, *(node.name for node in nodes)]
        self.register_buffer("ranges", torch.zeros(len(self.names), 2, dtype=torch.float64))

    @torch.no_grad()
    def calibrate(self) -> None:
        """Take the ranges that the present weights would be deployed with."""
        assert self.scheme is not None and isinstance(self.ranges, Tensor)  # noqa: S101 (for the type checker)
        found = calibrate(self.layers(), self.calibration, observer_of(self.scheme.observer)) | {INPUT: IMAGE_RANGE}
        self.ranges.copy_(torch.tensor([found[name] for name in self.names], dtype=torch.float64))

    def parameters_by_map(self) -> dict[str, Parameters]:
        """Scale and zero point of every map."""
        assert isinstance(self.ranges, Tensor)  # noqa: S101 (for the type checker)
        ranges = {name: (low, high) for name, (low, high) in zip(self.names, self.ranges.tolist(), strict=True)}
        return parameters_of(ranges, widths_of(self.nodes))

    def forward(self, images: Tensor) -> Tensor:
        parameters = self.parameters_by_map()
        height, width = images.shape[2:]
        if (height, width) not in self.by_size:
            self.by_size[height, width] = self.folds((height, width))  # resizes follow the image's size
        scales = {name: scale for name, (scale, _) in parameters.items()}
        nodes = until_logits(self.with_weights(self.by_size[height, width], scales))
        env = {INPUT: images}
        for node in nodes:
            env[node.name] = on_levels(node(env).float(), *parameters[node.name])
        return as_logits(nodes[-1], env[nodes[-1].name])


def in_units(x: Tensor, unit: Tensor) -> Tensor:
    """`x` rounded to multiples of `unit`; its gradient is the result's."""
    with torch.no_grad():
        error = torch.round(x / unit) * unit - x
    rounded: Tensor = x + error
    return rounded


def on_levels(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """`x` as int8's values stand for it; the gradient passes between the lowest and the highest of them."""
    inside = x.clamp((-128 - zero_point) * scale, (127 - zero_point) * scale)
    return in_units(inside, torch.tensor(scale, device=x.device))


def until_logits(nodes: Sequence[Node]) -> list[Node]:
    """`nodes` without those that only turn logits into predictions."""
    end = len(nodes)
    while isinstance(nodes[end - 1], Resize | ArgMax | Softmax):
        end -= 1
    return list(nodes[:end])


def as_logits(last: Node, y: Tensor) -> Tensor:
    """The last node's result as a loss takes it."""
    return y.flatten(1) if isinstance(last, FullyConnected) else y


def finished(
    model: Encoder,
    folds: Folds,
    task: Callable[[Forward], Loss],
    calibration: Sequence[Tensor],
    *,
    schedule: Schedule,
    checkpoint: Path,
    key: str,
    scheme: Scheme = DEFAULT,
    compute: Compute = FLOAT32,
    log: TrainingLog | None = None,
) -> Iterator[Step]:
    """Train `model` in place as the integers that `scheme` makes of it, on its device, yielding each step.

    `task` makes a loss by step of a forward function (`nas.tasks.task.training_loss`, `nas.training.soft_targets`);
    `calibration` are batches of images at the deployed size. Resumes from `checkpoint` as `train` does. Once the steps
    have ended, the network that `folds` folds has the finished weights.
    """
    network = QuantizedNetwork(folds, calibration, scheme).to(device_of(model))
    loss = task(on_its_device(network))

    def calibrated(step: int) -> Tensor:
        if step % STEPS_PER_CALIBRATION == 0:
            network.calibrate()
        return loss(step)

    yield from train(network, calibrated, schedule, checkpoint, key, compute=compute, log=log)
    unfold(model, network.layers())


def restore_finished(model: Encoder, folds: Folds, checkpoint: Path, calibration: Sequence[Tensor]) -> None:
    """Give `model` the weights of a finish that has ended; `CheckpointError` where they are not its own."""
    network = QuantizedNetwork(folds, calibration)
    restore(network, checkpoint)
    unfold(model, network.layers())
