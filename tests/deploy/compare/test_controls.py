"""Hand-made networks: every depth of a family, sizes that are exact, the largest within the budget."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.compare import controls
from deploy.compare.controls import family, fewer_layers, network_of, thinned, uniform
from deploy.compare.setup import Winner
from deploy.run.folder import Progress
from deploy.run.settings.deployment import Budget
from nas.estimate import Estimate
from nas.space import SPACES_FOLDER, Architecture, Choice, SearchSpace
from nas.table import size_table, subnet_size_bits

SPACE = SearchSpace.load(SPACES_FOLDER / "table1.toml")
OUTSIDE = 1000.0


@dataclass
class Sized:
    """What a control needs of a comparison where latencies are made up."""

    budget: Budget

    @property
    def context(self) -> Any:
        return SimpleNamespace(
            space=SPACE, run=SimpleNamespace(stages={"teacher": SimpleNamespace(seconds=1.0, cpu_seconds=2.0)})
        )

    @property
    def affordable(self) -> Any:
        return SimpleNamespace(space=SPACE)

    @property
    def cost_tables(self) -> Any:
        return SimpleNamespace(teacher={"size": self.size_bits(network_of(SPACE.teacher_layers, 8))})

    def size_bits(self, architecture: Architecture) -> float:
        return OUTSIDE + sum(subnet_size_bits(SPACE, subnet) for subnet in architecture.subnets)


def selected(selecting: Generator[Progress, None, Sequence[Winner]]) -> Sequence[Winner]:
    while True:
        try:
            next(selecting)
        except StopIteration as ended:
            return ended.value


def test_a_family_has_every_depth_once() -> None:
    found = [str(network) for network in family(SPACE, SPACE.teacher_layers)]
    assert len(set(found)) == len(found) == 2 * 3 * 4 * 3 * 3 * 1
    assert found[0] == str(network_of(SPACE.teacher_layers, 8))
    assert str(network_of([[Choice(3, 6)]] * 6, 8)) in found


def test_the_size_of_any_network_is_that_of_the_table() -> None:
    table = size_table(SearchSpace.load(SPACES_FOLDER / "demo.toml"))
    space = SearchSpace.load(SPACES_FOLDER / "demo.toml")
    for subnet, entry in list(table.entries.items())[::7]:
        assert subnet_size_bits(space, subnet) == entry.value


@pytest.mark.parametrize("share", [0.9, 0.75, 0.5])
def test_the_largest_within_a_size_is_taken(share: float) -> None:
    comparison = Sized(Budget("small", size=share))
    most = share * comparison.cost_tables.teacher["size"]
    (winner,) = selected(fewer_layers(comparison))
    slow = max(size for n in family(SPACE, SPACE.teacher_layers) if (size := comparison.size_bits(n)) <= most)
    assert comparison.size_bits(winner.architecture) == slow <= most
    assert winner.start == "recipe" and winner.latency_share is None
    (winner,) = selected(uniform(comparison))
    assert {choice for subnet in winner.architecture.subnets for choice in subnet.choices} == {Choice(3, 3)}
    assert comparison.size_bits(winner.architecture) <= most


def test_the_teacher_itself_has_no_fewer_layers() -> None:
    (winner,) = selected(fewer_layers(Sized(Budget("all", size=2.0))))
    assert winner.architecture != network_of(SPACE.teacher_layers, 8)


def test_a_family_with_nothing_within_the_budget_has_no_winner() -> None:
    assert selected(uniform(Sized(Budget("none", size=0.01)))) == []


def test_under_a_latency_the_largest_that_is_measured_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up latencies: the share is that of the layers."""
    asked: list[Architecture] = []

    def measured(_: object, __: str, networks: Sequence[Architecture]) -> Generator[Progress, None, Mapping[Any, Any]]:
        yield Progress("measured", 1, 1)
        asked.extend(networks)
        return {
            n: Estimate(share := sum(len(s.choices) for s in n.subnets) / 16, None, share, share, 4, "measured")
            for n in networks
        }

    monkeypatch.setattr(controls, "_measured", measured)
    comparison = Sized(Budget("fast", latency=0.75, size=0.9))
    (winner,) = selected(fewer_layers(comparison))
    assert winner.latency_share is not None and winner.latency_share.value <= 0.75
    assert len(asked) == controls.MOST_MEASURED
    sizes = [comparison.size_bits(network) for network in asked]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] <= 0.9 * comparison.cost_tables.teacher["size"]
    larger = asked[: asked.index(winner.architecture)]
    assert all(sum(len(s.choices) for s in n.subnets) > 12 for n in larger)


def test_thinning_keeps_both_ends() -> None:
    networks = list(family(SPACE, SPACE.teacher_layers))
    kept = thinned(networks, 12)
    assert len(set(kept)) == 12 and (kept[0], kept[-1]) == (networks[0], networks[-1])
    assert thinned(networks[:5], 12) == networks[:5]
