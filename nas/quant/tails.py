"""Where a segmentation network's file ends, and what of the class map it leaves to the CPU.

An arg-max reads its logits across, which an NPU may have to transpose first: on upsampled ones that can cost more than
all convolutions. The full network always ends in its class map; a tail says how the map is made, and by what:

    classes    logits, resize, arg-max                              all in the file
    logits     the file ends at output stride                       resize and arg-max on the CPU
    nearest    logits, arg-max at output stride, nearest resize     all in the file; another class map, coarser
    upsampled  logits, resize                                       arg-max on the CPU
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from nas.quant.integer_graph import IntegerGraph, IntTensor, Operator, QArgMax, QResize
from nas.quant.integer_operators import QReshape

Tail: TypeAlias = Literal["classes", "logits", "nearest", "upsampled"]
TailChoice: TypeAlias = Tail | Literal["auto"]
TAILS: tuple[Tail, ...] = get_args(Tail)
Sizes: TypeAlias = tuple[tuple[int, int], ...]
"""(H, W) after each resize before an arg-max; a target may need several small ones (`nas.quant.safe_resize`). A size
that logits have already is no resize."""


def with_tail(graph: IntegerGraph, tail: Tail) -> IntegerGraph:
    """The full network with the class map of a tail; unchanged where it has none, or no resize before it."""
    resizes = _resizes(graph)
    if tail != "nearest" or not resizes:
        return graph
    classes, logits = graph.tensors[graph.output], graph.tensors[resizes[0].x]
    coarse = replace(classes, name=f"{graph.output}/coarse", shape=(*logits.shape[:2], 1))
    channel = replace(coarse, name=f"{coarse.name}/map", rank=4)
    ends: tuple[Operator, ...] = (
        QArgMax(coarse.name, logits.name),
        QReshape(channel.name, coarse.name),
        QResize(graph.output, channel.name, "nearest"),
    )
    tensors = {t.name: t for t in (*graph.tensors.values(), coarse, channel, replace(classes, rank=4))}
    return IntegerGraph(tensors, (*graph.until(logits.name).operators, *ends), graph.input)


def in_file(graph: IntegerGraph, tail: Tail) -> tuple[IntegerGraph, Sizes | None]:
    """What a file has of a full network, and the sizes of its logits that are left to the CPU, up to the class map's.

    () where the file's own output is the class map, None for a network that makes none. `graph` is one `with_tail`.
    """
    result = graph.tensors[graph.output]
    if result.dtype != "int32" or result.rank < 3 or len(graph.outputs) > 1:
        return graph, None
    last = graph.operators[-1]
    if tail not in ("logits", "upsampled") or not isinstance(last, QArgMax):
        return graph, ()
    resizes = _resizes(graph) if tail == "logits" else []
    kept = resizes[0].x if resizes else last.x
    sizes = tuple(_size(graph.tensors[op.name]) for op in resizes)
    return graph.until(kept), sizes or (_size(graph.tensors[kept]),)


def _size(tensor: IntTensor) -> tuple[int, int]:
    return tensor.shape[0], tensor.shape[1]


def _resizes(graph: IntegerGraph) -> list[QResize]:
    """Those in a row before the arg-max that ends the graph, in their order."""
    *before, last = graph.operators
    found: list[QResize] = []
    if isinstance(last, QArgMax):
        for op in reversed(before):
            if not isinstance(op, QResize) or op.name != (found[0].x if found else last.x):
                break
            found.insert(0, op)
    return found
