"""The mark beside latencies that no board measured."""

from __future__ import annotations

from hil.measurement import Conditions


def watermark(conditions: Conditions) -> str:
    """The line that stands beside latencies that no board measured for this run; empty where one did."""
    if conditions.kind == "qemu":
        return f"EMULATED: {conditions.board} is QEMU, whose times say nothing about any board"
    if conditions.kind != "replay":
        return ""
    return f"REPLAY: these latencies are a {conditions.board}, recorded earlier; no board measured them for this run"
