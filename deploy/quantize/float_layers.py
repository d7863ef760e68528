"""Which layers to leave in float: one after the other, the one without whose rounding the outputs have least noise."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.compile.artifact import kernels_of
from deploy.formats.importers.network import ImportedNetwork
from deploy.quantize.noise import Sums
from deploy.quantize.quantized import Quantized
from deploy.run.folder import Progress
from hil.errors import UsageError
from nas.quant.arithmetic import LITERT
from nas.quant.float_graph import INPUT, ArgMax, Weighted, stepwise
from nas.quant.integer_graph import IntegerGraph, Operator
from nas.quant.integer_graph import Weighted as QWeighted
from nas.quant.lowered_operators import float_layer
from nas.quant.simulate import Applied, dequantize, simulate

Maps = Mapping[str, Tensor]
STAGE = "float layers"
MOST_IMAGES, MOST_ELEMENTS = 32, 1 << 27  # of all tensors of all images: they are kept, half a gigabyte at most


def images_of(quantized: Quantized, batches: Sequence[NDArray[np.float32]]) -> list[tuple[Tensor, Tensor]]:
    """The first images, as many as fit, as the floats and as the integers read them."""
    elements = sum(prod(tensor.shape) for tensor in quantized.graph.tensors.values())
    examples = islice(chain.from_iterable(batches), max(1, min(MOST_IMAGES, MOST_ELEMENTS // elements)))
    reals, integers = zip(*quantized.inputs(examples), strict=True)
    return [(torch.cat(reals), torch.cat(integers))]


def check_count(network: ImportedNetwork, count: int) -> None:
    """`UsageError` where so many layers cannot be chosen."""
    layers, ends = 0, {value.tensor for value in network.outputs.values()}
    for node in network.nodes:
        layers += isinstance(node, Weighted)
        ends -= {node.name} if isinstance(node, ArgMax) else set()
    if not 1 <= count <= layers:
        raise UsageError(f"--keep-float {count}: the network has {layers} layers with weights; give 1 to that many")
    if not ends:
        raise UsageError(f"--keep-float {count}: the outputs are indices, which have no noise; cut before them")


def layers_to_keep(
    quantized: Quantized, inputs: Sequence[tuple[Tensor, Tensor]], count: int
) -> Generator[Progress, None, tuple[str, ...]]:
    """The names of `count` layers with weights, the one that gains most first.

    `inputs`: batches, each as the floats and as the integers read it (`Quantized.inputs`). Each is chosen with those
    before it in float.
    """
    nodes = {node.name: node for node in quantized.nodes if isinstance(node, Weighted)}
    outputs, applied = quantized.graph.outputs, kernels_of(quantized.scheme.form, LITERT)
    wanted = [{n.name: y for n, y in stepwise(quantized.nodes, {INPUT: x}) if n.name in outputs} for x, _ in inputs]
    kept, graph, done = [], quantized.graph, 0
    total = sum(len(nodes) - i for i in range(count))
    for _ in range(count):
        noise, before = dict[str, float](), [{graph.input: q} for _, q in inputs]
        for position, operator in enumerate(graph.operators):
            if isinstance(operator, QWeighted):
                after = [_in_float(nodes, operator), *graph.operators[position + 1 :]]
                noise[operator.name] = _noise_db(graph, after, before, wanted, applied)
                done += 1
                yield Progress(STAGE, done, total, operator.name)
            for env in before:
                simulate([operator], graph.tensors, env, applied)
        best = min(noise, key=lambda name: noise[name])
        kept.append(best)
        operators = (_in_float(nodes, op) if op.name == best else op for op in graph.operators)
        graph = replace(graph, operators=tuple(operators))
    return tuple(kept)


def _in_float(nodes: Mapping[str, Weighted], operator: Operator) -> Operator:
    return float_layer(nodes[operator.name], operator) if isinstance(operator, QWeighted) else operator


@torch.no_grad()
def _noise_db(
    graph: IntegerGraph, operators: Sequence[Operator], before: Sequence[Maps], wanted: Sequence[Maps], applied: Applied
) -> float:
    """Of the noisiest output, by these `operators` on what was computed `before`."""
    sums = Sums()
    for env, outputs in zip(before, wanted, strict=True):
        found = dict(env)
        simulate(operators, graph.tensors, found, applied)
        for name, y in outputs.items():
            if graph.tensors[name].dtype == "int8":
                sums.add(name, y, dequantize(found[name], graph.tensors[name]) - y)
    return max(sums.decibels().values())
