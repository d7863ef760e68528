"""How large a space is, what block-wise search evaluates of it, and what pruning leaves.

With C choices per layer and d_i layers, block i has C^d_i subnets, and their product over the blocks is the number of
architectures. Trained and evaluated block by block, the subnets alone are candidates: C^d_i over the product for one
block (QA-BWNAS, arXiv 2401.12350, Eq. 2), the sum over the blocks for all. Every block has each bit width once more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.errors import ConfigError
from nas.search.candidates import Candidates
from nas.search.front import front
from nas.space import SearchSpace

MOST_DIGITS = 300  # a float holds no more


@dataclass(frozen=True)
class SpaceCounts:
    """The numbers of a space.

    Attributes:
        of_blocks: each block's subnets at one bit width, C^d_i.
        widths: number of bit widths.
    """

    of_blocks: tuple[int, ...]
    widths: int

    @property
    def subnets(self) -> int:
        """Over all blocks, at one bit width."""
        return sum(self.of_blocks)

    @property
    def subnets_with_bits(self) -> int:
        """Over all blocks and bit widths: the entries of a table."""
        return self.widths * self.subnets

    @property
    def architectures(self) -> int:
        """One subnet per block, all at one bit width."""
        return math.prod(self.of_blocks)

    @property
    def architectures_with_bits(self) -> int:
        """One subnet per block, each at its own bit width."""
        return math.prod(self.widths * subnets for subnets in self.of_blocks)

    @property
    def reductions(self) -> tuple[float, ...]:
        """Each block's subnets over all architectures, at one bit width (Eq. 2)."""
        return tuple(subnets / self.architectures for subnets in self.of_blocks)

    @property
    def reduction(self) -> float:
        """The subnets of all blocks over all architectures, at one bit width."""
        return self.subnets / self.architectures

    @property
    def reduction_with_bits(self) -> float:
        return self.subnets_with_bits / self.architectures_with_bits


def counted(space: SearchSpace) -> SpaceCounts:
    """The numbers of `space`; `ConfigError` for a space beyond what a float can count."""
    choices, widths = len(space.choices), len(space.bits)
    layers = sum(block.layers for block in space.blocks)
    if layers * math.log10(choices) + len(space.blocks) * math.log10(widths) > MOST_DIGITS:
        raise ConfigError(
            f"space '{space.name}': {layers} layers of {choices} choices are over 1e{MOST_DIGITS} architectures; "
            "give its blocks fewer layers"
        )
    return SpaceCounts(tuple(choices**block.layers for block in space.blocks), widths)


@dataclass(frozen=True)
class Pruning:
    """What is left to search where a block keeps its Pareto-optimal subnets alone.

    Attributes:
        objectives: the costs compared.
        before: each block's subnets, over all bit widths.
        after: those of them that are Pareto-optimal; of equal ones one.
        front: architectures on the exact Pareto front.
    """

    objectives: tuple[str, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    front: int

    @property
    def architectures(self) -> int:
        """How many the Pareto-optimal subnets can form."""
        return math.prod(self.after)


def pruning(of: Candidates) -> Pruning:
    """Each block's Pareto-optimal candidates, and the length of the front that they form."""
    found = front(of)
    before, after = (tuple(map(len, subnets)) for subnets in (of.subnets, found.pruned.subnets))
    return Pruning(of.objectives, before, after, len(found))
