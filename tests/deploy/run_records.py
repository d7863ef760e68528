"""Records of a small run that was never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.run.records import AgreementRecord, SearchRecord, Summary

CONDITIONS: Mapping[str, Any] = {
    "board": "imx8mp", "unit": "imx8mp", "kind": "ssh", "machine": "aarch64", "soc": "i.MX8M Plus", "kernel": "5.15",
    "bsp": "5.15.71", "npu": "galcore 6.4.11", "driver": "python", "runtime": "tflite_runtime 2.9@0123456789ab",
    "delegate": "none", "kernels": "xnnpack", "threads": 1, "governor": "performance", "temperature_c": 41.5,
    "boot_id": "b", "python": "3.10",
}  # fmt: skip
GATE = {"tau_b": 0.9, "of": "the table as measured", "tau": 0.95, "override": True, "holds": False}
RANKS = {
    "tau_b": 0.9, "ci95": [0.8, 0.95], "n_models": 4, "spearman": 0.91, "ceiling_tau_b": 0.97, "offset_us": 50.0,
    "error_percent": 1.5, "top_k": 1, "top_recall": 1.0, "top_recall_ci95": [0.0, 1.0],
}  # fmt: skip
CORRECTION = {
    "constant_us": 1.0, "n_models": 4, "tau_b_before": 0.9, "tau_b_held_out": 0.9, "error_before": 5.0,
    "error_held_out": 2.0, "applied": True, "spreads": {}, "largest_us": {},
}  # fmt: skip
SUBNETS = ("b1_k3e1_w8", "b1_k3e2_w8", "b1_k3e3_w8", "b1_k5e6_w8")
MEASURED_US = (1000.0, 2000.0, 3000.0, 4000.0)
PREDICTED_US = (1000.0, 2000.0, 3000.0, 3000.0)


METRICS = {"segmentation": ("mIoU", "miou"), "classification": ("top-1", "top1")}


def summary(kind: str = "ssh", board: str = "imx8mp", models: int = 1, task: str = "segmentation") -> Summary:
    """Of a run on such a board; a model per budget beside the teacher."""
    metric, key = METRICS[task]
    latency = {"median": 1500.0, "p90": 1600.0, "n": 30, "ci95": [1450.0, 1550.0]}
    teacher = {
        "name": "teacher", "subnet": "teacher", f"{key}_fp32": 50.0, f"{key}_int8": 49.0, "size_bits": 8000,
        "requested_bits": [4, 8], "stored_bits": [8], "executed_bits": [8], "macs": 10**6, "predicted_us": None,
        "placement": {"target": "imx8mp-vx", "fast_place": "NPU", "off_share": 0.125}, "latency_us": latency,
    }  # fmt: skip
    difference = {"value": -0.5, "std_error": 0.4, "low": -1.25, "high": 0.25, "n": 4, "source": "resampled"}
    model = teacher | {
        "name": "fast", "subnet": SUBNETS[0], f"{key}_int8": 47.5, "placement": None, f"{key}_held_out": 46.0,
        "against_teacher_plus": difference,
    }  # fmt: skip
    share = {"value": 1.0, "std_error": None, "low": 0.95, "high": 1.05, "n": 4, "source": "measured"}
    budget = {"name": "fast", "quantity": "latency", "limit": 0.9, "share": share, "kept": False}
    raw = {
        "schema_version": 2, "name": "run", "task": task, "metric": {"name": metric, "key": key},
        "data": {"spec": "scenes", "size": [112, 144], "classes": 11, "train": 16, "val": 4},
        "space": {"name": "tiny", "digest": "0123", "subnets": 12}, "teacher": teacher, "models": [model] * models,
        "teacher_plus": teacher | {"name": "teacher_plus", f"{key}_int8": 48.0}, "budgets": [budget],
        "agreement": {k: RANKS[k] for k in ("tau_b", "ci95", "n_models", "spearman", "ceiling_tau_b")},
        "correction": CORRECTION, "gate": GATE,
        "counts": {"subnets_compiled": 12, "subnets_measured": 12, "subnets_exact_parity": 12},
        "bundle": {"path": "runs/run/bundle", "model": "fast", "verified": True, "board": board, "latency_us": None},
        "conditions": {**CONDITIONS, "kind": kind, "board": board}, "seconds": {"teacher": 80.0, "total": 81.0},
    }  # fmt: skip
    return Summary.from_json(raw, "summary.json")


def agreement(offenders: int = 1) -> AgreementRecord:
    """Four models, of which the last is slower than predicted."""
    samples = [
        {"subnet": name, "additive_us": p - 50, "predicted_us": p, "measured_us": m, "halves_us": [m, m]}
        for name, p, m in zip(SUBNETS, PREDICTED_US, MEASURED_US, strict=True)
    ]
    worst = {"subnet": SUBNETS[3], "predicted_us": 3000.0, "measured_us": 4000.0, "residual_percent": 25.0}
    raw = {
        "schema_version": 1, "agreement": RANKS, "samples": samples, "offenders": [worst][:offenders],
        "regret": {"quantity": "nsr", "budgets": [], "worst_percent": 1.0}, "as_measured": None,
        "correction": CORRECTION, "with_feedback": None, "excluded": [{"subnet": "b1_k7e6_w8", "reason": "hung"}],
        "conditions": CONDITIONS, "teacher_us": 1500.0, "gate": GATE,
    }  # fmt: skip
    return AgreementRecord.from_json(raw, "agreement.json")


def search(points: int = 3) -> SearchRecord:
    """A Pareto front of so many points, the first of which is selected."""
    front = [{"subnet": f"b1_k3e{i}_w8", "nsr": 3.0 - i / points, "latency_us": 1000.0 + 10 * i} for i in range(points)]
    selected = [
        {"name": "fast", "subnet": p["subnet"], "nsr": p["nsr"], "size_bits": 7000.0, "predicted_us": p["latency_us"],
         "pareto_front_size": points}
        for p in front[:1]
    ]  # fmt: skip
    raw = {
        "schema_version": 1, "selected": selected, "gate": GATE, "teacher_size_bits": 8000, "pareto_front": front,
        "outside_blocks": {"size_bits": 100, "latency_us": 200.0},
    }  # fmt: skip
    return SearchRecord.from_json(raw, "search.json")
