"""A bundle of any model of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.compile.artifact import Artifact
from deploy.formats.files import read_json
from deploy.run.folder import SUMMARY
from deploy.ship.bundle import Contents, export
from deploy.ship.report import metric_of
from hil.errors import UsageError
from nas.space import Architecture


def export_from_run(run: Path, model: str | None, out: Path) -> Path:
    """A bundle of one of a finished run's models, in `out`."""
    summary: dict[str, Any] = read_json(run / "summary.json", SUMMARY)
    name = model or summary["bundle"]["model"]
    by_name = {m["name"]: m for m in (summary["teacher"], *summary["models"])}
    if name not in by_name:
        raise UsageError(f"{run}: no model '{name}'; there are {', '.join(by_name)}")
    record, artifact = by_name[name], Artifact.at(run / "models", name)
    if not artifact.exists:
        raise UsageError(f"{artifact.model}: missing; run the loop again, it makes what is missing")
    chosen: dict[str, Any] = read_json(run / "bundle" / "preprocessing.json")
    labels = (run / "bundle" / "labels.txt").read_text(encoding="utf8").split("\n")[:-1]
    metric, task = metric_of(summary), summary.get("task", "segmentation")
    facts = {
        "subnet": record["subnet"],
        "data": summary["data"]["spec"],
        f"{metric['name']} (INT8, validation)": f"{record[metric['key'] + '_int8']:.2f} %",
        "size": f"{record['size_bits'] / 8000:.1f} kB of weights",
    }
    if record["subnet"] != "teacher":
        Architecture.parse(record["subnet"])
    measurement = {"latency_us": record["latency_us"], "conditions": summary["conditions"]}
    height, width = chosen["size"]
    title = f"{summary['name']}-{name}"
    return export(Contents(title, artifact, task, labels, (height, width), measurement, facts), out)
