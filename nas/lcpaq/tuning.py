"""Fine-tuning a folded network at its own bits: rounded weights forward, gradients straight through.

Source: the straight-through estimator (Bengio et al., arXiv 1308.3432), as HAWQ-V3 fine-tunes its solutions.
Activations stay in float here, and their ranges are calibrated afterwards: that costs little at 8 bits, more at 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.quant.float_graph import INPUT, ArgMax, FullyConnected, Node, Resize, Softmax, Weighted
from nas.quant.scheme import Granularity
from nas.training.soft_targets import Forward, Loss
from nas.training.train import Schedule, Step, train


class FoldedNetwork(nn.Module):
    """Folded nodes as a module: images (N, 3, H, W) to logits, (N, classes) or (N, classes, h, w).

    With a `granularity` every forward pass rounds the weights to their nodes' bits; None: they are not rounded.
    """

    def __init__(self, nodes: Sequence[Node], granularity: Granularity | None = None) -> None:
        super().__init__()
        self.nodes, self.granularity = list(nodes), granularity
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
        y = env[nodes[-1].name]
        return y.flatten(1) if isinstance(nodes[-1], FullyConnected) else y

    def layers(self, *, rounded: bool = False) -> list[Node]:
        """The nodes with the current weights, `rounded` or not."""
        parts = iter(zip(self.weights, self.biases, strict=True))
        nodes: list[Node] = []
        for node in self.nodes:
            if isinstance(node, Weighted):
                weight, bias = next(parts)
                if rounded and self.granularity is not None:
                    weight = straight_through(weight, node.bits, self.granularity)
                nodes.append(replace(node, weight=weight, bias=bias))
            else:
                nodes.append(node)
        return nodes


def until_logits(nodes: Sequence[Node]) -> list[Node]:
    """`nodes` without those that only turn logits into predictions."""
    end = len(nodes)
    while isinstance(nodes[end - 1], Resize | ArgMax | Softmax):
        end -= 1
    return list(nodes[:end])


def straight_through(weight: Tensor, bits: int, granularity: Granularity) -> Tensor:
    """`weight` (O, ...) at `bits`, symmetric, per-channel or per-tensor; its gradient is the result's."""
    qmax = 2 ** (bits - 1) - 1
    with torch.no_grad():
        peak = weight.abs().flatten(1).amax(1) if granularity == "channel" else weight.abs().max().expand(len(weight))
        scale = (peak / qmax).clamp(min=1e-12).reshape(-1, *[1] * (weight.ndim - 1))
        error = (weight / scale).round() * scale - weight
    rounded: Tensor = weight + error
    return rounded


def fine_tuned(
    nodes: Sequence[Node],
    task: Callable[[Forward], Loss],
    schedule: Schedule,
    checkpoint: Path,
    key: str,
    *,
    granularity: Granularity = "channel",
) -> list[Node]:
    """`nodes` after training on `task`: from a forward function to its loss by step, as `nas.tasks.task.training_loss`.

    Resumes from `checkpoint` where that was written under `key`. Without steps the nodes are returned unchanged.
    Raises `DivergedError` where the loss becomes NaN or infinite.
    """
    if not schedule.steps:
        return list(nodes)
    network = FoldedNetwork(nodes, granularity)
    for _ in tuning(network, task, schedule, checkpoint, key):
        pass
    return [
        replace(node, weight=node.weight.detach().contiguous(), bias=node.bias.detach())
        if isinstance(node, Weighted)
        else node
        for node in network.layers()
    ]


def tuning(
    network: FoldedNetwork, task: Callable[[Forward], Loss], schedule: Schedule, checkpoint: Path, key: str
) -> Iterator[Step]:
    """The steps of `fine_tuned`."""
    return train(network, task(network), schedule, checkpoint, key)
