"""Estimates: read strictly, and from tables of the first format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from nas.errors import ConfigError, TableError
from nas.estimate import Estimate
from nas.settings import build
from nas.space import Subnet
from nas.table import Table

ONE = Estimate(3.5, 0.1, 3.3, 3.7, 40, "measured")
SUBNETS = [Subnet.parse(f"b1_k{kernel}e3_w8") for kernel in (3, 5, 7)]


@pytest.mark.parametrize("estimate", [ONE, Estimate(2.0, None, 1.0, 4.0, 0, "predicted"), Estimate.exact(7)])
def test_an_estimate_is_read_as_it_was_written(estimate: Estimate) -> None:
    assert build(Estimate, asdict(estimate), "record") == estimate


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"source": "guessed"}, "'source'"),
        ({"value": "three"}, "'value'"),
        ({"n": 1.5}, "'n'"),
        ({"std_eror": 0.1}, "unknown key 'std_eror'; did you mean 'std_error'"),
    ],
)
def test_what_is_no_estimate_is_refused(change: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(Estimate, asdict(ONE) | change, "record")


def written(path: Path, rows: list[dict], form: str) -> Path:
    frame = pd.DataFrame(rows)
    frame.attrs["hilnas"] = {"format": form, "quantity": "latency", "unit": "us", "provenance": {"space": "abc"}}
    frame.to_parquet(path, engine="pyarrow", index=False)
    return path


def old_row(subnet: Subnet, source: str) -> dict:
    return {"subnet": str(subnet), "value": 2.0, "low": 1.5, "high": 2.5, "n": 40, "source": source}


def test_a_table_of_format_1_is_read(tmp_path: Path) -> None:
    """It has no standard errors, says how blocks were measured, and calls what was predicted regressed."""
    rows = [old_row(s, source) for s, source in zip(SUBNETS, ("isolated", "regressed", "corrected"), strict=True)]
    table = Table.load(written(tmp_path / "t.parquet", rows, "hilnas-table/1"))
    expected = [Estimate(2.0, None, 1.5, 2.5, 40, source) for source in ("measured", "predicted", "corrected")]
    assert dict(table.entries) == dict(zip(SUBNETS, expected, strict=True))
    assert (table.quantity, table.unit, table.provenance) == ("latency", "us", {"space": "abc"})


def test_unknown_standard_errors_are_null_on_disk(tmp_path: Path) -> None:
    estimates = [ONE, Estimate(2.0, None, 1.0, 4.0, 0, "predicted"), Estimate.exact(7.0)]
    for some in (estimates, estimates[1:2], []):
        table = Table("latency", "us", dict(zip(SUBNETS, some, strict=False)))
        table.save(tmp_path / "t.parquet")
        assert Table.load(tmp_path / "t.parquet").entries == table.entries
        frame = pd.read_parquet(tmp_path / "t.parquet")
        assert [bool(missing) for missing in frame.get("std_error", pd.Series()).isna()] == [
            e.std_error is None for e in some
        ]


@pytest.mark.parametrize(
    ("row", "form", "says"),
    [
        (old_row(SUBNETS[0], "guessed"), "hilnas-table/1", f"{SUBNETS[0]}: 'source': "),
        (old_row(SUBNETS[0], "isolated") | {"unit": "us"}, "hilnas-table/1", f"{SUBNETS[0]}: 'unit': "),
        (old_row(SUBNETS[0], "isolated") | {"subnet": "b1"}, "hilnas-table/1", "not a table of this kit"),
        (old_row(SUBNETS[0], "isolated"), "hilnas-table/4", "format hilnas-table/4, this version reads hilnas-table/2"),
    ],
)
def test_rows_that_are_no_estimates_are_named(tmp_path: Path, row: dict, form: str, says: str) -> None:
    with pytest.raises(TableError, match=says) as caught:
        Table.load(written(tmp_path / "t.parquet", [row], form))
    assert "\n" not in str(caught.value)
