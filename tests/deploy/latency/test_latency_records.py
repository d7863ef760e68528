"""overhead.json, active.json and validations.json: read back as written; else one line with file, field and advice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.latency.active_record import ActiveNetwork, ActiveRecord, chosen_networks
from deploy.latency.overhead import OverheadRecord
from deploy.latency.predictor import BlockPriorStd
from deploy.latency.validations import Demand, TableValidation, ValidationsRecord
from deploy.run.records import Record
from hil.errors import UsageError
from nas.estimate import Estimate
from tests.deploy.cli.test_results_command import GOOD

TIME = Estimate(5.0, None, 4.0, 7.0, 40, "measured")
NETWORK = ActiveNetwork("b1_k3e3_w8+b2_k3e3_w8", 100.0, (99.0, 101.0))
VALIDATION = TableValidation(
    30,
    1.01,
    (0.99, 1.02),
    0.97,
    True,
    Demand(),
    "0123456789ab",
    ("kernel 6.1 became 6.2",),
    GOOD.conditions,
    "2026-01-01",
)
RECORDS: list[Record] = [
    OverheadRecord(TIME, (TIME, TIME), TIME, TIME),
    ActiveRecord("f00", "the front is stable", 12.5, 1, (NETWORK,), 0.001, 0.99, BlockPriorStd(0.1, 0.02, 0.01)),
    ValidationsRecord((VALIDATION,)),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.FILE)
def test_a_record_is_read_as_it_was_written(tmp_path, record):
    record.write(tmp_path / record.FILE)
    assert type(record).read(tmp_path / record.FILE) == record


def damaged(record: Record, **changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(record.to_json())), **changes}


@pytest.mark.parametrize(
    ("record", "changes", "words"),
    [
        (RECORDS[0], {"schema_version": None}, "no schema version"),
        (RECORDS[0], {"schema_version": 9}, "schema version 9"),
        (RECORDS[0], {"edges_us": []}, "unknown key 'edges_us'"),
        (RECORDS[0], {"stem_us": {"us": 1.0}}, "stem_us"),
        (RECORDS[1], {"networks": [{"subnet": NETWORK.subnet, "measured_us": 1.0}]}, "networks.0.halves_us"),
        (RECORDS[1], {"networks": [{"subnet": "b1", "measured_us": 1.0, "halves_us": [1.0, 1.0]}]}, "b1"),
        (RECORDS[1], {"prior_std": {"layers": 1.0, "pairs": 1.0, "own": 1.0}}, "prior_std.own"),
        (RECORDS[2], {"validations": [{"entries": 3}]}, "validations.0."),
    ],
)
def test_a_damaged_record_names_file_and_field(tmp_path: Path, record, changes, words):
    path = tmp_path / record.FILE
    path.write_text(json.dumps(damaged(record, **changes)))
    with pytest.raises(UsageError) as refused:
        type(record).read(path)
    said = str(refused.value)
    assert said.startswith(str(path)) and words in said and "delete it and run `hilnas lut latency" in said
    assert "\n" not in said


def test_networks_of_another_key_are_not_used(tmp_path):
    assert chosen_networks(tmp_path, "f00") == []
    RECORDS[1].write(tmp_path / ActiveRecord.FILE)
    assert [str(n.architecture) for n in chosen_networks(tmp_path, "f00")] == [NETWORK.subnet]
    assert chosen_networks(tmp_path, "other") == []
