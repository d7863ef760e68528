"""report.html: one self-contained page with the models, the front and the agreement."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.formats.figures import ACCENT, QUIET, styled
from deploy.formats.files import write_atomically
from deploy.latency.gate import gate_text
from deploy.latency.scatter import scatter
from deploy.latency.watermark import watermark
from deploy.run.records import GateRecord
from nas.settings import build

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem }
p { margin: .3rem 0 } .muted { color: #5d6b7a } table { border-collapse: collapse; margin-top: .6rem; width: 100% }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #dde3ea }
th:first-child, td:first-child, td.text { text-align: left } td.text { font: 13px/1.4 ui-monospace, monospace;
overflow-wrap: anywhere } .figures { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.replay { border: 2px solid #d1495b; color: #d1495b; padding: .5rem .8rem; font-weight: 600 }
@media (max-width: 800px) { .figures { grid-template-columns: 1fr } }
"""
MEAN_IOU = {"name": "mIoU", "key": "miou"}  # by which models are judged whose summary does not say


def write_report(path: Path, summary: Mapping[str, Any], judged: Mapping[str, Any], search: Mapping[str, Any]) -> None:
    """The page for one run, from its records; plotly's script is inside, nothing is fetched."""
    figures = [_front_figure(search), scatter(judged)]
    drawn = [
        figure.to_html(full_html=False, include_plotlyjs=(i == 0), config={"displayModeBar": False})
        for i, figure in enumerate(figures)
    ]
    name = html.escape(str(summary["name"]))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>hilnas: {name}</title><style>{STYLE}</style></head><body>
<h1>hilnas: {name}</h1>
{_banner(summary["conditions"])}<p class="muted">{html.escape(_conditions(summary["conditions"]))}</p>
<h2>Models</h2>{_model_table([summary["teacher"], *summary["models"]], metric_of(summary))}
<h2>Do the tables agree with the board?</h2>{_agreement_text(summary, judged)}
<div class="figures"><div>{drawn[0]}</div><div>{drawn[1]}</div></div>
<h2>The bundle</h2><p>{_bundle_text(summary["bundle"])}</p>
<h2>Where the time went</h2><p>{_seconds_text(summary["seconds"])}</p>
</body></html>
"""
    write_atomically(path, page)


def metric_of(summary: Mapping[str, Any]) -> Mapping[str, str]:
    """What a run's models are judged by: `name` for people, `key` in records (KEY_fp32 and KEY_int8, in percent)."""
    metric: Mapping[str, str] = summary.get("metric", MEAN_IOU)
    return metric


def _banner(conditions: Mapping[str, Any]) -> str:
    text = watermark(conditions)
    return f'<p class="replay">{html.escape(text)}</p>\n' if text else ""


def _conditions(conditions: Mapping[str, Any]) -> str:
    shown = ("board", "soc", "machine", "kernel", "runtime", "delegate", "kernels", "threads")
    how = {"replay": "Replayed, not measured", "qemu": "Emulated"}.get(conditions.get("kind", ""), "Measured on")
    return f"{how}: " + ", ".join(f"{key} {conditions[key]}" for key in shown if conditions.get(key))


def bits_text(model: Mapping[str, Any]) -> str:
    """Widths of a model's weights: requested / stored / executed; '?' where the record has none."""
    kinds = (model.get(f"{kind}_bits") for kind in ("requested", "stored", "executed"))
    return " / ".join(", ".join(map(str, bits)) if bits else "?" for bits in kinds)


def off_text(model: Mapping[str, Any]) -> str:
    """The share of a model's multiply-accumulates off the target's fast place."""
    placed = model.get("placement")
    return f"{placed['off_share']:.1%} off {placed['target']}'s {placed['fast_place']}" if placed else "?"


def _model_table(models: Sequence[Mapping[str, Any]], metric: Mapping[str, str]) -> str:
    name, key = html.escape(metric["name"]), metric["key"]
    head = "".join(
        f"<th>{title}</th>"
        for title in (
            "model",
            f"{name} FP32",
            f"{name} INT8",
            "weights, kB",
            "bits: requested / stored / executed",
            "MMACs",
            "MACs off the fast place, expected",
            "latency, ms (median)",
            "p90",
            "runs",
            "subnet",
        )
    )
    rows = "".join(
        f"<tr><td>{html.escape(m['name'])}</td><td>{m[f'{key}_fp32']:.2f}</td><td>{m[f'{key}_int8']:.2f}</td>"
        f"<td>{m['size_bits'] / 8000:.1f}</td><td>{bits_text(m)}</td><td>{m['macs'] / 1e6:.1f}</td>"
        f"<td>{html.escape(off_text(m))}</td>"
        f"<td>{m['latency_us']['median'] / 1000:.3f}</td><td>{m['latency_us']['p90'] / 1000:.3f}</td>"
        f"<td>{m['latency_us']['n']}</td><td class='text'>{html.escape(m['subnet'].replace('+', ' + '))}</td></tr>"
        for m in models
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _agreement_text(summary: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    a, c = summary["agreement"], summary["correction"]
    text = (
        f"Kendall's tau-b between the sum of block latencies and the measured latency of {a['n_models']} whole "
        f"models: <b>{a['tau_b']:.3f}</b>, 95 % interval {a['ci95'][0]:.3f} to {a['ci95'][1]:.3f}; two halves of "
        f"the same measurements agree to {a['ceiling_tau_b']:.3f}. With feedback, on models left out: "
        f"{c['tau_b_held_out']:.3f}; mean error {c['error_before']:.1f} % before, {c['error_held_out']:.1f} % after"
        f"{'' if c['applied'] else ' (so it was not applied)'}."
    )
    counts = summary["counts"]
    return (
        f"<p>{text}</p>{_decision_text(summary, judged)}<p>{counts['subnets_compiled']} subnets compiled, "
        f"{counts['subnets_measured']} measured, "
        f"{counts['subnets_exact_parity']} of them byte for byte the integer simulation's.</p>"
    )


def _decision_text(summary: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    """What the agreement means for the search; less in records of earlier versions."""
    said = []
    if "regret" in judged:
        a, regret = judged["agreement"], judged["regret"]
        said.append(
            f"Of the {a['top_k']} fastest models {a['top_recall']:.0%} are among the {a['top_k']} that the table calls "
            f"fastest; picked under five budgets of {regret['quantity']}, a model is at most "
            f"{regret['worst_percent']:.1f} % slower than the fastest one."
        )
    if judged.get("excluded"):
        said.append(f"{len(judged['excluded'])} sampled models failed on the board and are left out.")
    if "gate" in summary:
        said.append(f"{gate_text(build(GateRecord, summary['gate'], 'gate'))}.")
    return f"<p>{html.escape(' '.join(said))}</p>"


def _bundle_text(bundle: Mapping[str, Any]) -> str:
    verdict = "verified" if bundle["verified"] else "NOT verified"
    where = f"<code>{html.escape(str(bundle['path']))}</code> ({html.escape(bundle['model'])})"
    return f"{where}, {verdict} on {html.escape(bundle['board'])}"


def _seconds_text(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())


def _front_figure(search: Mapping[str, Any]) -> Any:
    import plotly.graph_objects as go

    front, found = search["pareto_front"], search["selected"]
    figure = go.Figure()
    figure.add_scatter(
        x=[p["latency_us"] / 1000 for p in front],
        y=[p["nsr"] for p in front],
        mode="lines+markers",
        name="front",
        marker={"size": 5, "color": QUIET},
        text=[p["subnet"] for p in front],
    )
    figure.add_scatter(
        x=[p["predicted_us"] / 1000 for p in found],
        y=[p["nsr"] for p in found],
        mode="markers+text",
        name="found",
        text=[p["name"] for p in found],
        textposition="middle right",
        marker={"size": 11, "color": ACCENT, "symbol": "diamond"},
    )
    return styled(figure, "predicted latency, ms", "sum of block NSR", "Exact front: quality against latency")
