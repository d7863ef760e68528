"""Strict fairness (FairNAS, arXiv 1907.01845, algorithm 1): a step trains every choice of every layer once.

With m choices per layer a step is m paths on one batch; each layer assigns its choices to them without replacement, and
the weights are updated once, by the sum of the m gradients.
"""

from __future__ import annotations

import random

from nas.sharing.supernet import Path
from nas.space import SearchSpace


def paths(space: SearchSpace, seed: int, step: int) -> list[Path]:
    """The m paths of a step, a pure function of (seed, step)."""
    rng = random.Random(f"{seed}/fairnas/{step}")
    m = len(space.choices)
    drawn = [[rng.sample(space.choices, m) for _ in range(block.layers)] for block in space.blocks]
    return [tuple(tuple(layer[i] for layer in block) for block in drawn) for i in range(m)]
