"""The files of all facts on one board: compiled afresh, measured in interleaved rounds that the store keeps."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from deploy.characterize.claims import claim_of, content
from deploy.characterize.facts import Probe, facts, rounding
from deploy.characterize.outcomes import FactOutcome, cache_outcome, followed_arithmetic, outcomes, rounding_outcome
from deploy.compile.artifact import Artifact, golden_pair
from deploy.compile.canary import known_good
from deploy.formats.files import write_atomically
from deploy.run.folder import Progress
from deploy.targets.placement import Target
from hil.boards.config import BoardConfig
from hil.boards.kinds import open_board
from hil.errors import UsageError
from hil.job import Job, MeasureProtocol
from hil.measure import measure
from hil.measurement import Conditions, Measurement
from hil.regression import FEWEST_ROUNDS
from hil.sessions import open_session
from hil.store import Store
from nas.quant import simulate
from nas.quant.arithmetic import Arithmetic

STAGE = "measure"


@dataclass(frozen=True)
class Characterized:
    """What a board says.

    Attributes:
        conditions: that all of it holds under.
        arithmetic: that its uint8 outputs follow; None: not decided.
    """

    conditions: Conditions
    outcomes: Sequence[FactOutcome]
    arithmetic: Arithmetic | None


def characterize(
    config: BoardConfig, target: Target, size: tuple[int, int], protocol: MeasureProtocol, store: Store
) -> Generator[Progress, None, Characterized]:
    """Measures what the store does not hold; yields the progress after each round of a file.

    Raises UsageError for a size, protocol or board that gives no latencies to compare, and as `hil.measure` does; what
    was measured by then is in the store.
    """
    if config.kind == "qemu":
        raise UsageError(f"board {config.name} is emulated: its latencies mean nothing; characterize a real one")
    if protocol.rounds < FEWEST_ROUNDS:
        raise UsageError(f"--rounds {protocol.rounds}: {FEWEST_ROUNDS} or more show how far rounds differ")
    asked, rounded = facts(size), rounding(size)
    probes = {p.name: p for p in (*(p for f in asked for p in (f.probe, f.base) if p is not None), *rounded)}
    measured: dict[str, list[Measurement]] = {name: [] for name in probes}
    total = len(probes) * protocol.rounds
    yield Progress(STAGE, 0, total, "starts")
    with TemporaryDirectory() as folder, open_board(config) as board, open_session(board) as session:
        jobs = [_compiled(probe, Path(folder), target.arithmetic) for probe in probes.values()]
        canary = known_good(Path(folder) / "canary")
        for done, m in enumerate(measure(session, jobs, protocol, store, canary=canary), start=1):
            measured[m.model].append(m)
            yield Progress(STAGE, done, total, m.model)
        conditions = session.conditions
    yield Progress(STAGE, total, total, "done")
    found = outcomes([(fact, claim_of(target, fact)) for fact in asked], measured)
    followed = followed_arithmetic(rounded, measured)
    others = (rounding_outcome(followed, target.arithmetic), cache_outcome(measured))
    return Characterized(conditions, (*found, *others), followed)


def _compiled(probe: Probe, folder: Path, arithmetic: Arithmetic) -> Job:
    """Its file and golden pair, for an input of all integers; `arithmetic` counts where the probe names none."""
    artifact, tensor = Artifact.at(folder, probe.name), probe.graph.tensors[probe.graph.input]
    height, width, channels = tensor.shape
    q = torch.randint(-128, 128, (1, channels, height, width), generator=torch.Generator().manual_seed(0)).float()
    x = simulate.dequantize(q, tensor)
    source, expected = golden_pair(probe.graph, x, probe.form, probe.arithmetic or arithmetic)
    for path, written in ((artifact.model, content(probe)), (artifact.input, source), (artifact.expected, expected)):
        write_atomically(path, written)
    return artifact.job()
