"""The mark beside latencies that no board measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def watermark(conditions: Mapping[str, Any]) -> str:
    """What has to stand beside latencies that no board measured for this run; empty where one did."""
    if conditions.get("kind") == "qemu":
        return f"EMULATED: {conditions['board']} is no board but QEMU, whose times say nothing about any"
    if conditions.get("kind") != "replay":
        return ""
    return f"REPLAY: these latencies are a {conditions['board']}, recorded earlier; no board measured them for this run"
