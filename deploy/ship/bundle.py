"""A bundle: a model with everything that proves it on a board, and nothing that has to be believed.

The folder holds the model, labels, preprocessing, golden images with their outputs, the measurement that justified it,
a verifier and an application of one file each (standard library, numpy and the TFLite runtime). The manifest names
every file with its size and sha256.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploy.compile.artifact import Artifact
from deploy.compile.tails import class_map_of
from deploy.formats.class_colours import hexadecimal
from deploy.formats.digest import file_digest
from deploy.formats.files import write_atomically
from deploy.run.records import Record
from deploy.ship.card import FILE as MODEL_CARD
from deploy.ship.card import CardFacts, model_card
from deploy.ship.evaluation_record import EvaluationRecord
from deploy.ship.examples import CAMERA, write_examples
from deploy.ship.golden import copy_golden
from deploy.ship.layers import QuantizedLayers, quantized_layers
from deploy.ship.manifest import (
    FORMAT,
    Accuracy,
    BundleMeasurement,
    GoldenPair,
    LeftToCpu,
    ListedFile,
    Manifest,
    Preprocessing,
)
from deploy.ship.preprocessing import input_type, preprocessing
from deploy.ship.provenance import Provenance
from deploy.ship.task_output import LOGITS, TASK_OUTPUTS, TaskOutput
from deploy.ship.tolerances import spread_text, with_tolerance
from deploy.ship.verification import VERIFIER
from hil.errors import UsageError
from hil.scripts import script

APPLICATION = "infer.py"
LATENCY_TOLERANCE = 0.1
"""The share by which the verifier's median may be above the recorded interval. On the demos' bundles the two differ by
less than 1 % (docs/results): the rest is for boards that are warmer than they were."""
COLOURS = "colours.txt"
"""A colour for each class, in the order of labels.txt; a bundle whose images have one class has none."""


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        task: a key of `TASK_OUTPUTS`.
        facts: shown in the README and kept in the manifest.
        accuracy: kept in the manifest, where the model was evaluated.
        card: what the model card is written from; None where the model is no final one of a run.
        documents: further files, by name: texts and records.
    """

    name: str
    artifact: Artifact
    task: str
    classes: Sequence[str]
    measurement: BundleMeasurement
    facts: Mapping[str, str]
    accuracy: Accuracy | None = None
    card: CardFacts | None = None
    documents: Mapping[str, str | Record] = field(default_factory=dict)


def export(contents: Contents, target: Path) -> Path:
    """Write the bundle, replacing an older one of this kit."""
    return write_aside(target, lambda folder: _fill(folder, contents))


def write_aside(target: Path, fill: Callable[[Path], None]) -> Path:
    """Write a bundle aside, then rename it into place (replacing an older one of this kit)."""
    if target.exists() and not (target / Manifest.FILE).exists():
        raise UsageError(f"{target}: exists and is no bundle; give another --out")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    fill(part)
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)  # half removed, it would be no bundle that the next export may replace
    part.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _fill(folder: Path, contents: Contents) -> None:
    """Every file of the bundle, the manifest last."""
    artifact = contents.artifact
    output, steps = TASK_OUTPUTS[contents.task], preprocessing(artifact.model)
    copied = copy_golden(artifact, folder, output, contents.classes, steps.size)
    output, golden = with_tolerance(artifact.model, folder, copied, output)
    shutil.copyfile(artifact.model, folder / "model.tflite")
    for name in (VERIFIER, APPLICATION):
        (folder / name).write_bytes(script(name))
    write_atomically(folder / "labels.txt", _lines(contents.classes))
    if output.dense:
        write_atomically(folder / COLOURS, _lines(hexadecimal(label) for label in range(len(contents.classes))))
    steps.write(folder / Preprocessing.FILE)
    contents.measurement.write(folder / BundleMeasurement.FILE)
    quantized = quantized_layers(artifact.model)
    quantized.write(folder / QuantizedLayers.FILE)
    if contents.card is not None:
        _write_card(folder, contents, contents.card, steps, quantized)
    for name, document in contents.documents.items():
        if isinstance(document, Record):
            document.write(folder / name)
        else:
            write_atomically(folder / name, document)
    write_atomically(folder / "README.md", _readme(contents, output, steps, golden))
    left, kind = class_map_of(artifact.model), input_type(artifact.model)
    if steps.size is not None:
        write_examples(folder, contents.classes, steps, kind, dense=output.dense, left=left)
    listed = sorted(p for p in folder.rglob("*") if p.is_file())
    Manifest(
        format=FORMAT,
        name=contents.name,
        model="model.tflite",
        labels="labels.txt",
        preprocessing=Preprocessing.FILE,
        measurement=BundleMeasurement.FILE,
        facts=contents.facts,
        golden=golden,
        files={str(p.relative_to(folder)): ListedFile(file_digest(p), p.stat().st_size) for p in listed},
        accuracy=contents.accuracy,
        class_map=None if left is None else LeftToCpu(left),
        latency_tolerance=LATENCY_TOLERANCE,
        budgets=contents.card.budgets if contents.card else (),
    ).write(folder / Manifest.FILE)


def _write_card(
    folder: Path, contents: Contents, card: CardFacts, steps: Preprocessing, quantized: QuantizedLayers
) -> None:
    """The model card, and what it is written from."""
    what = f"{TASK_OUTPUTS[contents.task].task} of RGB images, at {_pixels(steps)}."
    text = model_card(what, contents.classes, card, contents.measurement.conditions, quantized)
    write_atomically(folder / MODEL_CARD, text)
    card.provenance.write(folder / Provenance.FILE)
    for name, text in card.configuration.items():
        write_atomically(folder / name, text)
    if card.evaluation is not None:
        replace(card.evaluation, model="model.tflite").write(folder / EvaluationRecord.FILE)


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def _pixels(steps: Preprocessing) -> str:
    return f"{steps.size[0]} x {steps.size[1]} pixels" if steps.size else steps.input


def _readme(contents: Contents, output: TaskOutput, steps: Preprocessing, golden: Sequence[GoldenPair]) -> str:
    kind, left = input_type(contents.artifact.model), class_map_of(contents.artifact.model)
    facts = "\n".join(f"- {key}: {value}" for key, value in contents.facts.items())
    known = f", {len(contents.classes)} classes (labels.txt)" if contents.classes else ""
    return f"""# {contents.name}

{output.task}{known}, {_pixels(steps)}.
Input: {_input_text(kind, steps)} (preprocessing.json). \
Output: {output.output.format(kind=kind) if not left else LOGITS.format(kind=kind)}.

{facts}

Verify it where it will run (needs Python 3.9, numpy and a TFLite runtime):

    python3 {VERIFIER} . [--delegate /usr/lib/libvx_delegate.so]

It checks every file's hash, runs the golden inputs, compares with the golden outputs ({output.tolerance_text}), and
times the model. {spread_text(golden)}\
The latency of measurement.json is that of the board named there, under the conditions stated there.

{_application_text(contents, output, steps)}"""


def _input_text(kind: str, steps: Preprocessing) -> str:
    if steps.from_uint8 is None:
        return f"{steps.input}, no image, or nobody said how an image becomes it"
    colours = {"bgr": "BGR", "grey": "grey"}.get(steps.colours or "", "RGB")
    return f"{colours}, {steps.from_uint8 if kind == 'int8' or steps.mean else kind}, NHWC"


def _application_text(contents: Contents, output: TaskOutput, steps: Preprocessing) -> str:
    if steps.size is None:
        return f"""Run it on the input's bytes, or on real values in FILE.npy ({APPLICATION} is what to start from):

    python3 {APPLICATION} golden/0.input.bin [--out DIR] [--delegate /usr/lib/libvx_delegate.so]

It prints the outputs' shapes and ranges and the times before, in and after the model; DIR gets them as NAME.0.npy, ...
"""
    writes = " DIR gets pictures of the classes." if output.dense else ""
    if not contents.classes:
        writes = " DIR gets the outputs as real values (NAME.0.npy, ...)."
    needs = f"{APPLICATION} is what an application starts from; images need Pillow, OpenCV, or are PPM"
    return f"""Run it on images of any size ({needs}):

    python3 {APPLICATION} IMAGE|FOLDER [--out DIR] [--delegate /usr/lib/libvx_delegate.so]

It prints the result and the times before, in and after the model.{writes}
c/ has the same in C, and {CAMERA} a camera's pipeline that no board has run yet.
"""
