"""Measurements to put into a store, and a way into it behind the store's back."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import create_engine, text

from hil.measurement import Conditions, Failure, Measurement, Parity, Readings

CONDITIONS = Conditions(
    board="bench", unit="bench-2", kind="loopback", machine="aarch64", soc="some", kernel="6.6.36", bsp="Yocto",
    npu="galcore 6.4.11", driver="python", runtime="tflite 2.16",
    delegate="none", kernels="xnnpack", threads=1, governor="performance", temperature_c=41.5, boot_id="b",
    python="3.12.1",
)  # fmt: skip
ONE = Measurement(
    job_id="j0", model="m", model_sha256="a" * 64, round=0, status="ok", load_us=10, first_us=20,
    latencies_us=(5, 6, 5), conditions=CONDITIONS, parity=Parity(10, 1, 2.0), operators=("ADD",),
    delegated_nodes=0, failure=None, started_at="2026-01-01T00:00:00+00:00", warmup_us=7, warmup_runs=3, cache="cold",
    before=Readings(50.5, 1_800_000), after=Readings(51.5, None), others_busy=0.25, flags=("drift", "neighbours"),
)  # fmt: skip
FAILED = replace(
    ONE, job_id="f", status="failed", latencies_us=(), failure=Failure("model", "why \0 \udc80"), parity=None, flags=()
)
OTHER = replace(CONDITIONS, board="npu", unit="npu-1", delegate="libvx.so")


def execute(where: str, *statements: str) -> None:
    """Behind the store's back."""
    engine = create_engine(where if "://" in where else f"sqlite:///{where}")
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
