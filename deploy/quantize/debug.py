"""Float, integers and a board side by side at every tensor.

Noise grows along a network, and so does a difference between two machines. Each operator is therefore also looked at
alone: the float operator on the very integers that the integer one read, and the simulation on what the board's read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from deploy.quantize.noise import Sums
from deploy.run.records.base import OMITTED, Record
from nas.quant.float_graph import Node, stepwise
from nas.quant.integer_graph import IntegerGraph, Operator, reads
from nas.quant.integer_operators import QConstant
from nas.quant.simulate import Applied, dequantize, steps
from nas.settings import STRICT

Values = Mapping[str, Tensor]
"""Integers by the names of their tensors, (N, C, H, W) or in the file's order."""


@dataclass(frozen=True)
class IntegerDifference:
    """Between a board's integers and the simulation's.

    Attributes:
        share: of the elements, that differ at all; `largest`: the most by which one does, steps of the integers.
    """

    share: float
    largest: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class OperatorDebug:
    """One operator and its result.

    Attributes:
        kind: of the operator.
        noise_db: of its result against the float network's; `added_db`: against what the float operator gives for the
            same integers, its own share. None where the float network has no such tensor.
        board: of its result against the simulation's; `board_alone`: against the simulation of this operator on what
            the board's operator read. None without a board.
    """

    name: str
    kind: str
    noise_db: float | None
    added_db: float | None
    board: IntegerDifference | None = field(default=None, metadata=OMITTED)
    board_alone: IntegerDifference | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class DebugRecord(Record):
    """debug.json: the operators in their order.

    Attributes:
        model: the float network's file.
        board: whose answers were compared; None: none was asked.
        images: over how many.
    """

    model: str
    scheme: str
    data: str
    images: int
    operators: tuple[OperatorDebug, ...]
    board: str | None = None

    FILE: ClassVar[str] = "debug.json"
    COMMAND: ClassVar[str] = "debug"

    @property
    def noisiest(self) -> list[OperatorDebug]:
        """By the noise that each adds, the most first."""
        known = [one for one in self.operators if one.added_db is not None]
        return sorted(known, key=lambda one: -(one.added_db or 0.0))

    @property
    def wrong(self) -> list[OperatorDebug]:
        """Those that the board computes otherwise than the simulation, in the network's order."""
        return [one for one in self.operators if one.board_alone is not None and one.board_alone.share]


@dataclass
class _Differing:
    """Over all images."""

    differing: int = 0
    elements: int = 0
    largest: int = 0

    def add(self, one: Tensor, other: Tensor) -> None:
        apart = (one.double() - other.double()).abs()
        self.differing += int((apart != 0).sum())
        self.elements += apart.numel()
        self.largest = max(self.largest, int(apart.max()))

    @property
    def found(self) -> IntegerDifference:
        return IntegerDifference(self.differing / self.elements, self.largest)


@dataclass
class _Noise:
    """Over all images: of tensors against the float network, and of each operator alone."""

    of_tensors: Sums = field(default_factory=Sums)
    of_operators: Sums = field(default_factory=Sums)

    def add(self, nodes: Sequence[Node], graph: IntegerGraph, real: Tensor, integers: Values) -> None:
        values = {
            name: dequantize(q.double(), graph.tensors[name]).float()
            for name, q in integers.items()
            if graph.tensors[name].dtype != "int32"
        }
        computed = set(results(graph)) & values.keys()
        for node, y in stepwise(nodes, {graph.input: real}):
            if node.name in computed:
                self.of_tensors.add(node.name, y, values[node.name] - y)
                alone = node(values)
                self.of_operators.add(node.name, alone, values[node.name] - alone)


def results(graph: IntegerGraph) -> list[str]:
    """The tensors that operators compute, in order."""
    return [op.name for op in graph.operators if not isinstance(op, QConstant)]


@torch.no_grad()
def operators_of(
    nodes: Sequence[Node],
    graph: IntegerGraph,
    inputs: Iterable[tuple[Tensor, Tensor]],
    applied: Applied,
    answers: Iterable[Values] | None = None,
) -> tuple[OperatorDebug, ...]:
    """Each operator of `graph`, the integers of `nodes`, over `inputs`: (real, integer), (1, C, H, W) each.

    `applied` computes the integers; `answers` are the board's, of all `results` for each input.
    """
    noise = _Noise()
    board = {name: _Differing() for name in results(graph)}
    alone = {name: _Differing() for name in results(graph)}
    answering = None if answers is None else iter(answers)
    for real, q in inputs:
        integers = {graph.input: q.float()} | {op.name: y for op, y in steps(graph, q, applied)}
        noise.add(nodes, graph, real, integers)
        if answering is not None:
            answered = {**_constants(graph, integers), graph.input: q.float(), **next(answering)}
            for op in graph.operators:
                if op.name in board:
                    board[op.name].add(answered[op.name], integers[op.name])
                    alone[op.name].add(answered[op.name], _applied_to(op, answered, graph, applied))
    noise_db, added_db = noise.of_tensors.decibels(), noise.of_operators.decibels()
    return tuple(
        OperatorDebug(
            op.name,
            type(op).__name__.removeprefix("Q"),
            noise_db.get(op.name),
            added_db.get(op.name),
            None if answering is None else board[op.name].found,
            None if answering is None else alone[op.name].found,
        )
        for op in graph.operators
        if op.name in board
    )


def _constants(graph: IntegerGraph, integers: Values) -> Values:
    return {op.name: integers[op.name] for op in graph.operators if isinstance(op, QConstant)}


def _applied_to(op: Operator, values: Values, graph: IntegerGraph, applied: Applied) -> Tensor:
    return applied(op, {name: values[name] for name in reads(op)}, graph.tensors)
