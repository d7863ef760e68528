"""The first screen: which model to ship, why that one, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from html import escape

from deploy.report.material import Material
from deploy.run.records import ModelRecord, Summary
from deploy.run.settings.deployment import TEACHER_PLUS
from deploy.ship.differences import CONTROL, shown_text
from hil.results import moment


def headline(material: Material) -> str:
    """What the scores are of, a sentence, why it is that model, then what is checked, each with whether it holds."""
    checks = list(_checks(material.summary))
    failed = [text for holds, text in checks if not holds]
    advice = f"<b>Do not ship yet</b>: {escape('; '.join(failed))}." if failed else ""
    marks = "".join(
        f'<li class="{"holds" if holds else "fails"}">{"✓" if holds else "✗"} {escape(text)}</li>'
        for holds, text in checks
    )
    subject, why = escape(_subject(material.summary)), "" if failed else _why(material)
    return (
        f'<p class="muted">{subject}</p><p class="headline">{advice or _sentence(material)}</p>{why}'
        f'<ul class="checks">{marks}</ul>{_missed(material.summary)}'
    )


def _missed(summary: Summary) -> str:
    """Why budgets have no model: no reason against those that there are."""
    return "".join(f'<p class="muted">No model for {escape(b.name)}: {escape(b.reason)}.</p>' for b in summary.missed)


def _subject(summary: Summary) -> str:
    """The data and the board that everything here is of."""
    data, conditions = summary.data, summary.conditions
    height, width = data.size
    at = summary.teacher.latency_us.measured_at
    when = f", {moment(at).astimezone(UTC):%Y-%m-%d}" if at else ""
    return (
        f"{summary.metric.name} on {data.val} validation images of {data.spec.split(':')[0]}, {height} x {width}; "
        f"latency on {conditions.board} ({conditions.soc}){when}."
    )


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
    d = model.against_teacher_plus
    if d is None:
        return ""
    return f", {d.value:+.2f} points [{d.low:+.2f}, {d.high:+.2f}] against {TEACHER_PLUS}, {CONTROL} ({shown_text(d)})"


def _why(material: Material) -> str:
    """What chose the bundled model, and which others score more where nothing is chosen; "" if it is not recorded."""
    model, summary = material.bundled, material.summary
    broken = {verdict.name for verdict in summary.budgets if not verdict.kept}
    others = [(m, m.score_held_out) for m in summary.models if m.name not in broken and m.name != model.name]
    if model.score_held_out is None:
        return ""
    limits = [f"{v.quantity} at most {v.limit:.1%}" for v in summary.budgets if v.name == model.name]
    why = f"it keeps its budget ({' and '.join(limits)} of the teacher's)" if limits else "it has no limit to keep"
    if others:
        scores = ", ".join(f"{m.name} {score:.2f}" for m, score in others if score is not None)
        why += (
            f", and of the {len(others) + 1} models that keep theirs it is the best on training images held out to "
            f"choose by: {model.score_held_out:.2f} % ({scores})"
        )
    best = sorted((m for m, _ in others if m.score_int8 > model.score_int8), key=lambda m: -m.score_int8)
    better = ", ".join(f"{m.name} {m.score_int8:.2f}" for m in best)
    there = f" Validation images choose nothing; on them these score more: {better}." if better else ""
    return f"<p>Why <b>{escape(model.name)}</b>: {escape(f'{why}.{there}')}</p>"


def _checks(summary: Summary) -> Iterator[tuple[bool, str]]:
    bundle, gate, counts = summary.bundle, summary.gate, summary.counts
    kept = [verdict.kept for verdict in summary.budgets]
    broken = ", ".join(dict.fromkeys(v.name for v in summary.budgets if not v.kept))
    yield bundle.verified, f"the bundle is {'' if bundle.verified else 'not '}verified on {bundle.board}"
    if kept:
        yield all(kept), f"{sum(kept)} of {len(kept)} limits kept" + (f", not of {broken}" if broken else "")
    yield (
        gate.holds,
        f"the latency table ranks full models with tau-b {gate.tau_b:.3f} (1: as the board does), "
        f"at least {gate.tau:g} asked for" + (" (--tau)" if gate.override else ""),
    )
    yield (
        True,
        f"outputs of {counts.subnets_exact_parity} of {counts.subnets_measured} measured subnets equal the integer "
        "simulation's byte for byte",
    )
