"""Blocks with their real predecessor in one graph, the stem before the first, the head after the last.

What two neighbours cost beyond their entries is T(pair) less both: alike for all pairs of a boundary where they leave
each other alone, else by the layers that meet (`deploy.latency.interactions`). Pairs are drawn so that all choices,
kernels and expansions on either side, and all that two of them make, come up about equally often; other layers vary.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from torch import Tensor

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.compile.weights import Origin
from deploy.latency.overhead import PROVENANCE, OverheadRecord
from deploy.latency.suspects import features_of
from nas.quant import splice
from nas.quant.integer_graph import IntegerGraph
from nas.quant.tails import Tail
from nas.space import Boundary, Choice, SearchSpace, Subnet
from nas.table import Table

ROUNDS_AT_AN_END = 6  # pairs for each choice beside the stem or the head
ROUNDS_BETWEEN = 2  # pairs for each two choices that meet between blocks


@dataclass(frozen=True)
class BlockPair:
    """Two neighbours; `before` is None for the stem, `after` for the head. Written `stem+b1_k3e6_w8`."""

    before: Subnet | None
    after: Subnet | None

    def __str__(self) -> str:
        return f"{self.before or 'stem'}+{self.after or 'head'}"

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        return tuple(subnet for subnet in (self.before, self.after) if subnet is not None)

    @property
    def last(self) -> Choice | None:
        """The last layer before the boundary."""
        return self.before.choices[-1] if self.before else None

    @property
    def first(self) -> Choice | None:
        """The first layer after it."""
        return self.after.choices[0] if self.after else None

    def entries_us(self, table: Table) -> float:
        """What the table says of the pair, without the stem or the head, which are the same for all."""
        met = Boundary.between(self.before, self.after) if self.before and self.after else None
        return sum(table[subnet] for subnet in self.subnets) + (table.interaction(met) if met else 0.0)


def pairs_across(space: SearchSpace, boundary: int, seed: int) -> Iterator[BlockPair]:
    """Different pairs of boundary 0 (the stem's) to the number of blocks (the head's), the most telling first."""
    rng = random.Random(f"{seed}/pairs/{boundary}")
    seen: set[BlockPair] = set()
    for last, first in _meetings(space, boundary, rng):
        before = None if last is None else _subnet(space, boundary, -1, last, rng)
        after = None if first is None else _subnet(space, boundary + 1, 0, first, rng)
        pair = BlockPair(before, after)
        if pair not in seen:
            seen.add(pair)
            yield pair


def _meetings(space: SearchSpace, boundary: int, rng: random.Random) -> Iterator[tuple[Choice | None, Choice | None]]:
    """What meets at the boundary: next is always what has the features (`features_of`) that were seen least."""
    lasts = space.choices if boundary > 0 else (None,)
    firsts = space.choices if boundary < len(space.blocks) else (None,)
    rounds = ROUNDS_BETWEEN if len(lasts) == len(firsts) else ROUNDS_AT_AN_END
    left = [*product(lasts, firsts)] * rounds
    rng.shuffle(left)
    seen: Counter[str] = Counter()
    while left:
        least = min(range(len(left)), key=lambda i: sum(seen[feature] for feature in features_of(*left[i])))
        met = left.pop(least)
        seen.update(features_of(*met))
        yield met


def _subnet(space: SearchSpace, block: int, layer: int, choice: Choice, rng: random.Random) -> Subnet:
    """A random subnet with that choice, at the widest weights."""
    choices = [rng.choice(space.choices) for _ in range(space.blocks[block - 1].layers)]
    choices[layer] = choice
    return Subnet(block, tuple(choices), max(space.bits))


def planned(
    space: SearchSpace, boundaries: Iterable[int], budget_s: float, seconds: Callable[[BlockPair], float], seed: int
) -> dict[int, list[BlockPair]]:
    """The pairs to measure within `budget_s` of board time, by boundary, which share it in turns.

    `seconds`: of the board's time that a pair takes.
    """
    drawn = {boundary: pairs_across(space, boundary, seed) for boundary in boundaries}
    chosen: dict[int, list[BlockPair]] = {boundary: [] for boundary in drawn}
    while drawn:
        for boundary, pairs in list(drawn.items()):
            pair = next(pairs, None)
            if pair is None or (cost := seconds(pair)) > budget_s:
                del drawn[boundary]
                continue
            budget_s -= cost
            chosen[boundary].append(pair)
    return chosen


@dataclass(frozen=True, eq=False)
class PairWriter:
    """Writes the files of pairs.

    Attributes:
        origin: the run's blocks.
        reference: a full network, for its stem and head.
        image: (1, 3, H, W) for golden pairs.
        folder: for the files.
        key: for the files' metadata.
        tail: where the files of pairs with the head end, as full networks do.
    """

    origin: Origin
    reference: IntegerGraph
    image: Tensor
    folder: Path
    key: str
    tail: Tail = "classes"

    def write(self, pairs: Iterable[BlockPair]) -> Iterator[Artifact]:
        """Raises `QuantizationError` where a block does not fit the scales of the one before it."""
        wanted = list(pairs)
        graphs = dict(self._graphs({subnet for pair in wanted for subnet in pair.subnets}))
        stem, head = splice.before_block(self.reference, 1), splice.after_blocks(self.reference)
        for pair in wanted:
            before = graphs[pair.before] if pair.before else stem
            after = graphs[pair.after] if pair.after else head
            graph = splice.joined(before, after)
            x = self.origin.golden_map(pair.before.block) if pair.before else self.image
            artifact = Artifact.at(self.folder, str(pair))
            yield save_model(graph, x, artifact, model_metadata(graph, str(pair), self.key), tail=self.tail)

    def _graphs(self, subnets: Iterable[Subnet]) -> Iterator[tuple[Subnet, IntegerGraph]]:
        by_block: dict[int, list[Subnet]] = {}
        for subnet in sorted(subnets):
            by_block.setdefault(subnet.block, []).append(subnet)
        for wanted in by_block.values():
            yield from self.origin.graphs(wanted)


def outside_us(table: Table, pair: BlockPair) -> float:
    """About what the stem or the head of a pair takes, for a plan of board time."""
    if PROVENANCE not in table.provenance or len(pair.subnets) == 2:
        return 0.0
    overhead = OverheadRecord.of(table)
    return (overhead.head_us if pair.before else overhead.stem_us).value
