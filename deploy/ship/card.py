"""The model card: what a model is for, how good it is beside which others, its limits, and how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.run.records import BudgetVerdict, ModelRecord
from deploy.ship.budgets import verdict_text
from deploy.ship.evaluation import BOARD
from deploy.ship.evaluation_record import EvaluationRecord, evaluation_path
from deploy.ship.layers import QuantizedLayers
from deploy.ship.provenance import Provenance
from hil.measurement import Conditions
from nas.estimate import Estimate

FILE = "MODEL_CARD.md"
WORST = 3  # classes that the limits name
TITLES: Mapping[str, str] = {"teacher": "the teacher", "teacher_plus": "the teacher trained on (T+)"}
NAMED = ("board", "soc", "machine", "kernel", "bsp", "runtime", "delegate", "kernels", "threads", "governor")


@dataclass(frozen=True)
class CardFacts:
    """Where a bundle's model comes from, and what it is compared with.

    Attributes:
        metric: its name.
        models: the model itself, then the others: the teacher, and the teacher trained on by the same recipe.
        budgets: of the model.
        evaluations: by model, its metric from the board's own answers; none from a board that gives no outputs.
        configuration: by name, the files to make it again with.
        titles: of other models, by name.
        less: the INT8 score less that of another model, by its title, besides T+.
        origin: where the model comes from, in a sentence; "": of the run's search.
    """

    metric: str
    models: tuple[ModelRecord, ...]
    budgets: tuple[BudgetVerdict, ...]
    evaluations: Mapping[str, EvaluationRecord]
    provenance: Provenance
    configuration: Mapping[str, str]
    titles: Mapping[str, str] = field(default_factory=lambda: TITLES)
    less: Mapping[str, Estimate] = field(default_factory=dict)
    origin: str = ""

    @property
    def differences(self) -> Mapping[str, Estimate]:
        """The INT8 score less that of another model, by its title."""
        against = self.models[0].against_teacher_plus
        return {**({"T+": against} if against else {}), **self.less}

    @property
    def evaluation(self) -> EvaluationRecord | None:
        return self.evaluations.get(self.models[0].name)


def evaluations_in(run: Path, models: Iterable[str]) -> dict[str, EvaluationRecord]:
    """What the run's stage `ship` recorded of these models."""
    paths = {name: evaluation_path(run, name) for name in models}
    return {name: EvaluationRecord.read(path) for name, path in paths.items() if path.exists()}


def model_card(
    what: str, classes: Sequence[str], facts: CardFacts, conditions: Conditions, quantized: QuantizedLayers
) -> str:
    """In Markdown; `what`: the task and the images in one sentence."""
    parts = (
        _purpose(what, classes),
        _results(facts, conditions),
        _by_class(classes, facts),
        _limits(classes, facts, quantized),
        _making(facts),
    )
    title = f"# Model card: {facts.provenance.run}-{facts.models[0].name}"
    return "\n".join([title, "", *(line for part in parts for line in part)])


def _purpose(what: str, classes: Sequence[str]) -> Iterator[str]:
    yield from ("## What it is for", "", what, "", f"It knows these classes and no others: {', '.join(classes)}.", "")


def _results(facts: CardFacts, conditions: Conditions) -> Iterator[str]:
    heads = (
        "",
        f"{facts.metric}, float",
        f"{facts.metric}, INT8",
        f"{facts.metric} by the board's answers",
        "weights",
        "latency, median",
    )
    yield from ("## Results", "", row(*heads), row("---", *["---:"] * 5))
    for one in facts.models:
        board = (
            f"{one.board.score.value:.2f} [{one.board.score.low:.2f}, {one.board.score.high:.2f}]" if one.board else "-"
        )
        latency = f"{one.latency_us.median / 1000:.3f} ms"
        size = f"{one.size_bits / 8000:.1f} kB"
        yield row(
            facts.titles.get(one.name, f"**{one.name}**"),
            f"{one.score_fp32:.2f}",
            f"{one.score_int8:.2f}",
            board,
            size,
            latency,
        )
    yield ""
    for title, d in facts.differences.items():
        yield f"- Less {title}, INT8: {d.value:+.2f} points [{d.low:+.2f}, {d.high:+.2f}] over the same {d.n} images."
    yield from (f"- {verdict_text(verdict)}" for verdict in facts.budgets)
    if facts.evaluation:
        images, (height, width) = facts.evaluation.images, facts.evaluation.images.size
        yield f"- Images: {images.data}, split {images.split}, {images.scored} of {height} x {width} pixels."
    raw = conditions.to_json()
    measured = ", ".join(f"{key} {raw[key]}" for key in NAMED if raw.get(key))
    yield from (f"- Measured on: {measured}. measurement.json has the samples.", "")


def _by_class(classes: Sequence[str], facts: CardFacts) -> Iterator[str]:
    """Nothing where no board's answers are known."""
    columns = [(one.name, _class_scores(facts, one.name)) for one in facts.models]
    known = [(name, scores) for name, scores in columns if scores]
    if not known:
        return
    yield from ("## Class by class, by the board's answers, %", "")
    yield from (
        row("class", *(facts.titles.get(name, name) for name, _ in known)),
        row("---", *["---:"] * len(known)),
    )
    for label, title in enumerate(classes):
        yield row(title, *("-" if scores[label] is None else f"{scores[label]:.1f}" for _, scores in known))
    yield from ("", "-: no image has it.", "")


def _limits(classes: Sequence[str], facts: CardFacts, quantized: QuantizedLayers) -> Iterator[str]:
    yield from ("## Limits", "")
    yield "- The figures hold for images like those of the data set; `hilnas evaluate` scores the bundle on yours."
    yield "- A latency is that of one image at a time, on the board and under the conditions above."
    scores = _class_scores(facts, facts.models[0].name)
    there = sorted((score, classes[label]) for label, score in enumerate(scores) if score is not None)
    if there:
        yield f"- Weakest classes: {', '.join(f'{name} ({score:.1f} %)' for score, name in there[:WORST])}."
    absent = [classes[label] for label, score in enumerate(scores) if score is None]
    if absent:
        yield f"- Never seen in these images, so nothing is known of: {', '.join(absent)}."
    if quantized.requested_bits and min(quantized.requested_bits) < min(quantized.executed_bits, default=8):
        requested, executed = (
            ", ".join(map(str, bits)) for bits in (quantized.requested_bits, quantized.executed_bits)
        )
        yield f"- Weights of {requested} bits run as {executed} bits: they save size, not time."
    placement = facts.models[0].placement
    if placement and placement.off_share:
        yield (
            f"- By the rules of {placement.target}, {placement.off_share:.1%} of the multiply-accumulates run off its "
            f"{placement.fast_place}."
        )
    yield ""


def _making(facts: CardFacts) -> Iterator[str]:
    made = facts.provenance
    yield from (
        "## How it was made",
        "",
        facts.origin or f"Selected by the network search of the run {made.run}: {facts.models[0].subnet}.",
    )
    yield from (
        "The same keys, and so the same models, from the bundle's configuration:",
        "",
        f"    {made.command}",
        "",
    )
    yield f"- Images: {made.images}" + (
        f", sha256 of train {made.data.train_sha256}, val {made.data.val_sha256}" if made.data else ", generated"
    )
    if made.encoder:
        yield f"- The encoder started from a file of sha256 {made.encoder}"
    yield "- Keys: " + ", ".join(f"{stage} {key}" for stage, key in made.keys.items())
    yield from (
        "- The licences of the images and of an encoder's file are not known here: look at where they are from.",
        "",
    )
    yield from (row("package", "version", "licence"), row("---", "---", "---"))
    yield from (row(one.name, one.version, one.licence or "-") for one in made.packages)
    yield ""


def _class_scores(facts: CardFacts, name: str) -> tuple[float | None, ...]:
    evaluation = facts.evaluations.get(name)
    by_board = evaluation.score(BOARD) if evaluation else None
    return by_board.classes if by_board else ()


def row(*cells: str) -> str:
    """Of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
