"""The costs of each layer's bits, from the tables of perturbation and latency, as `Options`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nas.errors import ConfigError
from nas.lcpaq.policy import INT8, Choice, Layer, Options

BitTable = Mapping[str, Mapping[int, float]]
"""By layer and bits: a perturbation Omega_i(b), or a latency in microseconds."""


def options_of(
    layers: Sequence[Layer],
    choices: Sequence[Choice],
    perturbation: BitTable,
    *,
    activation_perturbation: BitTable | None = None,
    latency_us: Mapping[str, float | Mapping[int, float]] | None = None,
    groups: tuple[tuple[str, ...], ...] = (),
) -> Options:
    """The same `choices` (weight bits, activation bits) for every layer, with their costs.

    `perturbation` holds each layer's Omega_i(b) of its weights, `activation_perturbation` that of its input; they are
    added (as in HAWQ-V2). A latency is one number per layer, as every width runs as int8, or one per width. Raises
    `ConfigError` where a table lacks a layer or a width.
    """
    chosen = tuple(sorted(set(choices)))
    if activation_perturbation is None and any(activations != INT8 for _, activations in chosen):
        raise ConfigError("activation bits other than 8 need a table of the activations' perturbation")
    rows = [[_looked_up(perturbation, layer.name, w, "perturbation") for w, _ in chosen] for layer in layers]
    if activation_perturbation is not None:
        what = "activations' perturbation"
        for row, layer in zip(rows, layers, strict=True):
            row[:] = [
                value + _looked_up(activation_perturbation, layer.name, a, what)
                for value, (_, a) in zip(row, chosen, strict=True)
            ]
    costs = {
        "perturbation": tuple(np.array(row) for row in rows),
        "size_bits": tuple(np.array([float(layer.size_bits(w)) for w, _ in chosen]) for layer in layers),
        "bops": tuple(np.array([float(layer.bops(w, a)) for w, a in chosen]) for layer in layers),
    }
    if latency_us is not None:
        costs["latency_us"] = tuple(
            np.array([_looked_up(latency_us, layer.name, w, "latency") for w, _ in chosen]) for layer in layers
        )
    return Options(tuple(layers), (chosen,) * len(layers), costs, groups)


def int8_costs(options: Options) -> dict[str, float]:
    """The costs that can be limited, with 8 bits everywhere; every width takes int8's time."""
    costs = {
        "size_bits": float(sum(layer.size_bits(INT8) for layer in options.layers)),
        "bops": float(sum(layer.bops(INT8, INT8) for layer in options.layers)),
    }
    if "latency_us" in options.costs:
        costs["latency_us"] = sum(float(cost.max()) for cost in options.costs["latency_us"])
    return costs


def _looked_up(table: Mapping[str, float | Mapping[int, float]] | BitTable, name: str, bits: int, what: str) -> float:
    entry = table.get(name)
    if isinstance(entry, Mapping):
        entry = entry.get(bits)
    if entry is None:
        raise ConfigError(f"{what}: no entry for layer '{name}' at {bits} bits; compute the table again")
    return float(entry)
