"""LCPAQ's records: their files are read as they were written, strictly; another key or schema makes them anew."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deploy.lcpaq.records import (
    ComparedWidth,
    LayerLatencies,
    ProxyRecord,
    RefinedPolicy,
    RefineRecord,
    RungAgreement,
    SensitivityRecord,
    ShippedRecord,
    SolveRecord,
    StepRecords,
    WidthComparison,
)
from deploy.search.refined import RefinedBlock, RefinedRecord
from hil.errors import UsageError
from hil.stats import summarize
from nas.estimate import Estimate
from nas.lcpaq.trial import Fidelity, Settings
from tests.deploy.cli.test_results_command import CONDITIONS

POLICY = "stem=8 b1/0/expand=4"
RECORDS = (
    SensitivityRecord("k", "hessian", 8, 0.5, {"stem": {4: 0.5, 8: 0.0}}),
    SensitivityRecord("k", "sqnr", 8, 0.5, {"stem": {4: 0.5}}, {"stem": {4: 0.25}}),
    LayerLatencies("k", CONDITIONS, {"stem": Estimate(3.0, None, 2.5, 3.5, 40, "measured")}),
    SolveRecord("k", {"size_bits": 9.0}, {"size_bits": 16.0}, {"size_bits": 8.0}, 0.1, {"stem": 8}, POLICY),
    RefineRecord("k", "mIoU", 16, (RefinedPolicy("program", POLICY, {"size_bits": 8.0}, 50.0),), POLICY, "program"),
    RefinedRecord("k", "net", POLICY, 100, (RefinedBlock("b1_k3e2_w4", 0.1, 50, 0.2),)),
    ProxyRecord(
        "k", POLICY, Settings(), 60.0, (Fidelity(8, 2),), (2, 1), 1.5, 1280, (RungAgreement(0, 2, None, None),)
    ),
    SensitivityRecord("k", "hessian", 8, 0.5, {"stem": {4: 0.5}}, loss="distance"),
    RefineRecord("k", "signal to noise", 16, (), POLICY, "program", "dB"),
    WidthComparison("k", 32, (ComparedWidth("LCPAQ", POLICY, "f00d", 64, 100, 90, -30.0),)),
    WidthComparison("k", 32, (ComparedWidth("INT8", POLICY, "f00d", 64, 100, 90, -30.0, 50.0),), "top-1", 60.0, 16),
    ShippedRecord("k", "own", "mIoU", 1.0, 2.0, 3.0, 64, summarize([1, 2, 3]), CONDITIONS, "runs/bundle", True),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read(record, tmp_path):
    path = tmp_path / record.FILE
    record.write(path)
    assert type(record).read(path) == record
    assert json.loads(path.read_text())["schema_version"] == record.SCHEMA
    assert type(record).current(tmp_path, "k") == record
    assert type(record).current(tmp_path, "another key") is None


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_an_unknown_or_missing_field_is_an_error_that_names_file_and_field(record, tmp_path):
    path, raw = tmp_path / record.FILE, record.to_json()
    field = next(name for name in raw if name not in ("schema_version", "key"))
    for change, word in (({"keey": "k"}, "'keey'"), ({field: None}, f"'{field}")):
        path.write_text(json.dumps({**raw, **change}))
        with pytest.raises(UsageError, match=word) as refused:
            type(record).read(path)
        assert str(path) in str(refused.value) and f"hilnas {record.COMMAND}" in str(refused.value)
    path.write_text(json.dumps({name: value for name, value in raw.items() if name != field}))
    with pytest.raises(UsageError, match=f"'{field}'"):
        type(record).read(path)


def test_a_record_of_an_earlier_schema_is_made_anew(tmp_path):
    record = RECORDS[0]
    assert SensitivityRecord.current(tmp_path, "k") is None
    earlier = {name: value for name, value in record.to_json().items() if name != "schema_version"}
    (tmp_path / record.FILE).write_text(json.dumps(earlier))
    assert SensitivityRecord.current(tmp_path, "k") is None
    (tmp_path / record.FILE).write_text("{")
    with pytest.raises(UsageError, match="not readable as JSON"):
        SensitivityRecord.current(tmp_path, "k")


def test_the_steps_that_were_taken_are_shown(tmp_path):
    assert StepRecords.read(tmp_path).to_json() == {}
    solve = RECORDS[3]
    replace(solve, seconds=0.2).write(tmp_path / solve.FILE)
    records = StepRecords.read(tmp_path)
    assert records.solve is not None and records.solve.seconds == 0.2 and records.refine is None
    assert list(records.to_json()) == ["solve"]
