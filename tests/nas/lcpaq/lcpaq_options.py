"""Options with made-up costs, and every policy of a few layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from nas.lcpaq.policy import Choice, Layer, Options


def made_up(layers: int, choices: Sequence[Choice], seed: int, groups: Sequence[tuple[int, ...]] = ()) -> Options:
    """Perturbations of layers span four decades and fall four times with each bit; few bits may be a little faster."""
    rng = np.random.default_rng(seed)
    made, costs = [], {name: [] for name in ("perturbation", "size_bits", "bops", "latency_us")}
    for i in range(layers):
        weights, pixels = int(10 ** rng.uniform(2, 5)), int(10 ** rng.uniform(1, 4))
        layer = Layer(f"l{i}", "pointwise", weights, 16, weights * pixels)
        made.append(layer)
        sensitivity, us, gain = 10 ** rng.uniform(-2, 2), 10 ** rng.uniform(1, 3), rng.uniform(0, 0.05)
        rows = {name: [] for name in costs}
        for w, a in choices:
            error = 4.0**-w + 0.1 * 4.0**-a
            rows["perturbation"].append(sensitivity * weights * error * (1 + 0.1 * rng.random()))
            rows["size_bits"].append(float(layer.size_bits(w)))
            rows["bops"].append(float(layer.bops(w, a)))
            rows["latency_us"].append(us * (1 - gain * (8 - w)))
        for name, row in rows.items():
            costs[name].append(np.array(row))
    names = tuple(tuple(f"l{i}" for i in group) for group in groups)
    return Options(tuple(made), (tuple(choices),) * layers, {n: tuple(rows) for n, rows in costs.items()}, names)


def every_policy(options: Options) -> list[dict[str, float]]:
    """What each policy that keeps the ties costs."""
    number = {layer.name: i for i, layer in enumerate(options.layers)}
    every = []
    for rows in itertools.product(*(range(len(choices)) for choices in options.choices)):
        if all(len({rows[number[name]] for name in group}) == 1 for group in options.groups):
            every.append({name: options.total(name, rows) for name in options.costs})
    return every


def fits(costs: dict[str, float], limits: dict[str, float]) -> bool:
    return all(costs[name] <= limit * (1 + 1e-12) for name, limit in limits.items())
