"""Versions of a latency table: kept under their content's name, with lineage; what two of them differ in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.cli import main
from deploy.latency import versions as versions_module
from deploy.latency.difference import MOST, compare
from deploy.latency.key import BELONGS
from deploy.latency.versions import Lineage, find_version, save_version, versions
from deploy.run.records import Correction, Validation, plain
from hil.measurement import digest
from nas.errors import TableError
from nas.estimate import Estimate
from nas.table import Table
from tests.deploy.latency.test_table_key import NPU, SPACE, key
from tests.deploy.tiny_experiment import arguments, one_line, write_experiment

SUBNETS = list(SPACE.all_subnets())[::5]  # of both blocks


def table(values: list[float] | None = None, half: float = 1.0, source: str = "measured", **belongs) -> Table:
    numbers = values or [100.0 + i for i in range(len(SUBNETS))]
    pairs = zip(SUBNETS, numbers, strict=False)
    entries = {subnet: Estimate(v, None, v - half, v + half, 40, source) for subnet, v in pairs}
    return Table("latency", "us", entries, {"space": SPACE.digest, BELONGS: key(**belongs).to_json()})


def test_a_version_is_kept_and_current(tmp_path):
    saved = save_version(table(), tmp_path, "latency", "measured")
    lineage = Lineage.of(saved)
    kept = tmp_path / "versions" / f"latency-{lineage.version}.parquet"
    assert kept.read_bytes() == (tmp_path / "latency.parquet").read_bytes()
    assert len(lineage.version) == 12 and lineage.how == "measured" and lineage.parents == ()
    assert Lineage.of(Table.load(tmp_path / "latency.parquet")) == lineage
    assert not list(tmp_path.rglob("*.part"))


def test_the_same_content_is_the_same_version_however_it_was_written(tmp_path, monkeypatch):
    first = Lineage.of(save_version(table(), tmp_path, "latency", "measured"))
    monkeypatch.setattr(versions_module, "now", lambda: "2031-01-01T00:00:00.000+00:00")
    shuffled = table()
    shuffled = replace(shuffled, entries=dict(reversed(list(shuffled.entries.items()))))
    rebooted = key(replace(NPU, boot_id="second")).to_json()
    again = replace(shuffled, provenance={**shuffled.provenance, BELONGS: rebooted, "said": "more"})
    assert Lineage.of(save_version(again, tmp_path, "latency", "measured")) == first, "with the time of the first"
    elsewhere = Lineage.of(save_version(again, tmp_path / "b", "latency", "measured"))
    assert elsewhere == replace(first, when="2031-01-01T00:00:00.000+00:00")
    assert len(versions(tmp_path)) == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda to: save_version(table(half=1.5), to, "latency", "measured"),
        lambda to: save_version(table(source="predicted"), to, "latency", "measured"),
        lambda to: save_version(table(size=(90, 120)), to, "latency", "measured"),
        lambda to: save_version(table(), to, "latency", "predicted"),
        lambda to: save_version(table(), to, "latency", "measured", ["0" * 12]),
        lambda to: save_version(table(), to, "latency", "measured", evidence=Validation(30, 1.0, (0.99, 1.01), 0.97)),
    ],
)
def test_other_content_key_or_lineage_is_another_version(tmp_path, other):
    first = Lineage.of(save_version(table(), tmp_path, "latency", "measured"))
    assert Lineage.of(other(tmp_path)).version != first.version
    assert [v.current for v in versions(tmp_path)] == [False, True]


def test_versions_tell_their_lineage(tmp_path):
    parent = Lineage.of(save_version(table(), tmp_path, "latency", "measured")).version
    learnt = plain(Correction(0.0, 36, 0.91, 0.97, 2.0, 1.0, True, {}, {}))
    corrected = table([v * 1.1 for v in range(1, len(SUBNETS) + 1)], source="corrected")
    corrected = replace(corrected, provenance={**corrected.provenance, "correction": learnt})
    save_version(corrected, tmp_path, "latency-corrected", "corrected", [parent])
    by_name = {v.name: v for v in versions(tmp_path)}
    assert by_name["latency"].tau_b == 0.91 and by_name["latency-corrected"].tau_b == 0.97
    assert by_name["latency-corrected"].lineage.parents == (parent,) and by_name["latency"].lineage.parents == ()
    assert by_name["latency-corrected"].sources == {"corrected": len(SUBNETS)}
    assert all(v.current for v in by_name.values())


def test_the_same_entries_under_another_stage_key_are_that_keys(tmp_path):
    made = [replace(table(), provenance={**table().provenance, "key": key}) for key in ("one", "other")]
    first, second = (save_version(of, tmp_path, "latency", "measured") for of in made)
    assert Lineage.of(first) == Lineage.of(second)
    assert Table.load(tmp_path / "latency.parquet").provenance["key"] == "other"
    assert [v.current for v in versions(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("source", "form", "how"),
    [
        ("isolated", "isolated", "measured"),
        ("in_context", "bounded", "measured"),
        ("regressed", "isolated", "regressed"),
    ],
)
def test_a_version_of_format_1_is_still_that_version(tmp_path, source, form, how):
    """Its file has other names of sources, and no standard errors."""
    belongs = key(form=form)
    rows = [{"subnet": str(s), "value": 9.0, "low": 8.0, "high": 10.0, "n": 40, "source": source} for s in SUBNETS]
    entries = sorted([row["subnet"], 9.0, 8.0, 10.0, 40, source] for row in rows)
    version = digest([entries, belongs.compared(), how, ["0" * 12], {}])[:12]
    lineage = {"version": version, "how": how, "parents": ["0" * 12], "when": "2026-01-01", "evidence": {}}
    provenance = {"space": SPACE.digest, BELONGS: belongs.to_json(), "lineage": lineage}
    frame = pd.DataFrame(rows)
    frame.attrs["hilnas"] = {"format": "hilnas-table/1", "quantity": "latency", "unit": "us", "provenance": provenance}
    (tmp_path / "versions").mkdir()
    frame.to_parquet(tmp_path / "versions" / f"latency-{version}.parquet")
    read = find_version(tmp_path, version[:6])
    assert {e.source for e in read.entries.values()} == {"predicted" if how == "regressed" else "measured"}
    assert Lineage.of(read).how == ("predicted" if how == "regressed" else "measured")
    again = Lineage.of(save_version(read, tmp_path, "latency", Lineage.of(read).how, ["0" * 12]))
    assert again == Lineage.of(read), "read and written by this version"


def test_a_table_without_a_key_becomes_no_version(tmp_path):
    with pytest.raises(TableError, match="profile again"):
        save_version(replace(table(), provenance={"space": SPACE.digest}), tmp_path, "latency", "measured")
    assert not list(tmp_path.iterdir())


def test_a_table_that_was_changed_is_not_its_version(tmp_path):
    saved = save_version(table(), tmp_path, "latency", "measured")
    forged = replace(saved, entries={s: replace(e, value=1.0) for s, e in saved.entries.items()})
    with pytest.raises(TableError, match="was changed: profile again"):
        Lineage.of(forged)
    path = next((tmp_path / "versions").iterdir())
    forged.save(path)
    with pytest.raises(TableError, match=rf"{path.name}.*was changed"):
        versions(tmp_path)
    saved.save(path.with_name("latency-000000000000.parquet"))
    with pytest.raises(TableError, match="give the file its name back"):
        find_version(tmp_path, "0000")


# What changed


def slow_tau_b(pairs: list[tuple[float, float]]) -> float | None:
    """Straight from the definition."""
    signs = [
        (np.sign(a[0] - b[0]), np.sign(a[1] - b[1])) for i, a in enumerate(pairs) for b in pairs[:i]
    ]  # fmt: skip
    x, y = (sum(s[side] != 0 for s in signs) for side in (0, 1))
    return None if not x or not y else sum(s[0] * s[1] for s in signs) / np.sqrt(x * y)


values = st.lists(st.integers(1, 9).map(float), min_size=len(SUBNETS), max_size=len(SUBNETS))


@settings(max_examples=25, deadline=None)
@given(values, values, st.sampled_from([0.5, 1.0, 2.5]))
def test_a_difference_is_what_the_slow_way_counts(a, b, half):
    found = compare(table(a, half), table(b, half))
    pairs = dict(zip(SUBNETS, zip(a, b, strict=True), strict=True))
    assert found.tau_b == (None if (slow := slow_tau_b(list(pairs.values()))) is None else pytest.approx(slow))
    for block, tau in found.tau_b_of_block.items():
        slow = slow_tau_b([pair for s, pair in pairs.items() if s.block == block])
        assert tau == (None if slow is None else pytest.approx(slow))
    assert found.beyond == sum(abs(x - y) > 2 * half for x, y in pairs.values())
    ratios = sorted((y / x for x, y in pairs.values()), key=lambda r: -max(r, 1 / r))
    assert [max(m.ratio, 1 / m.ratio) for m in found.most] == pytest.approx([max(r, 1 / r) for r in ratios[:MOST]])
    assert min(ratios) <= found.ratio_p5 <= found.ratio_median <= found.ratio_p95 <= max(ratios)


def test_a_difference_of_what_may_not_be_mixed():
    a, b = table(), table([2.0 * v for v in range(100, 100 + len(SUBNETS))], source="corrected", size=(90, 120))
    b = replace(b, entries=dict(list(b.entries.items())[:-2]))
    found = compare(a, b)
    assert found.keys == ("input 180x240, not 90x120",) and (found.only_a, found.only_b) == (2, 0)
    assert found.sources == {"measured -> corrected": len(SUBNETS) - 2} and found.ratio_median == 2.0
    assert found.tau_b == pytest.approx(1.0) and found.beyond == found.common == len(SUBNETS) - 2
    with pytest.raises(TableError, match="of different spaces"):
        compare(a, table(space="f00"))
    with pytest.raises(TableError, match="no entry in common"):
        compare(a, replace(a, entries={}))


# The command line


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Tables of a run, two versions of one; its configuration is beside it."""
    write_experiment(tmp_path)
    tables = tmp_path / "runs" / "tiny" / "tables"
    first = Lineage.of(save_version(table(), tables, "latency", "measured")).version
    save_version(table(half=3.0, size=(90, 120)), tables, "latency", "predicted", [first])
    return tables


def lut(folder: Path, *words: object) -> list[str]:
    base = folder.parents[2]
    return ["lut", "latency", *map(str, words), *arguments(base / "tiny.toml", base / "runs")]


def test_versions_are_listed(run_folder, capsys):
    assert main(lut(run_folder, "versions")) == 0
    shown = capsys.readouterr().out.splitlines()
    first, second = versions(run_folder)
    assert shown[0].startswith(first.lineage.version) and "measured" in shown[0] and "(current)" not in shown[0]
    assert shown[1].startswith(second.lineage.version) and "(current)" in shown[1]
    assert f"of {first.lineage.version}" in shown[1]
    assert main([*lut(run_folder, "versions"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"][0] == json.loads(json.dumps(first.to_json()))


def test_two_versions_are_compared_by_digits_or_as_files(run_folder, capsys):
    first, second = (v.lineage.version for v in versions(run_folder))
    assert main(lut(run_folder, "diff", first[:8], run_folder / "latency.parquet")) == 0
    shown = capsys.readouterr().out
    assert "differs: input 180x240, not 90x120" in shown and "tau-b between them: 1.000" in shown
    assert main([*lut(run_folder, "diff", first, second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keys"] == ["input 180x240, not 90x120"]


def test_calls_that_cannot_be_answered(run_folder, capfd, tmp_path):
    Table("nsr", "ratio", table().entries, {"space": SPACE.digest}).save(tmp_path / "nsr.parquet")
    version = versions(run_folder)[0].lineage.version
    for words, said in (
        (["diff", version], "takes two tables"),
        (["diff", version, "xyz"], "neither a file nor a version"),
        (["diff", version, ""], "2 versions begin so"),
        (["diff", version, tmp_path / "no.parquet"], "no.parquet"),
        (["diff", version, tmp_path / "nsr.parquet"], "not a latency table"),
        (["versions", "more"], "takes nothing"),
        (["vresions"], "no such action"),
        (["validate", "--entries", "2"], "--entries 2"),
    ):
        assert main(lut(run_folder, *words)) == 2
        one_line(capfd.readouterr().err, said)
    assert main(["lut", "nsr", "versions"]) == 2
    one_line(capfd.readouterr().err, "only `lut latency` has actions")
    for action, said in (("versions", "no versions yet"), ("validate", "no table to validate")):
        assert main([*lut(run_folder, action), "--name", "another"]) == 2
        one_line(capfd.readouterr().err, said)
