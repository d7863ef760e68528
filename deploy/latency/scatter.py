"""Predicted against measured: one point per full model, the largest residuals named, from agreement.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.formats.files import write_atomically
from deploy.formats.plots.figures import Axis, Plot, Points
from deploy.formats.plots.pages import page, wide
from deploy.formats.plots.svg import write_svg
from deploy.run.records import AgreementRecord

AXES = ("predicted: sum of block latencies + constant, ms", "measured, ms")


PAGE_WIDTH = 800.0  # pixels
HALVES = "bars: medians of two halves of a model's samples"
LOG_FROM = 5.0  # slowest over fastest: on linear axes most models of such a sample share a corner


@dataclass(frozen=True)
class Residuals:
    """What is drawn, latencies in milliseconds; `worst`: places in the other tuples, the largest residual's first.

    `halves_ms`: medians of two halves of a model's samples, the faster one first.
    """

    subnets: tuple[str, ...]
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    halves_ms: tuple[tuple[float, float], ...]
    worst: tuple[int, ...]

    @property
    def log(self) -> bool:
        """Do the latencies need logarithmic axes?"""
        both = self.predicted_ms + self.measured_ms
        return min(both) > 0 and max(both) > LOG_FROM * min(both)

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.subnets)) if i not in self.worst)

    def percent(self, i: int) -> float:
        """The residual in percent of the measured latency; above 0: slower than predicted."""
        return 100 * (1 - self.predicted_ms[i] / self.measured_ms[i])

    def label(self, i: int) -> str:
        return f"{self.percent(i):+.1f} %  {self.subnets[i]}"

    def tip(self, i: int) -> str:
        predicted, measured = self.predicted_ms[i], self.measured_ms[i]
        return f"{self.subnets[i]}\npredicted {predicted:.3f} ms, measured {measured:.3f} ms ({self.percent(i):+.1f} %)"


def residuals(agreement: AgreementRecord) -> Residuals:
    """The samples of the record."""
    samples = agreement.samples
    place = {s.subnet: i for i, s in enumerate(samples)}
    return Residuals(
        tuple(s.subnet for s in samples),
        tuple(s.predicted_us / 1000 for s in samples),
        tuple(s.measured_us / 1000 for s in samples),
        tuple((min(s.halves_us) / 1000, max(s.halves_us) / 1000) for s in samples),
        tuple(place[offender.subnet] for offender in agreement.offenders if offender.subnet in place),
    )


def title(agreement: AgreementRecord) -> str:
    """tau-b with its interval and the noise ceiling."""
    a = agreement.agreement
    return (
        f"tau-b {a.tau_b:.3f} [{a.ci95[0]:.3f}, {a.ci95[1]:.3f}] over {a.n_models} full models, "
        f"noise ceiling {a.ceiling_tau_b:.3f}"
    )


def scatter(agreement: AgreementRecord, mark: str = "") -> Plot:
    """The plot; `mark` stands above latencies that no board measured (`deploy.latency.watermark`)."""
    p = residuals(agreement)
    models = Points(
        tuple(p.predicted_ms[i] for i in p.others),
        tuple(p.measured_ms[i] for i in p.others),
        "models",
        "models",
        tips=tuple(p.tip(i) for i in p.others),
        y_intervals=tuple(p.halves_ms[i] for i in p.others),
    )
    worst = Points(
        tuple(p.predicted_ms[i] for i in p.worst),
        tuple(p.measured_ms[i] for i in p.worst),
        "offender",
        "largest residuals",
        tips=tuple(p.tip(i) for i in p.worst),
        labels=tuple(str(rank) for rank, _ in enumerate(p.worst, start=1)),
        size=4.5,
        y_intervals=tuple(p.halves_ms[i] for i in p.worst),
    )
    numbered = (f"{rank}  {p.label(i)}" for rank, i in enumerate(p.worst, start=1))
    return Plot(
        title(agreement),
        Axis(AXES[0], p.log),
        Axis(AXES[1], p.log),
        (models, *([worst] if p.worst else [])),
        warning=mark,
        notes=(HALVES, *numbered),
        diagonal="predicted = measured",
        height=460,
    )


def write_page(path: Path, agreement: AgreementRecord, mark: str = "") -> None:
    """One self-contained page."""
    title = "hilnas: predicted against measured"
    write_atomically(path, page(title, f"<h1>{title}</h1>{wide(scatter(agreement, mark), PAGE_WIDTH)}"))


def write_image(path: Path, agreement: AgreementRecord, mark: str = "") -> None:
    """The same as a file, .svg."""
    write_svg(path, [scatter(agreement, mark)], width=PAGE_WIDTH)
