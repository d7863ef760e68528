"""A replay board whose latencies have interactions between neighbours that no code which measures or repairs knows."""

from __future__ import annotations

import shutil
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import hil.sessions
from deploy.cli import main
from deploy.formats.tflite.read import read
from deploy.targets.inspection import inspect_model
from hil.answer import Answer, TimedRuns
from hil.measurement import Parity
from hil.replay import ReplaySession
from hil.request import Request
from hil.stage import sha256_of
from nas.space import Subnet
from tests.deploy.tiny_experiment import write_experiment
from tests.hil.stored_measurements import CONDITIONS

SPACE = """
name = "planted"
stem_channels = 8
first_channels = 8
kernels = [3, 5]
expansions = [3, 6]
bits = [8]
blocks = [
    {{ stride = 2, channels = 8, layers = {}, teacher_layers = 1 }},
    {{ stride = 1, channels = 8, layers = {}, teacher_layers = 1 }},
    {{ stride = 1, channels = 8, layers = {}, teacher_layers = 1 }},
]
"""
BOARDS = """
[planted]
kind = "replay"
store = "none.db"
"""
LAYER_US = {"k3e3": 1000.0, "k3e6": 1700.0, "k5e3": 1500.0, "k5e6": 2600.0}
WEIGHT = {1: 1.0, 2: 1.3, 3: 0.8}
FIXED_US = {"overhead-empty": 50.0, "overhead-stem": 950.0, "overhead-head": 1050.0, "teacher": 12000.0}


class PlantedSession(ReplaySession):
    """Latencies by the names in the files' metadata; `stem_us`: what expansion 6 first in block 1 costs the stem,
    `meeting_us`: what a 5x5 kernel after expansion 6 costs between blocks 2 and 3."""

    stem_us = 0.0
    meeting_us = 0.0
    noise = 0.002

    def __enter__(self) -> PlantedSession:
        self.conditions = replace(CONDITIONS, board="replay of planted", unit="planted", kind="replay")
        return self

    def send(self, request: Request) -> None:
        model = Path(request.model)
        facts = inspect_model(read(model)).hilnas
        assert facts is not None
        us = self.latency_us(str(facts["subnet"]), request.name.startswith(("sample", "candidate")))
        rng = np.random.default_rng(zlib.crc32(f"{sha256_of(model)}/{request.round}".encode()))
        latencies = us * (1 + self.noise * rng.normal()) * (1 + 0.0005 * rng.normal(size=request.runs))
        runs = TimedRuns(
            load_us=100,
            first_us=int(us),
            warmup_us=int(us),
            warmup_runs=1,
            latencies_us=tuple(latencies.tolist()),
            parity=Parity(100, 0, 0.0) if request.expected else None,
            class_map_us=None if request.class_map is None else 1.0,
        )
        self._answers[request.id] = Answer(request.id, self.conditions.key(), sha256_of(model), None, runs, None)

    def latency_us(self, name: str, full: bool) -> float:
        """Of a block, a pair of neighbours, or a full network."""
        if name.startswith("overhead-") and name not in FIXED_US:
            return 50.0 + 10.0 * int(name[-1])  # copies of a map
        if name in FIXED_US:
            return FIXED_US[name]
        parts = [part for part in name.split("+") if part not in ("stem", "head")]
        subnets = [Subnet.parse(part) for part in parts]
        full = len(subnets) == 3
        stem, head = full or name.startswith("stem+"), full or name.endswith("+head")
        total = 50.0 + 900.0 * stem + 1000.0 * head
        total += sum(WEIGHT[s.block] * LAYER_US[str(c)] for s in subnets for c in s.choices)
        total += self.stem_us * (stem and subnets[0].choices[0].expansion == 6)
        for before, after in pairwise(subnets):
            met = before.block == 2 and before.choices[-1].expansion == 6 and after.choices[0].kernel == 5
            total += self.meeting_us * met
        return total


def planted_run(base: Path, layers: tuple[int, int, int], models: int) -> Path:
    """The configuration of a run up to its NSR tables: so many layers a block, so many models in its agreement."""
    changes = {
        "models = 4\ntau = -1.0": f"models = {models}\ntau = 0.97",
        "runs = 3\nrounds = 1": "runs = 3\nrounds = 2",
    }
    config = write_experiment(base, changes)
    (base / "space.toml").write_text(SPACE.format(*layers))
    (base / "boards.toml").write_text(BOARDS)
    assert main(["loop", *options(config, base / "runs"), "--until", "tables"]) == 0
    return config


def options(config: Path, runs: Path) -> list[str]:
    boards = str(config.parent / "boards.toml")
    return ["--config", str(config), "--runs-dir", str(runs), "--boards", boards, "--board", "planted"]


def copied_runs(config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs for one test, whose board is the planted one."""
    for name in ("HILNAS_BOARD", "HILNAS_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(hil.sessions.SESSION_KINDS, "replay", PlantedSession)  # type: ignore[misc]
    return Path(shutil.copytree(config.parent / "runs", folder / "runs"))
