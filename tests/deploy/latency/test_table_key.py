"""What a latency table belongs to: read strictly, shown in words, and never mixed with another."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.latency.key import BELONGS, TableKey, changed, check_device, difference
from hil.measurement import NOT_COMPARED, Conditions
from nas.errors import TableError
from nas.estimate import Estimate
from nas.space import Block, SearchSpace
from nas.table import Table

SPACE = SearchSpace("tiny", 8, 8, (Block(2, 8, 2, 1), Block(1, 8, 2, 1)))
NPU = Conditions(
    board="imx8mp",
    unit="imx8mp",
    kind="ssh",
    machine="aarch64",
    soc="NXP i.MX8MPlus EVK board",
    kernel="6.6.36",
    bsp="NXP i.MX Release Distro 6.6",
    npu="galcore 6.4.11",
    driver="python",
    runtime="tflite_runtime 2.16.1@0123456789ab",
    delegate="libvx_delegate.so@12ab00000000;cache=1",
    kernels="builtin",
    threads=1,
    governor="performance",
    temperature_c=40.0,
    boot_id="first",
    python="3.12.1",
)


def key(conditions: Conditions = NPU, **other: Any) -> TableKey:
    settings = {"space": SPACE.digest, "size": (180, 240), "scheme": "channel int8", "form": "isolated", **other}
    return TableKey.under(conditions, **settings)


def table(belongs: TableKey | None, quantity: str = "latency") -> Table:
    entries = {subnet: Estimate(100.0, None, 99.0, 101.0, 40, "measured") for subnet in SPACE.all_subnets()}
    said = {} if belongs is None else {BELONGS: belongs.to_json()}
    return Table(quantity, "us", entries, {"space": SPACE.digest, **said})


def test_a_key_travels_with_its_table(tmp_path):
    table(key()).save(tmp_path / "latency.parquet")
    assert TableKey.of(Table.load(tmp_path / "latency.parquet")) == key()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (key(size=(112, 144)), ["input 180x240, not 112x144"]),
        (key(space="f00"), [f"space {SPACE.digest}, not f00"]),
        (
            key(scheme="tensor uint8", form="bounded"),
            ["scheme channel int8, not tensor uint8", "form isolated, not bounded"],
        ),
        (key(replace(NPU, threads=4)), ["threads 1, not 4"]),
        (key(replace(NPU, kernels="xnnpack")), ["kernels builtin, not xnnpack"]),
        (key(replace(NPU, npu="galcore 6.4.12")), ["npu galcore 6.4.11 became galcore 6.4.12"]),
        (
            key(replace(NPU, delegate="libvx_delegate.so@34cd00000000;cache=1")),
            ["delegate libvx_delegate.so@12ab00000000 became @34cd00000000"],
        ),
        (
            key(replace(NPU, delegate="libvx_delegate.so@12ab00000000")),
            ["delegate cache=1 became without it"],
        ),
        (
            key(replace(NPU, runtime="tflite_runtime 2.17.0@0123456789ab")),
            ["runtime tflite_runtime 2.16.1@0123456789ab became tflite_runtime 2.17.0@0123456789ab"],
        ),
        (
            key(replace(NPU, threads=2, kernel="6.12"), size=(90, 120)),
            ["input 180x240, not 90x120", "kernel 6.6.36 became 6.12", "threads 1, not 2"],
        ),
    ],
    ids=str,
)
def test_a_difference_is_named_exactly(other, words):
    assert difference(key(), other) == words and key() != other


@given(st.sampled_from(fields(Conditions)))
def test_whatever_is_compared_is_named_and_nothing_else(field):
    """As `Conditions.key`, which decides, so the words do."""
    value = getattr(NPU, field.name)
    other = replace(NPU, **{field.name: value + 1 if isinstance(value, (int, float)) else f"{value} x"})
    words = changed(NPU, other)
    assert bool(words) == (other.key() != NPU.key()) == (field.name not in NOT_COMPARED)
    assert all(word.startswith(f"{field.name} ") for word in words)
    assert (key(other) == key()) == (not words)


def test_a_table_of_the_same_board_after_a_reboot():
    again = TableKey.of(table(key(replace(NPU, boot_id="second", temperature_c=80.0))))
    assert again == key() and difference(key(), again) == []


def test_a_device_that_changed():
    check_device(table(key()), replace(NPU, boot_id="second"))
    driver = replace(NPU, delegate="libvx_delegate.so@34cd00000000;cache=1")
    with pytest.raises(TableError, match=r"so@12ab00000000 became @34cd00000000; `hilnas lut latency validate`"):
        check_device(table(key()), driver)


def test_what_has_no_key_is_refused():
    with pytest.raises(TableError, match=r"does not say what it belongs to.*profile again"):
        TableKey.of(table(None))
    with pytest.raises(TableError, match="not a latency table but one of nsr"):
        TableKey.of(table(key(), "nsr"))


RECORD = key().to_json()
DAMAGED: list[Any] = [
    None,
    [],
    "latency",
    {**RECORD, "more": 1},
    {**RECORD, "size": [180]},
    {**RECORD, "size": 180},
    {**RECORD, "conditions_key": "0" * 16},
    {**RECORD, "conditions": {}},
    {**RECORD, "conditions": {**RECORD["conditions"], "threads": 4}},
    *({k: v for k, v in RECORD.items() if k != missing} for missing in RECORD),
]


@pytest.mark.parametrize("record", DAMAGED, ids=range(len(DAMAGED)))
def test_a_key_that_was_damaged_is_refused(record):
    damaged = table(key())
    with pytest.raises(TableError, match="profile again"):
        TableKey.of(replace(damaged, provenance={**damaged.provenance, BELONGS: record}))
