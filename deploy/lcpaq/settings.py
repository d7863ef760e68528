"""Settings of LCPAQ's steps, checked before anything is trained; limits are texts: `67%`, `250kB`, `3.2G`, `blocks`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hil.errors import UsageError
from nas.lcpaq.policy import ACTIVATION_BITS, INT8, WEIGHT_BITS, Choice
from nas.lcpaq.sensitivity import SENSITIVITIES
from nas.lcpaq.trial import SPACE, Space

UNITS: Mapping[str, Mapping[str, float]] = {
    "size_bits": {"bits": 1.0, "B": 8.0, "kB": 8e3, "MB": 8e6},
    "bops": {"M": 1e6, "G": 1e9, "T": 1e12},
    "latency_us": {"us": 1.0, "ms": 1e3, "s": 1e6},
}
OPTION = {"size_bits": "--size-limit", "bops": "--bops-limit", "latency_us": "--latency-limit"}
FIX = "--fix"
FLAGS = ("--all-layers", "--tie-bits", "--measure-latency")
DEFAULT_LIMIT = "67%"
BLOCKS = "blocks"
"""The size limit that is what a selected model's block bits take."""
_AMOUNT = re.compile(r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?) ?([A-Za-z]+|%)")


@dataclass(frozen=True)
class StepSettings:
    """Settings of LCPAQ's steps.

    Attributes:
        limits: by cost, as `67%` of the all-INT8 network's, with a unit, or `blocks` (size_bits only): what the
            selected model's block bits take.
        kind: of sensitivity.
        widths: of weights, to choose from.
        exempt_ends: the first and the last layer keep 8 bits.
        images: labelled training images, for the sensitivity.
        scoring_images: held-out training images (`data.held_out`) that policies are scored on, at most.
        k: policies of the frontier that are scored, up to `factor` times the answer's perturbation.
        factor: as it says there.
        trials: of the proxy search.
        tuning_steps: of fine-tuning in a full trial.
        fixed: hyperparameters that are not searched, each as `distillation=0` with one of its values in `SPACE`.
        activation_widths: of what a layer reads, to choose from.
        tie_bits: weights and activations of a layer share one width.
        measure_latency: of every layer, also without a limit on it.
    """

    limits: Mapping[str, str] = field(default_factory=lambda: {"size_bits": DEFAULT_LIMIT})
    kind: str = "hessian"
    widths: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    exempt_ends: bool = True
    images: int = 64
    scoring_images: int = 512
    k: int = 8
    factor: float = 1.1
    trials: int = 40
    tuning_steps: int = 64
    fixed: tuple[str, ...] = ()
    activation_widths: tuple[int, ...] = (INT8,)
    tie_bits: bool = False
    measure_latency: bool = False

    def __post_init__(self) -> None:
        if self.kind not in SENSITIVITIES:
            raise UsageError(f"--sensitivity {self.kind}: there are {', '.join(SENSITIVITIES)}")
        wrong = [width for width in self.widths if width not in WEIGHT_BITS]
        if wrong or not self.widths:
            raise UsageError(f"--bits: weights take 2 to 8 bits, not {wrong[0] if wrong else 'none'}")
        wrong = [width for width in self.activation_widths if width not in ACTIVATION_BITS]
        if wrong or not self.choices:
            what = f"activations take 4 to 8 bits, not {wrong[0]}" if wrong else "none of them is one of --bits"
            raise UsageError(f"--activation-bits: {what}")
        if self.exempt_ends and (INT8, INT8) not in self.choices:
            raise UsageError(
                "--bits, --activation-bits: the first and the last layer keep 8 bits; name 8, or give --all-layers"
            )
        if min(self.images, self.scoring_images, self.k, self.trials) < 1 or self.tuning_steps < 0:
            raise UsageError("--images, --scoring-images, --k, --trials: give at least 1 of each")
        for name, text in self.limits.items():
            if (name, text) != ("size_bits", BLOCKS):
                amount(name, text)
        narrowed(SPACE, self.fixed)

    @property
    def space(self) -> Space:
        """What the proxy searches."""
        return narrowed(SPACE, self.fixed)

    @property
    def nothing_to_search(self) -> bool:
        """Whether every hyperparameter is fixed."""
        return all(len(values) == 1 for values in self.space.values())

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What a layer may take."""
        if self.tie_bits:
            return tuple((width, width) for width in self.widths if width in self.activation_widths)
        return tuple((width, read) for width in self.widths for read in self.activation_widths)

    @property
    def options(self) -> tuple[str, ...]:
        """Of `hilnas lcpaq`: those that give these settings and are not its defaults."""
        usual = StepSettings()
        limits = {} if self.limits == usual.limits else {OPTION[name]: text for name, text in self.limits.items()}
        others = {option: text for option, text in self._given.items() if text and text != usual._given[option]}
        given = {**limits, **others}
        once = (option if option in FLAGS else f"{option}={text}" for option, text in given.items())
        return (*once, *(f"{FIX}={text}" for text in self.fixed))

    @property
    def _given(self) -> dict[str, str]:
        """The text of every option but the limits, "" of a flag that is not given."""
        flags = (not self.exempt_ends, self.tie_bits, self.measure_latency)
        return {
            "--sensitivity": self.kind,
            "--bits": ",".join(map(str, self.widths)),
            "--activation-bits": ",".join(map(str, self.activation_widths)),
            "--images": str(self.images),
            "--scoring-images": str(self.scoring_images),
            "--k": str(self.k),
            "--trials": str(self.trials),
            "--tuning-steps": str(self.tuning_steps),
            **{option: option if there else "" for option, there in zip(FLAGS, flags, strict=True)},
        }

    @property
    def narrows_activations(self) -> bool:
        return self.activation_widths != (INT8,)


def narrowed(space: Space, fixed: Sequence[str]) -> Space:
    """`space` with one value for each hyperparameter that is `fixed`; `UsageError` for what is not in it."""
    found = dict(space)
    for text in fixed:
        name, _, wanted = text.partition("=")
        if name not in space:
            raise UsageError(f"{FIX} {text}: give NAME=VALUE; the proxy searches {', '.join(space)}")
        if found[name] is not space[name]:
            raise UsageError(f"{FIX} {text}: {name} is fixed twice; give it once")
        values = {_value_text(value): value for value in space[name]}
        try:
            wanted = _value_text(float(wanted))
        except ValueError:
            wanted = wanted.lower()
        if wanted not in values:
            raise UsageError(f"{FIX} {text}: {name} is one of {', '.join(values)}")
        found[name] = (values[wanted],)
    return found


def _value_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()


def amount(name: str, text: str) -> tuple[float, str]:
    """(value, unit) of a limit as it is written, `%` among the units; `UsageError` for anything that is none."""
    match = _AMOUNT.fullmatch(text)
    value, unit = (float(match[1]), match[2]) if match else (math.nan, "")
    if not (0 < value < math.inf and unit in {*UNITS[name], "%"}):
        raise UsageError(f"{OPTION[name]} {text}: give a positive number with {', '.join(UNITS[name])}, or % of INT8's")
    return value, unit
