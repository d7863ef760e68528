"""How far sums of block latencies rank full networks as the board does, and where they do not."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from deploy.formats.plots.figures import Plot, Points
from deploy.formats.plots.pages import scrolled, wide
from deploy.latency.gate import gate_text
from deploy.latency.scatter import HALVES, PAGE_WIDTH, scatter
from deploy.latency.suspects import repair_text
from deploy.report.material import Material
from deploy.run.records import AgreementRecord, Summary

QUANTITIES = {"nsr": "NSR"}  # for people


def agreement(material: Material) -> str:
    plot = wide(_linked(scatter(material.agreement)), PAGE_WIDTH)
    return _agreement_text(material.summary, material.agreement) + plot + _offenders(material)


def _linked(plot: Plot) -> Plot:
    """Numbered points lead to their rows, which say what the notes say."""
    marks = tuple(
        replace(mark, links=tuple(f"#offender-{label}" for label in mark.labels)) if isinstance(mark, Points) else mark
        for mark in plot.marks
    )
    return replace(plot, marks=marks, notes=(HALVES,))


def _offenders(material: Material) -> str:
    """The models with the largest residuals, with the blocks that they are made of."""
    rows = "".join(
        f'<tr id="offender-{i}"><td>{i}</td><td>{o.predicted_us / 1000:.3f}</td><td>{o.measured_us / 1000:.3f}</td>'
        f"<td>{o.residual_percent:+.1f}</td><td><code>{escape(o.subnet.replace('+', ' + '))}</code></td></tr>"
        for i, o in enumerate(material.agreement.offenders, start=1)
    )
    if not rows:
        return ""
    head = "".join(f"<th>{title}</th>" for title in ("no.", "predicted, ms", "measured, ms", "residual, %", "model"))
    return scrolled(f'<table class="offenders"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>')


def _agreement_text(summary: Summary, agreement: AgreementRecord) -> str:
    a, c, counts = summary.agreement, summary.correction, summary.counts
    applied = "" if c.applied else " (not applied)"
    ranks = (
        f"Kendall's tau-b between the sum of block latencies and the measured latency of {a.n_models} full models: "
        f"<b>{a.tau_b:.3f}</b>, 95 % interval {a.ci95[0]:.3f} to {a.ci95[1]:.3f}; two halves of the same measurements "
        f"agree to {a.ceiling_tau_b:.3f}. With the correction, on held-out models: {c.tau_b_held_out:.3f}; mean error "
        f"{c.error_before:.1f} % before, {c.error_held_out:.1f} % after{applied}."
    )
    parity = (
        f"{counts.subnets_compiled} subnets compiled, {counts.subnets_measured} measured; the outputs of "
        f"{counts.subnets_exact_parity} equal the integer simulation's, byte for byte."
    )
    gate = escape(f"The {gate_text(summary.gate)}")
    repairs = (escape(f"The table was repaired: {repair_text(repair)}.") for repair in agreement.repairs)
    texts = (ranks, *repairs, escape(_decision_text(agreement)), f"{gate}.", parity)
    return "".join(f"<p>{text}</p>" for text in texts)


def _decision_text(agreement: AgreementRecord) -> str:
    """What the agreement means for the search."""
    a, regret, excluded = agreement.agreement, agreement.regret, len(agreement.excluded)
    failed = f" {excluded} sampled models failed on the board and are left out." if excluded else ""
    return (
        f"Of the {a.top_k} fastest models {a.top_recall:.0%} are among the {a.top_k} that the table predicts fastest; "
        f"selected under five budgets of {QUANTITIES.get(regret.quantity, regret.quantity)}, a model is at most "
        f"{regret.worst_percent:.1f} % slower than the fastest one.{failed}"
    )
