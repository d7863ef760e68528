"""The first screen: which model to ship, why, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from deploy.report.material import Material
from deploy.run.records import ModelRecord, Summary
from deploy.ship.differences import CONTROL


def headline(material: Material) -> str:
    """A sentence, then what is checked, each with whether it holds."""
    checks = list(_checks(material.summary))
    failed = [text for holds, text in checks if not holds]
    advice = f"<b>Do not ship yet</b>: {escape('; '.join(failed))}." if failed else ""
    marks = "".join(
        f'<li class="{"holds" if holds else "fails"}">{"✓" if holds else "✗"} {escape(text)}</li>'
        for holds, text in checks
    )
    return f'<p class="headline">{advice or _sentence(material)}</p><ul class="checks">{marks}</ul>'


def _sentence(material: Material) -> str:
    model, summary = material.bundled, material.summary
    teacher, latency = summary.teacher, model.latency_us.median / summary.teacher.latency_us.median
    shares = {v.quantity: v.share for v in summary.budgets if v.name == model.name}
    measured = shares.get("latency")
    share = f"{latency:.1%}" if measured is None else f"{measured.value:.1%} [{measured.low:.1%}, {measured.high:.1%}]"
    score = model.board.score.value if model.board else model.score_int8
    where = f"on {summary.conditions.board}" if model.board else "in the integer simulation"
    text = (
        f": {score:.2f} % {summary.metric.name} {where}{_against(model)}, at {share} of the teacher's latency "
        f"({model.latency_us.median / 1000:.3f} ms) and {model.size_bits / teacher.size_bits:.1%} of its weights "
        f"({model.size_bits / 8000:.0f} kB)."
    )
    return f"Ship <b>{escape(model.name)}</b>{escape(text)}"


def _against(model: ModelRecord) -> str:
    difference = model.against_teacher_plus
    if difference is None:
        return ""
    d = difference
    shown = "better" if d.low > 0 else "worse" if d.high < 0 else "no difference shown"
    return f", {d.value:+.2f} points [{d.low:+.2f}, {d.high:+.2f}] against {CONTROL} ({shown})"


def _checks(summary: Summary) -> Iterator[tuple[bool, str]]:
    bundle, gate, counts = summary.bundle, summary.gate, summary.counts
    kept = [verdict.kept for verdict in summary.budgets]
    broken = ", ".join(dict.fromkeys(v.name for v in summary.budgets if not v.kept))
    yield bundle.verified, f"the bundle is {'' if bundle.verified else 'not '}verified on {bundle.board}"
    if kept:
        yield all(kept), f"{sum(kept)} of {len(kept)} limits kept" + (f", not of {broken}" if broken else "")
    yield (
        gate.holds,
        f"the latency table ranks full models with tau-b {gate.tau_b:.3f}, at least {gate.tau:g} asked for"
        + (" (--tau)" if gate.override else ""),
    )
    yield True, f"outputs of {counts.subnets_exact_parity} subnets equal the integer simulation's byte for byte"
