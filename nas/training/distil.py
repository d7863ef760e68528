"""Block-wise distillation: every block's supernet learns the teacher's feature map from the teacher's input.

Source: QA-BWNAS, section 3 (after DNA). Loss and metric are the NSR (`nas.noise`). Each step trains one path. Every
choice of a layer is on one of as many consecutive paths as there are choices (strict fairness, FairNAS,
arXiv 1907.01845, section 3), each layer's in its own random order. The blocks share no weights, so one loop over all
their losses trains each of them as a separate loop in a process of its own would.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from nas.networks.blocks import SuperBlock
from nas.noise import channel_variance, nsr
from nas.space import Choice, SearchSpace
from nas.training.features import Features
from nas.training.train import Loss, ParameterGroup, decayed_apart


def supernets(space: SearchSpace) -> nn.ModuleList:
    return nn.ModuleList(SuperBlock(space, i) for i in range(1, len(space.blocks) + 1))


def paths(space: SearchSpace, step: int, seed: int) -> list[list[Choice]]:
    """One path per block: a pure function of (seed, step), whichever blocks are trained.

    Of len(space.choices) consecutive steps, the first a multiple of that, each layer has every choice once.
    """
    turn, place = divmod(step, len(space.choices))
    rng = random.Random(f"{seed}/{turn}")
    orders = [[rng.sample(space.choices, len(space.choices)) for _ in range(block.layers)] for block in space.blocks]
    return [[layer[place] for layer in block] for block in orders]


def block_losses(model: nn.ModuleList, features: Features, seed: int) -> Loss:
    """The NSR of one random path of each supernet in `model`, in order, as a function of the step.

    They share the teacher's maps and no weights: each is a separate part of the loss.
    """
    blocks = [supernet for supernet in model if isinstance(supernet, SuperBlock)]

    def losses(step: int) -> Iterator[Tensor]:
        maps = features(step)
        drawn = paths(blocks[0].space, step, seed)
        for supernet in blocks:
            x, target = maps[supernet.block - 1 : supernet.block + 1]
            output = supernet(x, drawn[supernet.block - 1])
            target = target.float()
            yield nsr(target, output.float(), channel_variance(target))

    return losses


def parameter_groups(model: nn.ModuleList, learning_rates: Sequence[float]) -> list[ParameterGroup]:
    """Each block with its own learning rate (as in the paper)."""
    rates = list(learning_rates)
    if len(rates) == 1:
        rates *= len(model)
    return [group for block, rate in zip(model, rates, strict=True) for group in decayed_apart(block, rate)]
