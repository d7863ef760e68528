"""Search by evaluation: evolution as in SPOS (arXiv 1904.00420, algorithm 1), and random search beside it.

Both evaluate distinct architectures within budgets, are pure functions of (seed, fitness), and request one fitness at a
time: a search that was killed is resumed by repeating it with the stored fitnesses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from nas.errors import ConfigError
from nas.sharing.affordable import Affordable
from nas.space import Architecture, Choice, SearchSpace, Subnet

Fitness = Callable[[Architecture], float]
"""To be maximised."""

TRIES = 1000  # proposals in a row that are known or too expensive, before the search assumes that there are no others


@dataclass(frozen=True)
class Evolution:
    """SPOS's settings: 20 generations of 50; the 10 best so far are parents; a gene mutates with probability 0.1."""

    evaluations: int = 1000
    population: int = 50
    parents: int = 10
    mutation: float = 0.1

    def __post_init__(self) -> None:
        if min(self.evaluations, self.population, self.parents) < 1 or not 0 < self.mutation <= 1:
            raise ConfigError(f"{self}: counts are positive, mutation is above 0 and at most 1")


@dataclass(frozen=True)
class Evaluated:
    architecture: Architecture
    fitness: float


def random_search(affordable: Affordable, fitness: Fitness, evaluations: int, seed: int) -> Iterator[Evaluated]:
    """Random architectures; fewer than `evaluations` only where no more are within the budgets."""
    rng = random.Random(f"{seed}/random")
    for architecture in _fresh(lambda: affordable.sample(rng), affordable, (), evaluations):
        yield Evaluated(architecture, fitness(architecture))


def evolve(affordable: Affordable, fitness: Fitness, settings: Evolution, seed: int) -> Iterator[Evaluated]:
    """Each generation: half crossovers and half mutations of the best so far; random ones where those run out."""
    rng = random.Random(f"{seed}/evolution")
    space, seen = affordable.space, dict[Architecture, float]()
    children = _fresh(lambda: affordable.sample(rng), affordable, seen, settings.population)
    while children:
        for child in children[: settings.evaluations - len(seen)]:
            seen[child] = fitness(child)
            yield Evaluated(child, seen[child])
        if len(seen) == settings.evaluations:
            return
        best = sorted(seen, key=seen.__getitem__, reverse=True)[: settings.parents]
        children = []
        for propose, share in (
            (lambda: crossed(rng.choice(best), rng.choice(best), rng), settings.population // 2),  # noqa: B023
            (lambda: mutated(rng.choice(best), space, settings.mutation, rng), settings.population),  # noqa: B023
            (lambda: affordable.sample(rng), settings.population),
        ):
            wanted = min(share, settings.population - len(children))
            children += _fresh(propose, affordable, {*seen, *children}, wanted)


def crossed(one: Architecture, other: Architecture, rng: random.Random) -> Architecture:
    """Each layer's choice and each block's bits from either parent."""
    return Architecture(
        tuple(
            Subnet(
                a.block,
                tuple(rng.choice(pair) for pair in zip(a.choices, b.choices, strict=True)),
                rng.choice((a.bits, b.bits)),
            )
            for a, b in zip(one.subnets, other.subnets, strict=True)
        )
    )


def mutated(parent: Architecture, space: SearchSpace, probability: float, rng: random.Random) -> Architecture:
    """Each layer's choice and each block's bits redrawn with `probability`."""

    def choice(old: Choice) -> Choice:
        return rng.choice(space.choices) if rng.random() < probability else old

    return Architecture(
        tuple(
            Subnet(
                subnet.block,
                tuple(choice(old) for old in subnet.choices),
                rng.choice(space.bits) if rng.random() < probability else subnet.bits,
            )
            for subnet in parent.subnets
        )
    )


def _fresh(
    propose: Callable[[], Architecture], affordable: Affordable, seen: Collection[Architecture], count: int
) -> list[Architecture]:
    """Up to `count` distinct affordable proposals that are not in `seen`."""
    fresh: dict[Architecture, None] = {}
    failed = 0
    while len(fresh) < count and failed < TRIES:
        proposed = propose()
        if proposed in seen or proposed in fresh or proposed not in affordable:
            failed += 1
        else:
            fresh[proposed], failed = None, 0
    return list(fresh)
