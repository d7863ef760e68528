"""What a probe prints is read strictly, whoever wrote it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from hil.boards.board import CommandResult
from hil.boards.config import BoardConfig
from hil.errors import BoardError
from hil.facts import Facts, Holder, Library, read_facts

PRINTED: dict[str, Any] = {
    "machine": "aarch64", "soc": "i.MX8MP", "kernel": "6.6", "bsp": "Yocto", "npu": "none", "runtime": None,
    "runtime_version": "no module", "runtime_sha256": "unknown", "program": None, "governor": "performance",
    "delegate": {"path": "/d.so", "exists": False, "sha256": None, "reason": "No such file"}, "temperature_c": 45,
    "temperatures_c": {"cpu": 45.0}, "boot_id": "one", "python": "3.11", "memory_kb": {"CmaFree": 5},
    "disk": {"free_bytes": 1, "total_bytes": 2}, "cores": 4, "load": None, "npu_device": True,
    "npu_holders": [{"pid": 7, "command": "demo"}], "clock_s": 1.5,
}  # fmt: skip


def read(printed: str, exit_code: int = 0) -> Facts:
    return read_facts(CommandResult(("probe",), exit_code, printed, "why\n"), BoardConfig("bench", "loopback"))


def test_what_a_probe_prints() -> None:
    found = read(json.dumps(PRINTED))
    assert found.delegate == Library("/d.so", False, None, "No such file")
    assert found.npu_holders == (Holder(7, "demo"),)
    assert asdict(found) == {**PRINTED, "npu_holders": ({"pid": 7, "command": "demo"},)}


@pytest.mark.parametrize("name", PRINTED)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(BoardError, match=f"bench: the output of the probe is malformed: {name} is missing"):
        read(json.dumps({key: value for key, value in PRINTED.items() if key != name}))


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (json.dumps({**PRINTED, "weather": 1}), "weather is unknown"),
        (json.dumps({**PRINTED, "cores": -1}), "cores is '-1'"),
        (json.dumps({**PRINTED, "disk": {"free_bytes": 1}}), "disk is"),
        ("hello", "not JSON: what on the board prints into it"),
        ("[]", "not a JSON object"),
    ],
)
def test_the_message_names_what_is_wrong(printed: str, said: str) -> None:
    with pytest.raises(BoardError, match=said):
        read(printed)


def test_a_probe_that_does_not_run() -> None:
    with pytest.raises(BoardError, match=r"python3 cannot run the probe \(exit 3\): why: set `python`"):
        read("", 3)
