"""The user's own network: imported from its file, calibrated on the user's data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from deploy.compile.scheme import QuantizationScheme
from deploy.formats.digest import digest
from deploy.formats.importers.network import ImportedNetwork
from deploy.lcpaq.objectives import Objective
from deploy.lcpaq.own_data import OwnData
from deploy.lcpaq.subject import Scoring
from deploy.quantize.calibration_data import CalibrationData
from deploy.quantize.quantized import Quantized, quantize
from deploy.run.keys import settings_of
from hil.errors import ModelError
from nas.lcpaq.hessian import Problem
from nas.lcpaq.policy import Policy, applied, network_digest
from nas.quant.float_graph import Node, Weighted
from nas.quant.lower import source_of
from nas.quant.scheme import Scheme
from nas.quant.shapes import Shape
from nas.training.threads import one_thread

QUANTIZER = 1
"""Raise when weights come to be quantized otherwise: sensitivities and policies are computed again."""


@dataclass(frozen=True, eq=False)
class OwnNetwork:
    """A float network of any origin, and what its integers are to keep.

    Attributes:
        name: of the files that are written.
        data: the network itself, and all of its examples.
        calibration: those that ranges are of.
        quantization: of the file; `choices`: the rest of post-training quantization.
        folder: for the records and the files.
    """

    name: str
    data: OwnData
    calibration: CalibrationData
    objective: Objective
    quantization: QuantizationScheme
    choices: Scheme
    folder: Path

    def __post_init__(self) -> None:
        if not any(isinstance(node, Weighted) for node in self.nodes):
            raise ModelError(
                f"{self.name}: no convolution and no product with constant weights in it: there are no bits to assign"
            )

    @property
    def network(self) -> ImportedNetwork:
        return self.data.network

    @property
    def nodes(self) -> Sequence[Node]:
        return self.network.nodes

    @property
    def input_shape(self) -> Shape:
        return source_of(self.network.input.deployed_shape, (1.0, 0)).shape

    @property
    def scheme(self) -> Scheme:
        return self.quantization.scheme(self.choices)

    @property
    def loss(self) -> str:
        return self.objective.text

    @cached_property
    def key(self) -> str:
        seen = hashlib.sha256()
        for batch in self.calibration.batches():
            seen.update(batch.tobytes())
        how = [str(self.quantization), settings_of(self.choices), self.loss, QUANTIZER]
        outputs = [value.tensor for value in self.network.outputs.values()]
        return digest(weights_digest(self.nodes), outputs, self.calibration.text, seen.hexdigest(), *how)

    def problem(self, images: int) -> Problem:
        return self.objective.problem(images)

    def scoring(self, images: int) -> Scoring:
        def score(policy: Policy) -> float:
            return self.objective.score(self.quantized(policy), images)

        return Scoring(self.objective.metric, self.objective.unit, self.objective.scored(images), score)

    def quantized(self, policy: Policy) -> Quantized:
        """The network in integers, at the policy's bits."""
        at_policy = replace(self.network, nodes=tuple(applied(self.nodes, policy)))
        with one_thread():
            return quantize(at_policy, self.calibration.batches(), self.quantization, self.choices)


def weights_digest(nodes: Sequence[Node]) -> str:
    """Of the operators with all that they hold."""
    found = hashlib.sha256(network_digest(nodes).encode())
    for node in nodes:
        for value in vars(node).values():
            found.update(value.numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return found.hexdigest()
