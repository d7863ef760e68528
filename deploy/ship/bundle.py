"""A bundle: a model with everything that proves it on a board, and nothing that has to be believed.

The folder holds the model, labels, preprocessing, a golden input and output, the measurement that justified
it and a verifier of one file (standard library and the TFLite runtime). The manifest names every file with
its size and sha256.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.compile.artifact import Artifact
from deploy.compile.kernel_spread import kernel_spread
from deploy.compile.tails import class_map_of
from deploy.formats.digest import file_digest
from deploy.formats.files import write_atomically
from deploy.run.records import BudgetVerdict
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
from deploy.ship.verification import VERIFIER
from hil.errors import UsageError
from hil.scripts import script
from hil.spread import KernelSpread

EXAMPLE = "example.py"
LATENCY_TOLERANCE = 0.1
"""The share by which the verifier's median may be above the recorded interval. On the demos' bundles the two differ by
less than 1 % (docs/results): the rest is for boards that are warmer than they were."""


@dataclass(frozen=True)
class TaskOutput:
    """The output of a task's models, and how far a board may be from the golden one.

    Attributes:
        max_mismatch, max_abs_diff: of `GoldenPair`.
        tolerance: in words, with places for `percent` of the elements and `steps`.
    """

    task: str
    output: str
    max_mismatch: float
    max_abs_diff: int | None
    tolerance: str

    def within(self, spread: KernelSpread | None) -> TaskOutput:
        """With a tolerance that two kernel sets do not exceed on the very file; None leaves the task's."""
        if spread is not None and spread.of_classes:
            return replace(self, max_mismatch=max(self.max_mismatch, spread.allowed))
        if spread is not None and self.max_abs_diff is not None:
            return replace(self, max_abs_diff=max(self.max_abs_diff, int(spread.allowed)))
        return self

    @property
    def tolerance_text(self) -> str:
        return self.tolerance.format(percent=f"{100 * self.max_mismatch:.3g} %", steps=self.max_abs_diff)


TASK_OUTPUTS: Mapping[str, TaskOutput] = {
    "segmentation": TaskOutput(
        task="Semantic segmentation",
        output="the class map, int32",
        max_mismatch=0.02,
        max_abs_diff=None,
        tolerance="at most {percent} of the pixels may\ndiffer, as delegates round differently",
    ),
    "classification": TaskOutput(
        task="Image classification",
        output="one score per class, {kind}; the largest score names the class",
        max_mismatch=1.0,
        max_abs_diff=3,
        tolerance="the scores may be off by {steps}\nsteps, as delegates round differently",
    ),
}
"""By the name of the task. 3 steps: the most by which onnxruntime is off after a full classifier
(tests/deploy/formats/test_classifier.py); no delegate has been tried. A file on which two kernel sets are further apart
has more (`TaskOutput.within`)."""


LOGITS = "logits, {kind}; the CPU makes the class map of them (`class_map` in example.py), and latencies are to it"
"""What a model gives whose file leaves the class map to the CPU."""


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle.

    Attributes:
        task: a key of `TASK_OUTPUTS`.
        size: (H, W) of an image, in pixels.
        facts: shown in the README and kept in the manifest.
        accuracy: kept in the manifest, where the model was evaluated.
        budgets: likewise, where the model was selected for one.
    """

    name: str
    artifact: Artifact
    task: str
    classes: Sequence[str]
    size: tuple[int, int]
    measurement: BundleMeasurement
    facts: Mapping[str, str]
    accuracy: Accuracy | None = None
    budgets: tuple[BudgetVerdict, ...] = ()


def export(contents: Contents, target: Path) -> Path:
    """Write the bundle aside, then rename it into place (replacing an older one of this kit)."""
    if target.exists() and not (target / Manifest.FILE).exists():
        raise UsageError(f"{target}: exists and is no bundle; give another --out")
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    _fill(part, contents)
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)  # half removed, it would be no bundle that the next export may replace
    part.replace(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _fill(folder: Path, contents: Contents) -> None:
    """Every file of the bundle, the manifest last."""
    spread = kernel_spread(contents.artifact.model, contents.artifact.input)
    output = TASK_OUTPUTS[contents.task].within(spread)
    (folder / "golden").mkdir(parents=True)
    shutil.copyfile(contents.artifact.model, folder / "model.tflite")
    shutil.copyfile(contents.artifact.input, folder / "golden/input.bin")
    shutil.copyfile(contents.artifact.expected, folder / "golden/output.bin")
    for name in (VERIFIER, EXAMPLE):
        (folder / name).write_bytes(script(name))
    write_atomically(folder / "labels.txt", "\n".join(contents.classes) + "\n")
    kind, steps = input_type(contents.artifact.model), preprocessing(contents.artifact.model, contents.size)
    steps.write(folder / Preprocessing.FILE)
    contents.measurement.write(folder / BundleMeasurement.FILE)
    write_atomically(folder / "README.md", _readme(contents, output, kind, steps))
    listed = sorted(p for p in folder.rglob("*") if p.is_file())
    left = class_map_of(contents.artifact.model)
    Manifest(
        format=FORMAT,
        name=contents.name,
        model="model.tflite",
        labels="labels.txt",
        preprocessing=Preprocessing.FILE,
        measurement=BundleMeasurement.FILE,
        facts=contents.facts,
        golden=(GoldenPair("golden/input.bin", "golden/output.bin", output.max_mismatch, output.max_abs_diff),),
        files={str(p.relative_to(folder)): ListedFile(file_digest(p), p.stat().st_size) for p in listed},
        accuracy=contents.accuracy,
        class_map=None if left is None else LeftToCpu(left),
        latency_tolerance=LATENCY_TOLERANCE,
        budgets=contents.budgets,
    ).write(folder / Manifest.FILE)


def _readme(contents: Contents, output: TaskOutput, kind: str, steps: Preprocessing) -> str:
    left = class_map_of(contents.artifact.model)
    facts = "\n".join(f"- {key}: {value}" for key, value in contents.facts.items())
    return f"""# {contents.name}

{output.task}, {len(contents.classes)} classes (labels.txt), {contents.size[0]} x {contents.size[1]} pixels.
Input: RGB, {steps.from_uint8 if kind == "int8" else kind}, NHWC (preprocessing.json). \
Output: {output.output.format(kind=kind) if left is None else LOGITS.format(kind=kind)}.

{facts}

Verify it where it will run (needs Python 3.9 and a TFLite runtime, nothing else):

    python3 {VERIFIER} . [--delegate /usr/lib/libvx_delegate.so]

It checks every file's hash, runs the golden input, compares with the golden output ({output.tolerance_text}), and
times the model. The latency of measurement.json is that of the board named there, under the conditions stated there.

Run it on an image of its size, from the image's bytes to the result ({EXAMPLE} shows how an application does it):

    python3 {EXAMPLE} IMAGE.ppm [--delegate /usr/lib/libvx_delegate.so]
"""
