"""A bundle's records: manifest.json, preprocessing.json, measurement.json, and the verifier's output.

`board_scripts/verify_bundle.py` reads manifest.json on the board with the standard library alone, so the names in it
stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, TypeAlias

from deploy.formats.printable import printable
from deploy.run.records import BoardScore, BudgetVerdict, LatencyRecord, Record
from deploy.run.records.base import OMITTED
from hil.errors import ModelError
from hil.measurement import Conditions
from hil.spread import KernelSpread
from nas.errors import ConfigError
from nas.quant.tails import Sizes
from nas.settings import STRICT, build

FORMAT = "hilnas-bundle/2"
FORMATS = ("hilnas-bundle/1", FORMAT)  # the first has one golden pair, and no more than one model
LONGEST_NAME = 255


def is_inside(name: str) -> bool:
    """Is it the plain relative path of a file, which no system reads as one outside its folder?"""
    pure = PurePosixPath(name)
    plain = name.isprintable() and 0 < len(name.encode()) <= LONGEST_NAME and not set(name) & set("\\:")
    return plain and not pure.is_absolute() and str(pure) == name and not {".", ".."} & set(pure.parts)


@dataclass(frozen=True)
class ListedFile:
    """A file of a bundle as it has to be."""

    sha256: str
    bytes: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class GoldenPair:
    """Paths of an input and of the output that belongs to it.

    Attributes:
        max_mismatch: the largest share of elements that may differ at all.
        max_abs_diff: the largest difference of an element; None where a distance has no meaning.
        image: path of the image as PNG; `name`: what it is called in its data set.
        classes: path of the expected class map as PNG, whose pixels are the classes and whose palette their colours.
        top: labels of the largest scores, the largest first.
        kernel_spread: what two right kernel sets of the exporting machine differ by on this input.
    """

    input: str
    output: str
    max_mismatch: float
    max_abs_diff: int | None
    image: str | None = field(default=None, metadata=OMITTED)
    name: str | None = field(default=None, metadata=OMITTED)
    classes: str | None = field(default=None, metadata=OMITTED)
    top: tuple[str, ...] = field(default=(), metadata=OMITTED)
    kernel_spread: KernelSpread | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Accuracy:
    """The task's metric on images that nothing was trained on or chosen by, in percent.

    Attributes:
        fp32, int8: of the float network and of the integer simulation.
        on: the board; `board`: the metric from its own answers, None where it gives none.
    """

    metric: str
    data: str
    split: str
    fp32: float
    int8: float
    on: str
    board: BoardScore | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT

    def facts(self) -> dict[str, str]:
        """For people."""
        facts = {f"{self.metric} (INT8, validation)": f"{self.int8:.2f} %"}
        if self.board:
            score, failed = self.board.score, len(self.board.failed)
            left_out = f", {failed} more failed" if failed else ""
            facts[f"{self.metric} (on {self.on}, validation)"] = (
                f"{score.value:.2f} % [{score.low:.2f}, {score.high:.2f}] over {score.n} images{left_out}"
            )
        return facts


@dataclass(frozen=True)
class LeftToCpu:
    """The class map that the CPU makes of a model's logits.

    Attributes:
        sizes: (H, W) after each bilinear resize before the arg-max; none: the model's output is the class map.
    """

    sizes: Sizes
    __pydantic_config__ = STRICT


Place: TypeAlias = Literal["delegate", "cpu"]


@dataclass(frozen=True)
class Variant:
    """One of several models in a bundle: for a board's delegate, or for its CPU. Its fields are as the manifest's."""

    place: Place
    model: str
    preprocessing: str
    measurement: str
    golden: tuple[GoldenPair, ...]
    class_map: LeftToCpu | None = field(default=None, metadata=OMITTED)
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Manifest(Record):
    """A bundle's contents; paths are relative to its folder, `files` are all but the manifest itself.

    Attributes:
        format: one of `FORMATS`, by which the verifier knows what it reads.
        facts: for people, as in the README.
        accuracy: None in a bundle of a hilnas that did not evaluate on the board.
        class_map: None where the task is no segmentation.
        latency_tolerance: the share by which a latency may be above the recorded interval under the same conditions;
            None in a bundle of an earlier hilnas.
        budgets: that the model was selected for, as measured then.
        variants: all of a bundle's models where there are several; the first is the manifest's own.
    """

    format: str
    name: str
    model: str
    labels: str
    preprocessing: str
    measurement: str
    facts: Mapping[str, str]
    golden: tuple[GoldenPair, ...]
    files: Mapping[str, ListedFile]
    accuracy: Accuracy | None = field(default=None, metadata=OMITTED)
    class_map: LeftToCpu | None = field(default=None, metadata=OMITTED)
    latency_tolerance: float | None = field(default=None, metadata=OMITTED)
    budgets: tuple[BudgetVerdict, ...] = field(default=(), metadata=OMITTED)
    variants: tuple[Variant, ...] = field(default=(), metadata=OMITTED)

    FILE: ClassVar[str] = "manifest.json"
    COMMAND: ClassVar[str] = "bundle export"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"format '{self.format}': this hilnas reads {' and '.join(FORMATS)}")
        wrong = next((name for name in (*self.used, *self.files) if not is_inside(name)), None)
        if wrong is not None:
            raise ConfigError(f"'{printable(wrong)[:100]}' is no name of a file inside a bundle")
        if not is_inside(self.name) or "/" in self.name:
            raise ConfigError(f"'name': '{printable(self.name)[:100]}' cannot be a file's")

    @property
    def used(self) -> tuple[str, ...]:
        """The files that it names beside its list."""
        golden = [*self.golden, *(pair for one in self.variants for pair in one.golden)]
        pictures = (path for pair in golden for path in (pair.input, pair.output, pair.image, pair.classes) if path)
        others = (path for one in self.variants for path in (one.model, one.preprocessing, one.measurement))
        return (self.model, self.labels, self.preprocessing, self.measurement, *others, *pictures)

    @classmethod
    def arranged(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Of a budget, whether it is kept follows from the rest."""
        budgets = raw.get("budgets")
        return raw | ({"budgets": [*map(BudgetVerdict.arranged, budgets)]} if isinstance(budgets, list) else {})


@dataclass(frozen=True)
class Preprocessing(Record):
    """From an image to the model's input.

    Attributes:
        input: type and layout.
        from_uint8: formula for a pixel's value, 0 to 255; None, as `resize` and `size`: the input is no image.
        scale, zero_point: of the model's input; real = scale * (stored - zero_point).
        size: (H, W) in pixels.
        mean, std: real = (pixel - mean) / std, one number or one for each channel; None: 128 and 128.
        colours: of the channels; None: RGB.
        middle_of: (H, W) that an image is resized to, whose middle is the input; None: `size`.
    """

    input: str
    from_uint8: str | None = field(default=None, metadata=OMITTED)
    scale: float = 1.0
    zero_point: int = 0
    resize: str | None = field(default=None, metadata=OMITTED)
    size: tuple[int, int] | None = field(default=None, metadata=OMITTED)
    mean: tuple[float, ...] | None = field(default=None, metadata=OMITTED)
    std: tuple[float, ...] | None = field(default=None, metadata=OMITTED)
    colours: Literal["bgr", "grey"] | None = field(default=None, metadata=OMITTED)
    middle_of: tuple[int, int] | None = field(default=None, metadata=OMITTED)

    FILE: ClassVar[str] = "preprocessing.json"
    COMMAND: ClassVar[str] = "loop"


@dataclass(frozen=True)
class BundleMeasurement(Record):
    """The model's latency, and the conditions under which the board measured it.

    Attributes:
        rounds_us: every sample, by round; none in a bundle of another model than the one that its run shipped.
    """

    latency_us: LatencyRecord
    conditions: Conditions
    rounds_us: tuple[tuple[float, ...], ...] = field(default=(), metadata=OMITTED)

    FILE: ClassVar[str] = "measurement.json"
    COMMAND: ClassVar[str] = "bundle export"


@dataclass(frozen=True)
class VerifierCheck:
    """One line of the verifier: a check and whether it holds."""

    check: str
    ok: bool
    detail: str
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class VerifierLatency:
    """Latencies on the board in microseconds, over `n` runs."""

    median: float
    p90: float
    n: int
    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class VerifierVerdict:
    """The verifier's last line; `name`: the bundle's, None where the manifest is not readable."""

    verified: bool
    latency_us: VerifierLatency | None
    name: str | None = None
    __pydantic_config__ = STRICT


def read_verifier(output: str, where: str) -> tuple[list[VerifierCheck], VerifierVerdict | None]:
    """The verifier's checks and verdict from its standard output; None where it ended without one.

    Raises `ModelError` for a line that is no record of the verifier; `where` names bundle and board.
    """
    checks, verdict = [], None
    try:
        for line in output.splitlines():
            if not line.startswith("{"):
                continue
            raw = json.loads(line)
            if "check" in raw:
                checks.append(build(VerifierCheck, raw, where))
            else:
                verdict = build(VerifierVerdict, raw, where)
    except (ValueError, ConfigError) as error:
        raise ModelError(f"{where}: the verifier's output is not readable: {error}") from None
    return checks, verdict
