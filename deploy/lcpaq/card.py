"""The model card of a network that LCPAQ assigned bits to: beside the same network at 8 bits everywhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from deploy.compile.artifact import Artifact, read_back
from deploy.lcpaq.run_network import RunNetwork
from deploy.lcpaq.settings import StepSettings
from deploy.lcpaq.subject import kept_policy
from deploy.run.records import BoardScore, LatencyRecord, ModelRecord, PlacementRecord
from deploy.ship.card import CardFacts, evaluations_in
from deploy.ship.provenance import CONFIGURATION, configuration, provenance_of
from nas.networks.resnet import ResNet
from nas.quant.integer_graph import IntegerGraph
from nas.tasks.counted import Counted, paired_difference

ALL_8 = "8 bits everywhere"


@dataclass(frozen=True, eq=False)
class DeployedNetwork:
    """The integers of a network, their file and their score on the validation images, image by image."""

    artifact: Artifact
    graph: IntegerGraph
    int8: Counted

    @property
    def name(self) -> str:
        return self.artifact.name

    def record(self, subject: RunNetwork, fp32: float, latency: LatencyRecord, board: BoardScore | None) -> ModelRecord:
        """With the float network's score, and its latency and score on the board."""
        found = read_back(self.artifact.model, subject.context.target)
        return ModelRecord(
            name=self.name,
            subnet=str(subject.architecture or subject.name),
            metric=subject.context.task.key,
            score_fp32=fp32,
            score_int8=self.int8.score,
            size_bits=self.graph.size_bits,
            requested_bits=found.requested_bits,
            stored_bits=found.stored_bits,
            executed_bits=found.executed_bits,
            placement=PlacementRecord(**asdict(found.placement)) if found.placement else None,
            macs=self.graph.macs,
            predicted_us=None,
            latency_us=latency,
            board=board,
        )


def card_facts(
    subject: RunNetwork,
    settings: StepSettings,
    networks: Sequence[DeployedNetwork],
    records: Sequence[ModelRecord],
    key: str,
) -> CardFacts:
    """`networks`, `records`: of the policy, then of 8 bits everywhere; `key`: of what ships."""
    context, (ours, all_8) = subject.context, networks
    experiment = context.experiment
    options = ("--board", experiment.board, "--model", subject.name, *settings.options)
    provenance = replace(
        provenance_of(context),
        command=shlex.join(("hilnas", "lcpaq", "run", "--config", CONFIGURATION, *options)),
        keys={"network": subject.key, "lcpaq": key},
    )
    if isinstance(subject.model, ResNet):
        provenance = replace(provenance, encoder=None)  # that is the teacher's
    return CardFacts(
        context.task.metric,
        tuple(records),
        (),
        evaluations_in(context.path, [record.name for record in records]),
        provenance,
        configuration(experiment, context.space),
        titles={all_8.name: ALL_8},
        less={ALL_8: paired_difference([ours.int8], [all_8.int8])},
        origin=f"The network {subject.name} of the run {experiment.name}, its bits assigned layer by layer by LCPAQ: "
        f"{kept_policy(subject)}.",
    )
