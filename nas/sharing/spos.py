"""Single path one shot (arXiv 1904.00420): a step trains one path, drawn uniformly."""

from __future__ import annotations

import random

from nas.sharing.supernet import Path
from nas.space import SearchSpace


def paths(space: SearchSpace, seed: int, step: int) -> list[Path]:
    """The one path of a step, a pure function of (seed, step)."""
    rng = random.Random(f"{seed}/spos/{step}")
    return [tuple(tuple(rng.choice(space.choices) for _ in range(block.layers)) for block in space.blocks)]
