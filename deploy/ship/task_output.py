"""What the models of a task output, and how far a board may be from the golden outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deploy.formats.tflite.metadata import Description
from deploy.ship.model_ends import OURS
from hil.spread import KernelSpread


@dataclass(frozen=True)
class TaskOutput:
    """The output of a task's models, and how far a board may be from the golden one.

    Attributes:
        dense: whether it is a class for each pixel.
        max_mismatch, max_abs_diff: of `GoldenPair`.
        tolerance: in words, with places for `percent` of the elements and `steps`.
    """

    task: str
    dense: bool
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


TENSORS = "tensors"
"""The task of a network whose outputs are neither a class map nor classes, or of whose classes nothing is known."""

INDICES = "indices"
"""The same, where an output holds indices, between which a distance means nothing."""

TASK_OUTPUTS: Mapping[str, TaskOutput] = {
    "segmentation": TaskOutput(
        task="Semantic segmentation",
        dense=True,
        output="the class map, int32",
        max_mismatch=0.02,
        max_abs_diff=None,
        tolerance="at most {percent} of the pixels may\ndiffer, as delegates round differently",
    ),
    "classification": TaskOutput(
        task="Image classification",
        dense=False,
        output="one score per class, {kind}; the largest score names the class",
        max_mismatch=1.0,
        max_abs_diff=3,
        tolerance="the scores may be off by {steps}\nsteps, as delegates round differently",
    ),
    TENSORS: TaskOutput(
        task="Network",
        dense=False,
        output="tensors, {kind}",
        max_mismatch=1.0,
        max_abs_diff=3,
        tolerance="the outputs may be off by {steps}\nsteps, as delegates round differently",
    ),
    INDICES: TaskOutput(
        task="Network",
        dense=False,
        output="tensors, some of them indices",
        max_mismatch=0.02,
        max_abs_diff=None,
        tolerance="at most {percent} of the elements may\ndiffer, as delegates round differently",
    ),
}
"""By the name of the task. 3 steps: the most by which onnxruntime is off after a full classifier
(tests/deploy/formats/test_classifier.py); no delegate has been tried. A file on which two kernel sets are further apart
has more (`TaskOutput.within`)."""


LOGITS = "logits, {kind}; the CPU makes the class map of them (`class_map` in infer.py), and latencies are to it"
"""What a model gives whose file leaves the class map to the CPU."""


def description(name: str, task: str, classes: Sequence[str], version: str) -> Description:
    """Of a model that ships; `version`: the digest of what it was made from."""
    text = f"{TASK_OUTPUTS[task].task} of RGB images, {len(classes)} classes."
    return Description(name, text, version, tuple(classes), OURS)
