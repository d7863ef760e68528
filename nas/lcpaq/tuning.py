"""Fine-tuning a folded network at its own bits: rounded weights forward, gradients straight through.

The finish of a few-bit model that was searched quantizes activations too (`nas.training.quantization_aware`).

Source: the straight-through estimator (Bengio et al., arXiv 1308.3432), as HAWQ-V3 fine-tunes its solutions.
Activations stay in float here, and their ranges are calibrated afterwards: that costs little at 8 bits, more at 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nas.quant.float_graph import Node, Weighted
from nas.quant.scheme import FewBits, Granularity, Scheme
from nas.training.quantization_aware import FoldedNetwork
from nas.training.soft_targets import Forward, Loss
from nas.training.train import Schedule, Step, train


def fine_tuned(
    nodes: Sequence[Node],
    task: Callable[[Forward], Loss],
    schedule: Schedule,
    checkpoint: Path,
    key: str,
    *,
    granularity: Granularity = "channel",
    few_bits: FewBits = "asymmetric",
) -> list[Node]:
    """`nodes` after training on `task`: from a forward function to its loss by step, as `nas.tasks.task.training_loss`.

    Resumes from `checkpoint` where that was written under `key`. Without steps the nodes are returned unchanged.
    Raises `DivergedError` where the loss becomes NaN or infinite.
    """
    if not schedule.steps:
        return list(nodes)
    network = FoldedNetwork(nodes, Scheme(granularity, few_bits=few_bits))
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
