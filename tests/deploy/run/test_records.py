"""A run's records: what is written is read back; anything else is one line with file, field and what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.run import records
from deploy.run.records import (
    AgreementRecord,
    AgreementSummary,
    AsMeasured,
    BudgetVerdict,
    BundleRecord,
    Compared,
    ComparedModel,
    ConfirmedBudget,
    ConfirmRecord,
    ConfirmRound,
    Correction,
    DataSummary,
    ExcludedModel,
    FinalRecord,
    GateRecord,
    LatencyRecord,
    MeasuredCandidate,
    MeasuredTail,
    MetricRecord,
    ModelRecord,
    Offender,
    OutsideBlocks,
    ParetoPoint,
    PlacementRecord,
    ProfileRecord,
    RankStatistics,
    Record,
    Regret,
    Regrets,
    RunState,
    SchemeResult,
    SchemesRecord,
    SearchRecord,
    SelectedModel,
    SpaceSummary,
    SubnetCounts,
    Summary,
    TailRecord,
    Validation,
)
from hil.errors import UsageError
from hil.measurement import Conditions
from nas.estimate import Estimate

SUBNET = "b1_k3e2_w8+b2_k3e2-k3e6_w4"
CONDITIONS = Conditions("pi", "pi", "ssh", "aarch64", "BCM", "6.1", "Debian", "none", "python", "litert", "none",
                        "xnnpack", 1, "performance", None, "boot", "3.11")  # fmt: skip
STATISTICS = RankStatistics(0.97, (0.9, 0.99), 36, 0.98, 0.99, 12.5, 1.5, 10, 0.9, (0.7, 1.0))
REGRETS = Regrets("nsr", (Regret(0.1, 0.5, 4, SUBNET, 10.0, 9.0, 11.1),), 11.1)
SAMPLE = ComparedModel(SUBNET, 9.0, 10.0, 10.5, (10.4, 10.6))
COMPARED = Compared(STATISTICS, REGRETS, (Offender(SUBNET, 1.0, 2.0, 50.0),), (SAMPLE,))
CORRECTION = Correction(12.5, 36, 0.95, 0.97, 2.0, 1.0, True, {"pairs": 0.1}, {"pair": -3.0})
GATE = GateRecord(0.97, "the table as measured", 0.95, False, True)
AGREEMENT = AgreementRecord(
    STATISTICS, REGRETS, COMPARED.offenders, (SAMPLE,), AsMeasured("3f", 0.96), CORRECTION, COMPARED,
    (ExcludedModel(SUBNET, "no output"),), CONDITIONS, 20.0, GATE,
)  # fmt: skip
SEARCH = SearchRecord(
    (SelectedModel("fast", SUBNET, 0.1, 8000.0, 12.0, 7),), GATE, 16000, OutsideBlocks(400, 2.5),
    (ParetoPoint(SUBNET, 0.1, 12.0),),
)  # fmt: skip
MODEL = ModelRecord("fast", SUBNET, "miou", 71.0, 70.5, 8000, (4, 8), (4, 8), (8,), PlacementRecord("vx", "NN", 0.1),
                    10**6, 12.0, LatencyRecord(12.5, 13.0, 60, (12.4, 12.6)))  # fmt: skip
TEACHER = replace(MODEL, name="teacher", subnet="teacher", predicted_us=None, placement=None)
TEACHER_PLUS = replace(TEACHER, name="teacher_plus")
BUDGET = BudgetVerdict("fast", "latency", 0.9, Estimate(0.89, None, 0.88, 0.91, 4, "measured"))
DIFFERENCE = Estimate(-0.5, 0.3, -1.1, 0.1, 64, "resampled")
BUNDLE = BundleRecord("runs/a/bundle", "fast", True, "pi", {"median": 12.0})
SUMMARY = Summary(
    "tiny", DataSummary("scenes", (64, 96), 8, 16, 4), "segmentation", MetricRecord("mIoU", "miou"),
    SpaceSummary("tiny", "0f", 12), TEACHER, TEACHER_PLUS, (MODEL,), (BUDGET,),
    AgreementSummary(0.97, (0.9, 0.99), 36, 0.98, 0.99), CORRECTION, GATE, SubnetCounts(12, 6, 12), BUNDLE, CONDITIONS,
    {"teacher": 1.0, "total": 1.0},
)  # fmt: skip
SHARE = Estimate(0.86, None, 0.85, 0.88, 4, "measured")
CONFIRMED = ConfirmRecord(
    (ConfirmedBudget("fast", 0.9, 18.0, (
        MeasuredCandidate(SUBNET, 1, 17.0, 17.2, SHARE, True),
        MeasuredCandidate(SUBNET, 2, 17.0, None, None, False, "tensor int8", "no output"),
    )),),
    (ConfirmRound(2, 8, 20.5, CORRECTION),),
)  # fmt: skip
ALL: list[Record] = [
    AGREEMENT,
    replace(AGREEMENT, as_measured=None, with_feedback=None, excluded=()),
    SEARCH,
    replace(SEARCH, selected=(replace(SEARCH.selected[0], scheme="tensor int8"),), schemes=("channel int8",)),
    replace(SEARCH, selected=(replace(SEARCH.selected[0], share=SHARE),), confirmed=CONFIRMED),
    FinalRecord(
        (TEACHER, replace(MODEL, scheme="tensor uint8", score_held_out=0.0, against_teacher_plus=DIFFERENCE)),
        TEACHER_PLUS,
        (BUDGET, replace(BUDGET, quantity="size", share=Estimate.exact(0.95))),
        CONDITIONS,
        BUNDLE,
    ),
    FinalRecord((MODEL, replace(MODEL, metric="top1", score_held_out=60.0)), TEACHER_PLUS, (), CONDITIONS, BUNDLE),
    SUMMARY,
    ProfileRecord(12, 6, 12, CONDITIONS),
    ProfileRecord(12, 6, 12, CONDITIONS, Validation(4, 1.0, (0.9, 1.1), 0.99)),
    SchemesRecord({"tensor int8": SchemeResult(12, 6, 12, 3, 2.5, 1.0, None)}),
    TailRecord(
        "logits",
        "mIoU",
        0.5,
        (
            MeasuredTail("classes", 40.0, failure="crashed"),
            MeasuredTail("logits", 40.0, 9.5, 2.5, SHARE),
        ),
    ),
    TailRecord("classes", "top-1", 0.5),
]


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read_back(record: Record, tmp_path: Path) -> None:
    path = tmp_path / record.FILE
    record.write(path)
    assert type(record).read(path) == record
    assert json.loads(path.read_text())["schema_version"] == record.SCHEMA
    type(record).read(path).write(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def changed(path: Path, record: Record, *keys: str | int, value: object = None, drop: bool = False) -> Path:
    """The record's file with one of its entries changed."""
    record.write(path)
    raw = json.loads(path.read_text())
    place = raw
    for key in keys[:-1]:
        place = place[key]
    if drop:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize(
    ("record", "keys", "drop", "words"),
    [
        (AGREEMENT, ("teacher_us",), True, ("'teacher_us'", "hilnas agree")),
        (AGREEMENT, ("correction", "spreads"), True, ("'correction.spreads'",)),
        (AGREEMENT, ("gate", "table"), False, ("unknown key 'gate.table'",)),
        (AGREEMENT, ("conditions", "sock"), False, ("unknown key 'conditions.sock'", "did you mean 'soc'")),
        (SEARCH, ("found",), False, ("unknown key 'found'", "hilnas search")),
        (SEARCH, ("selected", 0, "nsr"), True, ("'selected.0.nsr'",)),
        (SUMMARY, ("teacher", "miou_int8"), True, ("summary.json", "hilnas report")),
        (SUMMARY, ("models", 0, "miou_int7"), False, ("unknown key 'models.0.miou_int7'",)),
        (SUMMARY, ("teacher_plus",), True, ("'teacher_plus'", "hilnas report")),
        (SUMMARY, ("budgets", 0, "share", "value"), True, ("'budgets.0.share.value'",)),
        (SUMMARY, ("budgets", 0, "keeps"), False, ("unknown key 'budgets.0.keeps'",)),
        (SUMMARY, ("schema_version",), True, ("no schema version", "reads version 2")),
    ],
)
def test_a_foreign_field_is_named(record: Record, keys, drop: bool, words, tmp_path: Path) -> None:
    path = changed(tmp_path / record.FILE, record, *keys, drop=drop)
    with pytest.raises(UsageError) as caught:
        type(record).read(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and "delete it and run `hilnas " in said and "\n" not in said
    assert not [word for word in words if word not in said], said


def test_another_schema_version_is_one_line(tmp_path: Path) -> None:
    path = changed(tmp_path / "search.json", SEARCH, "schema_version", value=7)
    with pytest.raises(UsageError, match="schema version 7, this hilnas reads version 1; delete it and run"):
        SearchRecord.read(path)
    with pytest.raises(UsageError, match="no such file"):
        SearchRecord.read(tmp_path / "nothing.json")


def test_names_that_others_read_stay_on_disk() -> None:
    """The scores have the metric's key; what is only where there are several schemes is absent where there is one."""
    summary = SUMMARY.to_json()
    (model,) = summary["models"]
    assert list(model) == ["name", "subnet", "miou_fp32", "miou_int8", "size_bits", "requested_bits", "stored_bits",
                           "executed_bits", "placement", "macs", "predicted_us", "latency_us"]  # fmt: skip
    assert summary["teacher"]["predicted_us"] is None and summary["teacher"]["placement"] is None
    assert "top1_int8" in replace(MODEL, metric="top1").to_json()
    assert replace(MODEL, score_held_out=0.0).to_json()["miou_held_out"] == 0.0
    (budget,) = summary["budgets"]
    assert list(budget) == ["name", "quantity", "limit", "share", "kept"] and budget["kept"] is True
    assert set(summary["gate"]) == {"tau_b", "of", "tau", "override", "holds"}
    assert "spreads" in summary["correction"] and "prior_std" not in summary["correction"]
    assert "schemes" not in SEARCH.to_json() and "scheme" not in SEARCH.to_json()["selected"][0]


def test_a_selected_model_is_found_by_its_budget() -> None:
    assert SEARCH.model("fast").architecture.subnets[0].block == 1
    with pytest.raises(UsageError, match="no selected model 'small'; there are fast"):
        SEARCH.model("small")


def test_every_record_is_exported() -> None:
    assert {type(record).__name__ for record in ALL} <= set(records.__all__)


def test_the_state_of_a_run_before_keys_had_versions_is_empty(tmp_path: Path) -> None:
    path = tmp_path / RunState.FILE
    path.write_text('{"teacher": {"key": "0123456789abcdef", "done": true, "seconds": 61.2, "cpu_seconds": 118.0}}')
    assert RunState.read(path) == RunState()
    path.write_text('{"teacher": 1}')
    with pytest.raises(UsageError, match=r"state\.json: no schema version"):
        RunState.read(path)
