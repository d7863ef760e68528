"""The files of a run's folder that its stages leave for others, each as a frozen dataclass with `read` and `write`."""

from deploy.run.records.agreement import (
    AgreementRecord,
    AsMeasured,
    Compared,
    ComparedModel,
    Correction,
    ExcludedModel,
    GateRecord,
    Offender,
    RankStatistics,
    Regret,
    Regrets,
)
from deploy.run.records.base import Record, plain
from deploy.run.records.final import (
    AgreementSummary,
    BundleRecord,
    DataSummary,
    FinalRecord,
    LatencyRecord,
    MetricRecord,
    ModelRecord,
    PlacementRecord,
    SpaceSummary,
    SubnetCounts,
    Summary,
)
from deploy.run.records.search import OutsideBlocks, ParetoPoint, SearchRecord, SelectedModel
from deploy.run.records.state import RunState, StageState
from deploy.run.records.tables import ProfileRecord, SchemeResult, SchemesRecord, Validation

__all__ = [
    "AgreementRecord",
    "AgreementSummary",
    "AsMeasured",
    "BundleRecord",
    "Compared",
    "ComparedModel",
    "Correction",
    "DataSummary",
    "ExcludedModel",
    "FinalRecord",
    "GateRecord",
    "LatencyRecord",
    "MetricRecord",
    "ModelRecord",
    "Offender",
    "OutsideBlocks",
    "ParetoPoint",
    "PlacementRecord",
    "ProfileRecord",
    "RankStatistics",
    "Record",
    "Regret",
    "Regrets",
    "RunState",
    "SchemeResult",
    "SchemesRecord",
    "SearchRecord",
    "SelectedModel",
    "SpaceSummary",
    "StageState",
    "SubnetCounts",
    "Summary",
    "Validation",
    "plain",
]
