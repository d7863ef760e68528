"""A comparison's records: read as they were written, strictly; costs add up."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deploy.compare.records import ComparisonRecord, MachineRecord, MethodRecord, RetrainedRecord, Spent, TeacherCosts
from deploy.run.records import SpaceSummary
from deploy.run.settings.deployment import Budget
from deploy.run.settings.search import Compare
from deploy.run.settings.training import Data, Retrain
from hil.errors import UsageError
from nas.estimate import Estimate
from nas.training.train import Schedule

METHOD = MethodRecord(
    "spos", "b1_k3e2_w4", 0.5, 6, True, 20.0, 100.0, 3.5, (20.0, 21.0), (22.0, 23.0), {"train": Spent(1.0, None)}
)
CONTROL = replace(
    METHOD,
    method="fewer_layers",
    nsr=None,
    predicted_us=None,
    latency_share=Estimate(0.8, None, 0.79, 0.81, 4, "measured"),
    against={"blockwise": Estimate(-0.5, 0.2, -0.9, -0.1, 4, "resampled")},
)
COMPARISON = ComparisonRecord(
    experiment="tiny",
    metric="mIoU",
    space=SpaceSummary("tiny", "d", 12),
    data=Data("scenes", (64, 96)),
    budget=Budget("fast", size=0.75),
    settings=Compare(supernet=Schedule(steps=9)),
    retrain=Retrain(steps=5, start="scratch"),
    teacher=TeacherCosts(30.0, 1000, 5.0),
    board_seconds=2.5,
    machine=MachineRecord("x86_64", 2, 1, "cpu"),
    methods=(METHOD, CONTROL),
)
RECORDS = (COMPARISON, RetrainedRecord("b1_k3e2_w4", 1, 22.0, 20.0, (((0, 0, 5), (0, 1, 2)), ((1, 1, 7),))))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read_and_nothing_else(record, tmp_path):
    path = tmp_path / "record.json"
    record.write(path)
    assert type(record).read(path) == record
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "judged": 6}))
    with pytest.raises(UsageError, match=r"record\.json: unknown key 'judged'.*hilnas compare-search"):
        type(record).read(path)
    path.write_text(json.dumps({name: value for name, value in raw.items() if name != "schema_version"}))
    with pytest.raises(UsageError, match="no schema version"):
        type(record).read(path)


def test_a_method_without_its_costs_is_refused(tmp_path):
    raw = COMPARISON.to_json()
    del raw["methods"][0]["spent"]["train"]["wall_s"], raw["methods"][0]["nsr"]
    (tmp_path / "fast.json").write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=r"'methods\.0\.nsr'"):
        ComparisonRecord.read(tmp_path / "fast.json")


def test_seconds_that_were_not_counted_stay_unknown():
    assert Spent(1.0, 2.0) + Spent(3.0, 4.0) == Spent(4.0, 6.0)
    assert Spent(1.0, 2.0) + Spent(3.0, None) == Spent(4.0, None)
