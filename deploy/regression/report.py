"""How models compare with their baselines, as verdicts for people and for CI."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.formats.plots.figures import Axis, Line, Plot, Points
from deploy.formats.printable import printable
from deploy.formats.verdicts import CaseVerdict, VerdictReport
from deploy.regression.regress import Outcome
from hil.measurement import Conditions
from hil.regression import Comparison
from hil.stats import milliseconds

VERDICTS = {"ok": "ok", "regressed": "SLOWER", "failed": "FAILS", "incomparable": "not compared"}
COUNTED = {"regressed": "slower", "failed": "failing", "incomparable": "not compared"}
HEAD = ("model", "", "baseline ms", "today ms", "ratio", "95 % interval", "allowed")
LEFT = 2  # of these columns are text, the others are numbers


def report_of(board: str, conditions: Conditions, outcomes: Sequence[Outcome]) -> VerdictReport:
    """What was compared on a board; `conditions`: of today's measurements."""
    compared = [o for o in outcomes if o.first is not None]
    return VerdictReport(
        "regress",
        board,
        _title(board, outcomes),
        HEAD,
        LEFT,
        tuple(map(_verdict, outcomes)),
        conditions.to_json(),
        ratios(compared) if compared else None,
    )


def _title(board: str, outcomes: Sequence[Outcome]) -> str:
    """Latency on imx8mp against the baseline: 3 models, 1 slower, 1 not compared"""
    counts = {words: sum(o.status == status for o in outcomes) for status, words in COUNTED.items()}
    odd = [f"{count} {words}" for words, count in counts.items() if count] or ["none slower"]
    models = f"{len(outcomes)} model{'s' if len(outcomes) > 1 else ''}"
    return f"Latency on {board} against the baseline: {', '.join([models, *odd])}"


def _verdict(o: Outcome) -> CaseVerdict:
    """Said beneath the table where there is more to say than the row; timed by one inference."""
    c = o.second or o.first
    return CaseVerdict(
        o.model,
        (o.model, VERDICTS[o.status], *(_numbers(c) if c else [""] * (len(HEAD) - LEFT))),
        outcome_text(o),
        o.status,
        remark=o.status != "ok" or bool(o.flags),
        seconds=c.head_us / 1e6 if c else None,
    )


def outcome_text(o: Outcome) -> str:
    """The model, what it was compared with and how, or why it was not."""
    if o.first is None:
        return f"{o.model}: {o.failure or o.gap}"
    shown = "; measured again: ".join(comparison_text(c) for c in (o.first, o.second) if c is not None)
    against = f"{o.against} {o.taken}".rstrip()
    parts = (shown, o.failure, f"allowed {1 + o.first.threshold:.3f}", ", ".join(o.flags))
    return f"{o.model} ({against}): {'; '.join(filter(None, parts))}"


def comparison_text(c: Comparison) -> str:
    return (
        f"{milliseconds(c.head_us)} ms against {milliseconds(c.base_us)} ms, ratio {c.ratio:.3f} "
        f"[{c.ci95[0]:.3f}, {c.ci95[1]:.3f}], p {c.p_value:.2g}"
    )


def _numbers(c: Comparison) -> tuple[str, ...]:
    interval = f"{c.ci95[0]:.3f} - {c.ci95[1]:.3f}"
    return milliseconds(c.base_us), milliseconds(c.head_us), f"{c.ratio:.3f}", interval, f"{1 + c.threshold:.3f}"


def ratios(compared: Sequence[Outcome]) -> Plot:
    """Each model's ratio of latencies with its interval, and how much is allowed."""
    shown = [(o, c) for o in compared if (c := o.second or o.first) is not None]

    def points(places: list[int], colour: str, name: str) -> Points:
        kept = [shown[i] for i in places]
        return Points(
            tuple(map(float, places)),
            tuple(c.ratio for _, c in kept),
            colour,
            name,
            tips=tuple(f"{printable(o.model)}\n{comparison_text(c)}" for o, c in kept),
            y_intervals=tuple(c.ci95 for _, c in kept),
        )

    slower = [i for i, (o, _) in enumerate(shown) if o.regressed]
    others = [i for i in range(len(shown)) if i not in slower]
    allowed = [
        Line((i - 0.4, i + 0.4), (1 + c.threshold,) * 2, "muted", "allowed" if i == 0 else "", dotted=True)
        for i, (_, c) in enumerate(shown)
    ]
    return Plot(
        "latency of today over the baseline's, 95 % intervals",
        Axis("model", names=tuple(printable(o.model) for o, _ in shown)),
        Axis("ratio"),
        (
            Line((-0.5, len(shown) - 0.5), (1.0, 1.0), "muted"),
            *allowed,
            points(others, "models", "as fast"),
            *([points(slower, "offender", "slower")] if slower else []),
        ),
    )
