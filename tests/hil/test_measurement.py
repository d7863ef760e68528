from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

import hil.errors
from hil.errors import BoardError, HilError, UsageError
from hil.measurement import Failure, Measurement, Parity
from tests.hil.stored_measurements import CONDITIONS, FAILED, ONE


@pytest.mark.parametrize("measurement", [ONE, FAILED])
def test_json_forms_are_inverses(measurement: Measurement) -> None:
    assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement


def test_the_key_covers_all_that_must_match() -> None:
    changes = {"threads": 2, "temperature_c": 80.0}
    for field in fields(CONDITIONS):
        other = replace(CONDITIONS, **{field.name: changes.get(field.name, "other")})
        same = field.name in {"unit", "temperature_c", "boot_id", "python"}
        assert (other.key() == CONDITIONS.key()) == same, field.name


@pytest.mark.parametrize(
    "impossible",
    [
        {"latencies_us": ()},
        {"failure": Failure("model", "why")},
        {"status": "failed"},
        {"status": "perhaps"},
        {"latencies_us": (1, -1)},
        {"first_us": -1},
    ],
)
def test_impossible_records_are_refused(impossible: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(ONE, **impossible)


def test_unknown_and_missing_fields_are_named() -> None:
    raw = ONE.to_json()
    del raw["parity"]
    with pytest.raises(UsageError, match="parity"):
        Measurement.from_json(raw)
    with pytest.raises(UsageError, match="surprise"):
        Measurement.from_json({**ONE.to_json(), "surprise": 1})
    with pytest.raises(UsageError):
        Failure("weather", "rain")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Parity(1, 2, 0)


def test_errors_say_who_acts_in_one_line() -> None:
    codes = {"CheckFailed": 1, "UsageError": 2, "ModelError": 4, "Incomparable": 5}
    for name, kind in vars(hil.errors).items():
        if isinstance(kind, type) and issubclass(kind, HilError):
            expected = 3 if issubclass(kind, BoardError) or kind is HilError else codes[name]
            assert kind.exit_code == expected
    assert str(BoardError("two\nlines  here")) == "two lines here"


def test_the_pure_modules_are_cheap_to_import() -> None:
    script = "import sys, hil.errors, hil.measurement, hil.boards.config; print(*sys.modules)"
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert not {"paramiko", "sqlalchemy", "asyncssh", "numpy", "torch"} & set(said.stdout.split())
