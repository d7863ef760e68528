"""A board that was never there: a store of measurements that a hidden cost model gives, and its boards.toml."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deploy.characterize.claims import content
from deploy.characterize.facts import Probe, facts, rounding
from hil.measurement import Measurement, Parity
from hil.store import Store
from nas.quant.arithmetic import Arithmetic
from tests.hil.stored_measurements import CONDITIONS, ONE

SIZE = (24, 32)
ROUNDS, RUNS = 4, 20
UNIT_US = 1000.0
EDGE_US = 400.0  # what int8 inputs and outputs cost
FACTORS: Mapping[str, float] = {
    **{f"conv{kernel}-channel": 30.0 for kernel in (1, 3, 5, 7)},
    **{"depthwise3-channel": 30.0, "fully-channel": 12.0},
    **{"conv3-d8": 20.0, "depthwise3-d8": 30.0, "depthwise3-d4": 6.0, "depthwise3-d7": 20.0, "conv3-s2": 6.0},
    **{"depthwise7": 1.96, "add-30": 8.0, "add-relu6": 4.0, "conv1-relu6": 5.0, "conv1-wide": 2.0, "concat": 2.0},
    **{"class-map": 25.0, "logits-scaled": 3.0, "class-map-scaled": 60.0},
    **{f"resize{n}": 0.1 for n in (2, 3, 4, 5, 6, 8, 16)},
    **{"average3": 8.0, "average8": 8.0, "mean": 8.0, "max3": 9.0, "pad": 3.0},
}
"""How many times as long as its base a file takes that differs from it: 1 for the others."""
WRONG = ("resize5", "resize6", "resize16", "resize-fraction", "resize-unequal")


@dataclass(frozen=True)
class Planted:
    """What the board does, by the files' names; by default what the vendor's simulator showed of the i.MX8M Plus."""

    factors: Mapping[str, float] = field(default_factory=lambda: FACTORS)
    wrong: tuple[str, ...] = WRONG
    arithmetic: Arithmetic = "xnnpack"
    keeps_graphs: bool = True
    overhead_us: float = 0.0
    noise: float = 0.01

    def latencies_us(self, probe: Probe, rng: np.random.Generator) -> tuple[float, ...]:
        edge = EDGE_US if probe.activations == "int8" and probe.name in ("conv3", "depthwise3") else 0.0
        level = self.overhead_us + edge + UNIT_US * self.factors.get(probe.name, 1.0)
        return tuple(level * (1 + self.noise * rng.random(RUNS)))

    def parity(self, probe: Probe) -> Parity:
        if probe.name in self.wrong:
            return Parity(1000, 280, 150.0)
        other = probe.arithmetic not in (None, self.arithmetic)
        return Parity(1000, 300 if other else 0, 2.0 if other else 0.0)

    def measurement(self, probe: Probe, number: int, rng: np.random.Generator) -> Measurement:
        cold = number == 0 or not self.keeps_graphs
        conditions = replace(CONDITIONS, kind="ssh", board="imx8mp", unit="imx8mp", delegate="libvx_delegate.so")
        return replace(
            ONE, job_id=f"{probe.name} {number}", model=probe.name, round=number, conditions=conditions, flags=(),
            model_sha256=hashlib.sha256(content(probe)).hexdigest(), latencies_us=self.latencies_us(probe, rng),
            parity=self.parity(probe), cache="cold" if cold else "warm", load_us=800_000 if cold else 60_000,
        )  # fmt: skip


def probes() -> list[Probe]:
    named = {p.name: p for fact in facts(SIZE) for p in (fact.probe, fact.base) if p is not None}
    return [*named.values(), *rounding(SIZE)]


def boards_file(folder: Path, planted: Planted) -> Path:
    """A replay of what `planted` would have given, called imx8mp, with the target and tolerances of the real one."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with Store(folder / "recorded.sqlite") as store:
        for probe in probes():
            for number in range(ROUNDS):
                store.add(planted.measurement(probe, number, rng))
    path = folder / "boards.toml"
    path.write_text(
        f'[imx8mp]\nkind = "replay"\nstore = "{folder}/recorded.sqlite"\ntarget = "imx8mp-vx"\n'
        "parity_max_abs_diff = 2\nparity_max_mismatch = 0.02\n"
    )
    return path
