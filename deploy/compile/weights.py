"""Where the subnets that `hilnas compile` writes come from: their weights, and the maps that calibrate them.

Latency depends on neither, so random weights calibrated on noise time an idea before anything is trained. With a
run's checkpoint and its configuration the files are the run's; each file's metadata names its weights and calibration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.formats.digest import file_digest
from deploy.formats.tflite.operators import Form
from hil.errors import UsageError
from nas.errors import CheckpointError, QuantizationError
from nas.networks.blocks import SuperBlock
from nas.nsr import graphs
from nas.quant.integer_graph import IntegerGraph
from nas.quant.scheme import DEFAULT, Scheme
from nas.space import SearchSpace, Subnet
from nas.training.distil import supernets
from nas.training.train import load

RANDOM, NOISE = "random", "noise"
NOISE_SIZE = (8, 8)  # ranges of noise do not depend on the map's size


@dataclass(frozen=True, eq=False)
class Origin:
    """A space's supernets with the maps that calibrate them. Pickles: every worker process gets one.

    Attributes:
        size: of the image, (H, W).
        weights: 'random', or the first 16 digits of the checkpoint's sha256.
        calibration: 'noise', or the spec of the data whose images the run's teacher made into maps.
        checkpoint: the supernets.pt, where the weights are not random.
        maps: what enters each block, (N, C, h, w) float32; empty: noise.
        golden: the map (1, C, H/s, W/s) of each block's golden pair; empty: noise.
    """

    space: SearchSpace
    size: tuple[int, int]
    scheme: Scheme = DEFAULT
    weights: str = RANDOM
    calibration: str = NOISE
    checkpoint: Path | None = None
    maps: tuple[NDArray[np.float32], ...] = ()
    golden: tuple[NDArray[np.float32], ...] = ()

    def supernet(self, block: int) -> SuperBlock:
        return _supernets(self.space, self.checkpoint, self.weights)[block - 1]

    def calibration_maps(self, block: int) -> Tensor:
        """What enters `block`, (N, C, h, w)."""
        return torch.from_numpy(self.maps[block - 1]) if self.maps else self._noise(block, NOISE_SIZE)

    def golden_map(self, block: int) -> Tensor:
        """One map of the size that `block` is compiled for, (1, C, H, W)."""
        return torch.from_numpy(self.golden[block - 1]) if self.golden else self._noise(block, self.map_size(block))

    def _noise(self, block: int, size: tuple[int, int]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, self.space.input_channels(block), *size, generator=generator)

    def map_size(self, block: int) -> tuple[int, int]:
        """Height and width of the map that enters `block`."""
        stride = 2
        for earlier in self.space.blocks[: block - 1]:
            stride *= earlier.stride
        return -(-self.size[0] // stride), -(-self.size[1] // stride)

    def graphs(self, wanted: Sequence[Subnet]) -> Iterator[tuple[Subnet, IntegerGraph]]:
        """The integers of subnets of one block and bit width."""
        block = wanted[0].block
        return graphs(self.supernet(block), self.calibration_maps(block), self.map_size(block), wanted, self.scheme)

    def describe(self, form: Form) -> dict[str, object]:
        """Everything that decides what a subnet's file holds, except its name."""
        return {
            "space": self.space.digest,
            "size": list(self.size),
            "weights": self.weights,
            "calibration": self.calibration,
            **asdict(self.scheme),
            **asdict(form),
        }

    def metadata(self, subnet: Subnet, form: Form) -> dict[str, object]:
        """The metadata of the file of `subnet`; `config` is the digest of all of `describe`."""
        return {"subnet": str(subnet), "requested_bits": subnet.bits, **_shared_metadata(self, form)}


@lru_cache(maxsize=1)
def _shared_metadata(origin: Origin, form: Form) -> dict[str, object]:
    described = origin.describe(form)
    config = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    return {**{key: described[key] for key in ("space", "weights", "calibration")}, "config": config}


@lru_cache(maxsize=1)
def _supernets(space: SearchSpace, checkpoint: Path | None, _weights: str) -> list[SuperBlock]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = supernets(space)
    if checkpoint is not None:
        _load(model, checkpoint)
    return [block for block in model.eval() if isinstance(block, SuperBlock)]


def _load(model: nn.ModuleList, checkpoint: Path) -> dict[str, object]:
    """Fill `model` from a supernets.pt; the checkpoint's record.

    Raises `CheckpointError` if it is no checkpoint or another space's, `QuantizationError` if it diverged.
    """
    record = load(checkpoint)
    try:
        model.load_state_dict(record["model"])
    except (RuntimeError, TypeError):
        raise CheckpointError(
            f"{checkpoint}: not the supernets of this space; give its --space, or the run's --config"
        ) from None
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise QuantizationError(f"{checkpoint}: '{name}' holds NaN or infinity: the training diverged; repeat it")
    return record


def trained(space: SearchSpace, size: tuple[int, int], scheme: Scheme, checkpoint: Path) -> Origin:
    """A checkpoint's weights, calibrated on noise. Raises what `_load` does, and `UsageError` for a missing file."""
    if not checkpoint.is_file():
        raise UsageError(f"{checkpoint}: no such file; --weights takes a run's supernets.pt, or 'random'")
    _load(supernets(space), checkpoint)
    return Origin(space, size, scheme, file_digest(checkpoint)[:16], checkpoint=checkpoint)
