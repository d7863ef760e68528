"""A small `IntegerGraph` on random integers: LiteRT's outputs against the simulations', byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ai_edge_litert.interpreter import OpResolverType
from hypothesis import strategies as st

from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from nas.quant import reference, simulate, uint8
from nas.quant.file_order import from_file_order, to_file_order
from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator
from tests.deploy.networks import interpret

ACTIVATIONS = ("none", "relu", "relu6")
seeds = st.integers(0, 2**31)
activations = st.sampled_from(ACTIVATIONS)


def tensor(name: str, shape: tuple[int, ...], rng: np.random.Generator, rank: int | None = None) -> IntTensor:
    scale = float(np.float32(rng.uniform(0.01, 0.2)))
    return IntTensor(name, shape, scale, int(rng.integers(-128, 128)), rank=rank or len(shape) + 1)


def like(x: IntTensor, name: str, shape: tuple[int, ...], rank: int | None = None) -> IntTensor:
    """A tensor of the scale and zero point of `x`."""
    return IntTensor(name, shape, x.scale, x.zero_point, rank=rank or len(shape) + 1)


def differences(tensors: Sequence[IntTensor], operators: Sequence[Operator], rng: np.random.Generator) -> list[int]:
    """The largest one on XNNPACK, on the reference kernels, and in uint8. The first of `tensors` is read."""
    source = tensors[0]
    graph = IntegerGraph({t.name: t for t in tensors}, tuple(operators), source.name)
    q = torch.from_numpy(rng.integers(-128, 128, from_file_order(torch.empty(1, *source.shape)).shape)).float()
    given = to_file_order(q).numpy().reshape(source.file_shape)
    int8, shift = write(graph), 128 if graph.tensors[graph.output].dtype == "int8" else 0
    found = [
        interpret(int8, given.astype(np.int8), kernels) for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)
    ]
    wanted = [simulate.run(graph, q), reference.run(graph, q)]
    if all(getattr(op, "weight_scale", np.ones(1)).size == 1 for op in operators):
        answer = interpret(write(graph, form=Form("uint8")), (given + 128).astype(np.uint8))
        found.append(answer.astype(np.int64) - shift)
        wanted.append(uint8.run(graph, q))
    results = [to_file_order(y).numpy().astype(np.int64).reshape(a.shape) for y, a in zip(wanted, found, strict=False)]
    return [int(np.abs(a.astype(np.int64) - y).max()) for a, y in zip(found, results, strict=True)]


def agrees(tensors: Sequence[IntTensor], operators: Sequence[Operator], rng: np.random.Generator) -> None:
    assert not any(differences(tensors, operators, rng)), operators
