"""The study's record as the Markdown tables of docs/camvid.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from deploy.run.settings.deployment import TEACHER_PLUS
from deploy.studies.camvid.record import CamvidRecord, Control
from nas.estimate import Estimate


def rows(record: CamvidRecord) -> Iterator[str]:
    """All of them, with an empty line between."""
    for table in (_claims, _same_recipe, _ablation, _controls, _widths, _rankings, _agreements, _costs):
        lines = list(table(record))
        if lines:
            yield from (*lines, "")


def _claims(record: CamvidRecord) -> Iterator[str]:
    if not record.claims:
        return
    yield "| model | mIoU of the board, % | against teacher_plus, points [95 %] | verdict | size | latency |"
    yield "|---|---|---|---|---|---|"
    for claim in record.claims:
        shares = f"{claim.size_share:.1%} | {claim.latency_share:.1%}"
        score = f"{_score(record, claim.name):.2f}"
        fewer = "" if claim.seeds == record.claims[0].seeds else f" ({_listed(claim.seeds)})"
        yield f"| {claim.name}{fewer} | {score} | {_interval(claim.difference)} | {claim.verdict} | {shares} |"
    yield ""
    yield f"Means over {_listed(record.claims[0].seeds)}; teacher_plus {_score(record, TEACHER_PLUS):.2f} %."


def _listed(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"


def _score(record: CamvidRecord, name: str) -> float:
    return fmean(model.score for model in record.models if model.name == name)


def _same_recipe(record: CamvidRecord) -> Iterator[str]:
    if not record.same_recipe:
        return
    yield (
        "| model, without and with quantization-aware steps | mIoU, % | with | "
        "against teacher_plus, both without [95 %] | both with [95 %] |"
    )
    yield "|---|---|---|---|---|"
    for one in record.same_recipe:
        scores = f"{one.plain_score:.2f} | {one.finished_score:.2f}"
        differences = "|" if one.name == TEACHER_PLUS else f"{_interval(one.plain)} | {_interval(one.finished)}"
        yield f"| {one.name} | {scores} | {differences} |"
    yield ""
    yield f"Means over {_listed(record.same_recipe[0].seeds)}."


def _ablation(record: CamvidRecord) -> Iterator[str]:
    if not record.ablation:
        return
    yield (
        "| seed | model | recipe without | mIoU, % | against the whole recipe, points [95 %] | "
        "against teacher_plus without the same [95 %] |"
    )
    yield "|---|---|---|---|---|---|"
    for part in record.ablation:
        against = _interval(part.against) if part.against else ""
        scores = f"{part.score:.2f} | {_interval(part.change)} | {against}"
        yield f"| {part.seed} | {part.model} | {part.without} | {scores} |"


def _controls(record: CamvidRecord) -> Iterator[str]:
    if not record.controls:
        return
    yield (
        "| seed | budget | control | mIoU, % | selected model less control, points [95 %] | "
        "with quantization-aware steps, % | selected less control, both with [95 %] | size | CPU s to select it |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for control in record.controls:
        finished = "" if control.finished_score is None else f"{control.finished_score:.2f}"
        both = _interval(control.finished_found) if control.finished_found else ""
        yield (
            f"| {control.seed} | {control.budget} | {control.method} | {control.score:.2f} | "
            f"{_interval(control.found)} | {finished} | {both} | {control.size_share:.1%} | {_selecting(control)} |"
        )


def _selecting(control: Control) -> str:
    seconds = [seconds for step, seconds in control.cpu_s.items() if step != "retrain"]
    return "-" if None in seconds else f"{sum(s for s in seconds if s is not None):.0f}"


def _widths(record: CamvidRecord) -> Iterator[str]:
    if not record.widths:
        return
    yield "| network | bits | mIoU, % | against teacher_plus, points [95 %] | size |"
    yield "|---|---|---|---|---|"
    for width in record.widths:
        against = _interval(width.difference) if width.difference else ""
        bits = "mixed" if width.bits is None else str(width.bits)
        yield f"| {width.name} | {bits} | {width.score:.2f} | {against} | {width.size_share:.1%} |"


def _rankings(record: CamvidRecord) -> Iterator[str]:
    if not record.rankings:
        return
    yield "| ranked by | tau-b with what architectures are once retrained [95 %] |"
    yield "|---|---|"
    for ranking in record.rankings:
        yield f"| {ranking.way} | {ranking.tau_b:.2f} [{ranking.ci95[0]:.2f}, {ranking.ci95[1]:.2f}] |"
    if record.ceiling is not None:
        yield f"| one retraining with another | {record.ceiling:.2f} |"


def _agreements(record: CamvidRecord) -> Iterator[str]:
    if not record.agreements:
        return
    yield "| seed | full networks | tau-b of the latency table [95 %] | of two halves of one measurement |"
    yield "|---|---|---|---|"
    for agreed in record.agreements:
        interval = f"[{agreed.ci95[0]:.3f}, {agreed.ci95[1]:.3f}]"
        yield f"| {agreed.seed} | {agreed.models} | {agreed.tau_b:.3f} {interval} | {agreed.ceiling_tau_b:.3f} |"


def _costs(record: CamvidRecord) -> Iterator[str]:
    """CPU seconds."""
    if not record.costs:
        return
    stages = list(dict.fromkeys(cost.stage for cost in record.costs))
    yield f"| seed, CPU s | {' | '.join(stages)} |"
    yield f"|{'---|' * (len(stages) + 1)}"
    for seed in dict.fromkeys(cost.seed for cost in record.costs):
        found = {cost.stage: cost.cpu_s for cost in record.costs if cost.seed == seed}
        yield f"| {seed} | {' | '.join(f'{found[s]:.0f}' if s in found else '-' for s in stages)} |"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"
