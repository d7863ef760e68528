"""What `hilnas space` reports: a space's numbers, and with cost tables what pruning leaves of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.search.query import objectives_of
from nas.search.reduction import Pruning, SpaceCounts, counted, pruning
from nas.search.union import CostTables
from nas.space import SearchSpace


@dataclass(frozen=True)
class BlockReport:
    """One block.

    Attributes:
        block: its number, from 1.
        stride, channels, dilation, layers: as in the space's file.
        teacher: the teacher's layers, as k3e6-k3e6; teacher_layers: how many.
        subnets: at one bit width, C^d_i.
        subnets_with_bits: over all bit widths.
        reduction: `subnets` over the architectures at one bit width (Eq. 2).
        pareto_optimal: how many of `subnets_with_bits` no other one dominates; None without tables.
    """

    block: int
    stride: int
    channels: int
    dilation: int
    layers: int
    teacher: str
    teacher_layers: int
    subnets: int
    subnets_with_bits: int
    reduction: float
    pareto_optimal: int | None


@dataclass(frozen=True)
class PruningReport:
    """What the tables leave.

    Attributes:
        objectives: the costs compared.
        subnets: Pareto-optimal ones, over all blocks.
        architectures: that these can form.
        front: those on the exact Pareto front.
    """

    objectives: tuple[str, ...]
    subnets: int
    architectures: int
    front: int


@dataclass(frozen=True)
class SpaceReport:
    """A space in numbers.

    Attributes:
        space, digest: its name, and what its tables name it by.
        choices: of every layer.
        bits: weight bit widths of every block.
        output_stride: of the last block's map.
        layers: of the student, over all blocks.
        blocks: one by one.
        subnets, architectures: at one bit width.
        subnets_with_bits, architectures_with_bits: over all bit widths.
        reduction, reduction_with_bits: subnets over architectures: what block-wise search evaluates.
        pruning: None without tables.
    """

    space: str
    digest: str
    choices: tuple[str, ...]
    bits: tuple[int, ...]
    output_stride: int
    layers: int
    blocks: tuple[BlockReport, ...]
    subnets: int
    subnets_with_bits: int
    architectures: int
    architectures_with_bits: int
    reduction: float
    reduction_with_bits: float
    pruning: PruningReport | None


def space_report(space: SearchSpace, tables: CostTables | None = None, objectives: Sequence[str] = ()) -> SpaceReport:
    """The numbers of `space`; `objectives`: which of the tables' costs pruning compares (none: all).

    Raises `ConfigError` for a space too large to count, `UsageError` for an objective that there is no table of, and
    `TableError` for tables that are not this space's.
    """
    counts = counted(space)
    pruned = None
    if tables is not None:
        pruned = pruning(tables.candidates(space, objectives_of(objectives, tables)))
    left = pruned.after if pruned else (None,) * len(space.blocks)
    return SpaceReport(
        space=space.name,
        digest=space.digest,
        choices=tuple(map(str, space.choices)),
        bits=space.bits,
        output_stride=space.output_stride,
        layers=sum(block.layers for block in space.blocks),
        blocks=tuple(_block(space, counts, number, optimal) for number, optimal in enumerate(left, start=1)),
        subnets=counts.subnets,
        subnets_with_bits=counts.subnets_with_bits,
        architectures=counts.architectures,
        architectures_with_bits=counts.architectures_with_bits,
        reduction=counts.reduction,
        reduction_with_bits=counts.reduction_with_bits,
        pruning=_pruning(pruned) if pruned else None,
    )


def _block(space: SearchSpace, counts: SpaceCounts, number: int, optimal: int | None) -> BlockReport:
    block, subnets, taught = space.blocks[number - 1], counts.of_blocks[number - 1], space.teacher_layers[number - 1]
    return BlockReport(
        number,
        block.stride,
        block.channels,
        block.dilation,
        block.layers,
        "-".join(map(str, taught)),
        len(taught),
        subnets,
        subnets * counts.widths,
        counts.reductions[number - 1],
        optimal,
    )


def _pruning(pruned: Pruning) -> PruningReport:
    return PruningReport(pruned.objectives, sum(pruned.after), pruned.architectures, pruned.front)
