"""What asymmetric ranges are worth to a public network's weights: the squared error at few bits, by kind of layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.formats.tflite.read import convolutions, read
from hil.errors import ModelError
from nas.quant.float_graph import Conv
from nas.quant.scheme import FewBits
from nas.quant.weights import quantize_weight

WIDTHS = (4, 5, 6)


def rows(model: Path) -> Iterator[str]:
    """A Markdown table: asymmetric over symmetric weights' squared error, the mean over a .tflite file's layers."""
    by_kind: dict[str, list[NDArray[np.float32]]] = {}
    for weight, _ in convolutions(read(model)):
        by_kind.setdefault(_kind(weight), []).append(weight)
    if not by_kind:
        raise ModelError(f"{model}: it has no convolution; give a file of a convolutional network")
    yield "| layers | number | " + " | ".join(f"{bits} bits" for bits in WIDTHS) + " |"
    yield "|---" * (2 + len(WIDTHS)) + "|"
    for kind, ratios in ratios_of(by_kind).items():
        yield f"| {kind} | {len(by_kind[kind])} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |"


def ratios_of(by_kind: Mapping[str, list[NDArray[np.float32]]]) -> dict[str, list[float]]:
    """By kind of layer, for each width: the mean of asymmetric over symmetric error."""
    return {
        kind: [mean(_error(w, bits, "asymmetric") / _error(w, bits, "symmetric") for w in weights) for bits in WIDTHS]
        for kind, weights in by_kind.items()
    }


def _kind(weight: NDArray[np.float32]) -> str:
    if weight.shape[1] == 1:
        return "depthwise"
    return "pointwise" if weight.shape[2:] == (1, 1) else "other"


def _error(weight: NDArray[np.float32], bits: int, few_bits: FewBits) -> float:
    node = Conv("layer", "x", torch.from_numpy(weight.copy()), torch.zeros(len(weight)), bits=bits)
    q = quantize_weight(node, 1.0, "channel", few_bits)
    real = q.weight * q.scale.astype(np.float64).reshape(-1, 1, 1, 1)
    return max(float(np.square(real - weight).sum()), 1e-30)
