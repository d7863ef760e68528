"""The samples behind each latency: round by round, so that drift and doubtful rounds can be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median, quantiles

from deploy.formats.plots.figures import Axis, Plot, Points
from deploy.formats.plots.pages import wide
from deploy.report.material import Material
from hil.measurement import Measurement
from hil.trust import FLAGS


def latencies(material: Material) -> str:
    """A plot, and what speaks against rounds; nothing where the run's own store has no such measurement."""
    rounds = {model.name: list(_rounds(material, model.name)) for model in material.models}
    rounds = {name: found for name, found in rounds.items() if found}
    if not rounds:
        return ""
    return wide(_plot(rounds)) + _flags(rounds)


def _rounds(material: Material, name: str) -> Iterator[Measurement]:
    """Those of the final measurement, which the model's latency is of: one from each round, the last if several."""
    model = next(model for model in material.models if model.name == name)
    since = model.latency_us.measured_at or ""
    found = {
        m.round: m for m in material.measurements if m.model == name and m.status == "ok" and m.started_at >= since
    }
    yield from (found[number] for number in sorted(found))


def _plot(rounds: dict[str, list[Measurement]]) -> Plot:
    """Each round's median, with the middle half of its samples, as a share of the model's own median."""
    shown = [(model, m) for model, found in rounds.items() for m in found]
    first = {id(found[0]) for found in rounds.values()}
    middle = {model: median(us for m in found for us in m.latencies_us) for model, found in rounds.items()}
    marks = []
    for flagged, name, colour in ((False, "rounds", "models"), (True, "rounds with flags", "offender")):
        here = [(float(at), model, m) for at, (model, m) in enumerate(shown) if bool(m.flags) == flagged]
        halves = [_middle_half([us / middle[model] for us in m.latencies_us]) for _, model, m in here]
        marks.append(
            Points(
                tuple(at for at, _, _ in here),
                tuple(median(m.latencies_us) / middle[model] for _, model, m in here),
                colour,
                name,
                tips=tuple(
                    f"{model}, round {m.round}: {median(m.latencies_us) / 1000:.3f} ms\n{', '.join(m.flags)}".strip()
                    for _, model, m in here
                ),
                y_intervals=tuple(halves),
                size=3,
            )
        )
    return Plot(
        "Latency of each round, of the model's median: drift and doubtful rounds",
        Axis("", names=tuple(model if id(m) in first else "" for model, m in shown)),
        Axis("of the median"),
        tuple(mark for mark in marks if mark.x),
        notes=("bars: the middle half of a round's samples",),
        height=200,
    )


def _middle_half(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = quantiles(samples, n=4)
    return low, high


def _flags(rounds: dict[str, list[Measurement]]) -> str:
    found = {flag for measured in rounds.values() for m in measured for flag in m.flags}
    lines = "".join(f"<li>{flag}: {FLAGS[flag]}</li>" for flag in sorted(found & FLAGS.keys()))
    return f"<ul>{lines}</ul>" if lines else '<p class="muted">No round has a flag.</p>'
