"""Whether there is an integer operator for a float one, by what it reads; scales do not matter here."""

from __future__ import annotations

from collections.abc import Sequence

from nas.quant.expressed import has_kernel
from nas.quant.float_graph import (
    ArgMax,
    AveragePool,
    Clip,
    Concat,
    Conv,
    DepthToSpace,
    MaxPool,
    Mean,
    Node,
    Pad,
    PRelu,
    Reshape,
    Resize,
    Slice,
    SpaceToDepth,
    TransposedConv,
)
from nas.quant.integer_graph import IntTensor

OF_MAPS = (Conv, TransposedConv, AveragePool, MaxPool, Pad, Resize, DepthToSpace, SpaceToDepth)


def refusal(node: Node, read: Sequence[IntTensor]) -> str | None:
    """Why TFLite has no operator for `node` on such tensors; None where it has one."""
    for x in read:
        if x.dtype == "int32" and not isinstance(node, Reshape):
            return f"computes with the indices '{x.name}': end the network there"
        if x.rank == 2 and isinstance(node, OF_MAPS):
            return f"reads the vector '{x.name}': it needs a map (H, W, C)"
    match node:
        case AveragePool() if not has_kernel(node, read[0].shape):
            return f"leaves the padding {node.padding} out of its means, which TFLite does for SAME alone"
        case Clip() if not node.low <= 0 <= node.high:
            return f"clips to {node.low:g} and {node.high:g}, and integers hold zero"
        case Concat() if len({x.rank for x in read}) > 1:
            return "joins vectors with maps: give them one shape"
        case Mean() if read[0].rank == 2 and not node.keep_dims:
            return f"drops the only axis of the vector '{node.x}': keep it"
        case ArgMax() if node.axis != -1:
            return "has another axis than the last one: transpose its input"
        case Slice() if min(node.strides) < 1:
            return "reverses an axis, which TFLite does not do on integers"
        case PRelu() if not _is_per_channel(node):
            return "has a slope for each place: TFLite has one for each channel"
    return None


def _is_per_channel(node: PRelu) -> bool:
    """Whether its slopes, laid out as a tensor, vary along the channels only."""
    channels = node.slope.shape[1] if node.slope.ndim == 4 else node.slope.shape[-1]
    return node.slope.numel() == channels
