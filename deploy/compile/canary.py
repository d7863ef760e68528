"""A small model that is known to be good: when a model fails, it shows whether the model is bad or the bench."""

from __future__ import annotations

from pathlib import Path

from deploy.compile.artifact import Artifact
from deploy.compile.subnets import compile_subnets
from deploy.compile.weights import Origin
from hil.job import Job
from nas.space import Block, SearchSpace, Subnet

KNOWN_GOOD = Subnet.parse("b1_k3e3-k3e3_w8")
SPACE = SearchSpace("known-good", 16, 16, (Block(2, 24, 2, 1),), (3,), (3,), (8,))


def known_good(folder: Path) -> Job:
    """The model in `folder`, compiled there if it is not; its golden pair is the integer simulation's."""
    artifact = Artifact.at(folder, str(KNOWN_GOOD))
    if not artifact.exists:
        folder.mkdir(parents=True, exist_ok=True)
        list(compile_subnets(Origin(SPACE, (64, 64)), [KNOWN_GOOD], folder))
    return artifact.job()
