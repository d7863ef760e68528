"""The model card of a quantized network: what it is, how exact and how fast, its limits, how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import ClassVar

from deploy.quantize.record import NetworkOrigin, QuantizationRecord
from deploy.run.records import LatencyRecord
from deploy.run.records.base import OMITTED, Record
from deploy.ship.card import NAMED, WORST, row
from deploy.ship.evaluation_record import EvaluationRecord
from deploy.ship.manifest import Preprocessing
from deploy.ship.provenance import PACKAGES, Package, installed
from hil.measurement import Conditions
from nas.estimate import Estimate

READERS = {".onnx": ("onnx",), ".tflite": ()}
"""By the suffix of a network's file, the packages that read it beside those that make any model; of others Keras's."""


@dataclass(frozen=True)
class NetworkProvenance(Record):
    """provenance.json of a network that was imported.

    Attributes:
        data: what it was calibrated on, as it was given.
        packages: of the machine that made the bundle.
        file: the float network's, and its `sha256`; None: it came from Python.
        command: what makes the model's file again, in a folder with the network's.
    """

    network: str
    data: str
    packages: tuple[Package, ...]
    file: str | None = field(default=None, metadata=OMITTED)
    sha256: str | None = field(default=None, metadata=OMITTED)
    command: str | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "provenance.json"
    COMMAND: ClassVar[str] = "bundle export"

    @classmethod
    def of(cls, record: QuantizationRecord) -> NetworkProvenance:
        origin = record.origin or NetworkOrigin()
        readers = READERS.get(PurePath(origin.file or ".onnx").suffix.lower(), ("tensorflow",))
        packages = installed((*PACKAGES, *readers))
        return cls(record.model, record.data, packages, origin.file, origin.sha256, origin.command)


@dataclass(frozen=True)
class NetworkFacts:
    """What a card is written from; `evaluation`: None without labelled images."""

    record: QuantizationRecord
    provenance: NetworkProvenance
    latency_us: LatencyRecord
    conditions: Conditions
    evaluation: EvaluationRecord | None = None


def network_card(what: str, classes: Sequence[str], steps: Preprocessing, facts: NetworkFacts) -> str:
    """In Markdown; `what`: the task in one sentence. Without `classes` the outputs are tensors."""
    purpose = _purpose(what, classes, steps, facts.record)
    parts = (purpose, _results(facts), _by_class(classes, facts.evaluation), _limits(facts), _making(facts))
    title = f"# Model card: {facts.record.model}"
    return "\n".join([title, "", *(line for part in parts for line in part)])


def noise_text(record: QuantizationRecord) -> str:
    """Of the outputs, against the float network's."""
    noise = {tensor.name: tensor.noise_db for tensor in record.tensors if tensor.name in record.outputs}
    known = [f"{name} {db:.1f} dB" for name, db in noise.items() if db is not None]
    return ", ".join(known) or "not known: the outputs are indices"


def score_text(score: Estimate) -> str:
    return f"{score.value:.2f} % [{score.low:.2f}, {score.high:.2f}] over {score.n} images"


def _purpose(what: str, classes: Sequence[str], steps: Preprocessing, record: QuantizationRecord) -> Iterator[str]:
    yield from ("## What it is", "", what, "")
    if classes:
        yield from (f"It knows these classes and no others: {', '.join(classes)}.", "")
    yield f"- Input: {steps.input}" + (f"; {steps.from_uint8}; images: {steps.resize}." if steps.from_uint8 else ".")
    outputs = {tensor.name: tensor for tensor in record.tensors}
    for tensor in (outputs[name] for name in record.outputs if name in outputs):
        yield f"- Output {tensor.name}: {'x'.join(map(str, tensor.shape))}, {tensor.low:.4g} to {tensor.high:.4g}."
    yield ""


def _results(facts: NetworkFacts) -> Iterator[str]:
    latency, raw = facts.latency_us, facts.conditions.to_json()
    yield from ("## Results", "")
    if facts.evaluation:
        images, (height, width) = facts.evaluation.images, facts.evaluation.images.size
        for one in facts.evaluation.scores:
            yield f"- {facts.evaluation.metric.name}, {one.predictor}: {score_text(one.score)}."
        yield f"- Images: {images.data}, split {images.split}, {images.scored} of {height} x {width} pixels."
    yield f"- Noise against the float network, over {facts.record.noise_images} examples: {noise_text(facts.record)}."
    low, high = (us / 1000 for us in latency.ci95)
    yield f"- Latency: {latency.median / 1000:.3f} ms median [{low:.3f}, {high:.3f}] over {latency.n} runs."
    measured = ", ".join(f"{key} {raw[key]}" for key in NAMED if raw.get(key))
    yield from (f"- Measured on: {measured}. measurement.json has the samples.", "")


def _by_class(classes: Sequence[str], evaluation: EvaluationRecord | None) -> Iterator[str]:
    if evaluation is None or not classes:
        return
    yield from ("## Class by class, %", "", row("class", *(one.predictor for one in evaluation.scores)))
    yield row("---", *["---:"] * len(evaluation.scores))
    for label, title in enumerate(classes):
        scores = (one.classes[label] for one in evaluation.scores)
        yield row(title, *("-" if score is None else f"{score:.1f}" for score in scores))
    yield from ("", "-: no image has it.", "")


def _limits(facts: NetworkFacts) -> Iterator[str]:
    yield from ("## Limits", "")
    if facts.evaluation is None:
        yield "- No labelled images were given: how often its outputs are right is not known."
    else:
        scores = zip(facts.evaluation.scores[0].classes, facts.evaluation.images.classes, strict=True)
        known = sorted((score, name) for score, name in scores if score is not None)[:WORST]
        yield f"- Weakest classes: {', '.join(f'{name} ({score:.1f} %)' for score, name in known)}."
    yield f"- Its ranges are those of what it was calibrated on: {facts.record.data}."
    yield from ("- A latency is that of one input at a time, on the board and under the conditions above.", "")


def _making(facts: NetworkFacts) -> Iterator[str]:
    made, scheme = facts.provenance, facts.record.scheme
    yield from ("## How it was made", "")
    whence = f"{made.file}, sha256 {made.sha256}" if made.file else "a network in Python"
    yield f"Quantized (scheme {scheme}) from {whence}."
    if made.command:
        yield from ("The same file, in a folder with the network and its data:", "", f"    {made.command}", "")
    yield "- The licences of the network and of its data are not known here: look at where they are from."
    yield from ("", row("package", "version", "licence"), row("---", "---", "---"))
    yield from (row(one.name, one.version, one.licence or "-") for one in made.packages)
    yield ""
