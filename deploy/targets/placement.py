"""Where a target is expected to run each operator of a model, by the rules of a file.

Expected, not measured: a rule names its evidence, and a measurement on a board decides.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from deploy.formats.named_files import NamedFiles
from deploy.targets.inspection import Inspection, Operator, Shape
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.quant.arithmetic import LITERT, Arithmetic
from nas.quant.tails import TailChoice
from nas.settings import STRICT, build, read_toml

Place = Literal["NN", "TP", "SH", "CPU", "REFUSED"]
Evidence = Literal["simulator", "board", "source", "assumed"]
"""Seen on the vendor's simulator, on a board, in the source or documents; or assumed and not yet checked."""
Texts = tuple[str, ...] | None
TARGETS = NamedFiles("target", "targets", Path(__file__).parent / "rules")
UNKNOWN = "no rule knows it, so it is counted as CPU: measure it on the board, then add a rule"


@dataclass(frozen=True)
class Rule:
    """Where operators run for which every condition that is given holds.

    Attributes:
        place: NN, TP, SH, CPU, or REFUSED where the model does not run at all.
        wrong: it runs there and gives wrong outputs.
        slow: it runs on the fast place, far slower than other operators of its kind.
        operators, custom: TFLite's names (any operator if left out), and codes of CUSTOM ones.
        input_dtypes, output_dtypes: any of the inputs (constants aside) or outputs has one of these.
        granularity: of the weights: 'per tensor', 'per channel', 'per block'.
        kernel, stride, dilation: height x width, as '3x3'.
        effective_kernel_min, effective_kernel_max: of the larger side, (kernel - 1) * dilation + 1.
        resize, centers: words of `deploy.targets.inspection.resize_ratio`; 'half pixel', 'align corners' or 'corner'.
        rank_over, zero_dimension, batch_over: of any input or output.
    """

    __pydantic_config__ = STRICT

    place: Place
    reason: str
    evidence: Evidence
    wrong: bool = False
    slow: bool = False
    operators: Texts = None
    custom: Texts = None
    input_dtypes: Texts = None
    output_dtypes: Texts = None
    weight_dtypes: Texts = None
    weight_bits: tuple[int, ...] | None = None
    granularity: tuple[Literal["per tensor", "per channel", "per block"], ...] | None = None
    activation: Texts = None
    kernel: Texts = None
    stride: Texts = None
    dilation: Texts = None
    effective_kernel_min: int | None = None
    effective_kernel_max: int | None = None
    grouped: bool | None = None
    resize: Texts = None
    centers: tuple[Literal["half pixel", "align corners", "corner"], ...] | None = None
    constant_size: bool | None = None
    per_channel_activations: bool | None = None
    rank_over: int | None = None
    zero_dimension: bool | None = None
    batch_over: int | None = None
    at_output: bool | None = None


@dataclass(frozen=True)
class Note:
    """What to know about a model of which an input or output has one of `dtypes`."""

    __pydantic_config__ = STRICT

    dtypes: tuple[str, ...]
    text: str
    evidence: Evidence


@dataclass(frozen=True)
class Target:
    """A target's rules.

    Attributes:
        name: of its file, without .toml.
        fast_place: where operators should run.
        safe_resize_factors: those at which RESIZE_BILINEAR is right: the compiler makes every other factor of these
            (`nas.quant.safe_resize`). Empty: all factors are.
        schemes: quantization schemes that a search there is over beside the experiment's own, where the configuration
            names none (`Experiment.on`).
        arithmetic: the simulation that its outputs follow (`nas.quant.arithmetic`).
        tail: where full networks end in their files there, or "auto" (`nas.quant.tails`), likewise.
    """

    __pydantic_config__ = STRICT

    name: str
    description: str
    fast_place: Place
    rules: tuple[Rule, ...]
    safe_resize_factors: tuple[int, ...] = ()
    schemes: tuple[str, ...] = ()
    arithmetic: Arithmetic = LITERT
    tail: TailChoice | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Placement:
    """Where one operator goes.

    Attributes:
        evidence: what the rule rests on; None where no rule matched.
        fast: on the target's fast place, known, and with a fast kernel.
        wrong: its outputs there are known to be wrong.
    """

    operator: Operator
    place: Place
    reason: str
    evidence: Evidence | None
    fast: bool
    wrong: bool

    @property
    def error(self) -> bool:
        return self.wrong or self.place == "REFUSED"


@dataclass(frozen=True)
class Lint:
    """What a target does to a model.

    Attributes:
        off: the operators that are not `Placement.fast`, in order.
        errors: those that give wrong outputs, or cannot run.
        off_share: the share of the model's multiply-accumulates that `off` has; 0 for a model without any.
    """

    target: str
    fast_place: Place
    off: tuple[Placement, ...]
    errors: tuple[Placement, ...]
    macs: int
    off_macs: int
    off_share: float
    allowed_share: float
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.errors and self.off_share <= self.allowed_share

    def to_json(self) -> dict[str, Any]:
        record = {k: v for k, v in asdict(self).items() if k not in ("off", "errors")}
        for name, placements in (("off", self.off), ("errors", self.errors)):
            record[name] = [placement_record(p) for p in placements]
        return {**record, "holds": self.holds}


def placement_record(placement: Placement) -> dict[str, Any]:
    """One placement for a machine; the operator by its index, name and multiply-accumulates."""
    record = {k: v for k, v in asdict(placement).items() if k != "operator"}
    op = placement.operator
    return {"index": op.index, "name": op.custom or op.name, "macs": op.macs, **record}


CONDITIONS: Mapping[str, Callable[[Any, Operator], bool]] = {
    "operators": lambda names, op: op.name in names,
    "custom": lambda codes, op: op.custom in codes,
    "input_dtypes": lambda dtypes, op: bool(set(dtypes) & set(op.input_dtypes)),
    "output_dtypes": lambda dtypes, op: bool(set(dtypes) & set(op.output_dtypes)),
    "weight_dtypes": lambda dtypes, op: op.weight_dtype in dtypes,
    "weight_bits": lambda bits, op: op.weight_bits in bits,
    "granularity": lambda words, op: op.granularity in words,
    "activation": lambda words, op: op.activation in words,
    "kernel": lambda sizes, op: by(op.kernel) in sizes,
    "stride": lambda sizes, op: by(op.stride) in sizes,
    "dilation": lambda sizes, op: by(op.dilation) in sizes,
    "effective_kernel_min": lambda least, op: (effective_kernel(op) or 0) >= least,
    "effective_kernel_max": lambda most, op: 0 < (effective_kernel(op) or 0) <= most,
    "grouped": lambda wanted, op: (op.groups > 1) == wanted,
    "resize": lambda words, op: op.resize in words,
    "centers": lambda words, op: op.centers in words,
    "constant_size": lambda wanted, op: op.constant_size == wanted,
    "per_channel_activations": lambda wanted, op: op.per_channel_activations == wanted,
    "rank_over": lambda most, op: any(len(shape) > most for shape in _shapes(op)),
    "zero_dimension": lambda wanted, op: any(0 in shape for shape in _shapes(op)) == wanted,
    "batch_over": lambda most, op: any(shape[:1] > (most,) for shape in _shapes(op)),
    "at_output": lambda wanted, op: op.at_output == wanted,
}


def by(size: Shape | None) -> str | None:
    """(3, 5) as '3x5'."""
    return None if size is None else "x".join(map(str, size))


def effective_kernel(op: Operator) -> int | None:
    """The larger side of the kernel with its dilation; None where there is no kernel."""
    if op.kernel is None:
        return None
    return max((k - 1) * d + 1 for k, d in zip(op.kernel, op.dilation or (1, 1), strict=True))


def _shapes(op: Operator) -> Iterable[Shape]:
    return (*op.input_shapes, *op.output_shapes)


def matches(rule: Rule, op: Operator) -> bool:
    """Whether every condition of the rule holds."""
    return all(holds(getattr(rule, name), op) for name, holds in CONDITIONS.items() if getattr(rule, name) is not None)


def load_target(folder: Path | None, name: str) -> Target:
    """The rules of a target: `folder`/`name`.toml, or the user's, or those that ship (`TARGETS`).

    Raises UsageError for an unknown target, ConfigError naming the file and the key for a wrong rule.
    """
    path = TARGETS.find(name, first=folder)
    target = build(Target, {**read_toml(path), "name": path.stem}, str(path))
    for i, rule in enumerate(target.rules):
        _check_words(f"{path}: 'rules.{i}'", rule)
    return target


def _check_words(where: str, rule: Rule) -> None:
    """A misspelt name of an operator or type would never match, and nobody would notice."""
    import ai_edge_litert.schema_py_generated as schema

    for key, known in (
        ("operators", vars(schema.BuiltinOperator)),
        ("input_dtypes", vars(schema.TensorType)),
        ("output_dtypes", vars(schema.TensorType)),
        ("weight_dtypes", vars(schema.TensorType)),
        ("activation", vars(schema.ActivationFunctionType)),
    ):
        for word in getattr(rule, key) or ():
            if word not in known:
                close = difflib.get_close_matches(word, [n for n in known if n[0].isupper()], n=1)
                raise ConfigError(
                    f"{where}: {key} has no '{word}'" + (f"; did you mean '{close[0]}'?" if close else " in TFLite")
                )


def place(model: Inspection, target: Target) -> list[Placement]:
    """Where the target runs each operator: the first rule that matches decides."""
    placements = []
    for op in model.operators:
        rule = next((rule for rule in target.rules if matches(rule, op)), None)
        if rule is None:
            placements.append(Placement(op, "CPU", UNKNOWN, None, False, False))
        else:
            fast = rule.place == target.fast_place and not rule.slow
            placements.append(Placement(op, rule.place, rule.reason, rule.evidence, fast, rule.wrong))
    return placements


def lint(model: Inspection, target: Target, allowed_share: float) -> Lint:
    """What leaves the fast place of the target, and what is wrong there."""
    if not 0 <= allowed_share <= 1:
        raise UsageError(f"--max-off-nn {allowed_share}: give a share within 0 and 1")
    placements = place(model, target)
    off = tuple(p for p in placements if not p.fast)
    off_macs = sum(p.operator.macs for p in off)
    dtypes = {tensor.dtype for tensor in (*model.inputs, *model.outputs)}
    notes = [f"{note.text} ({note.evidence})" for note in target.notes if dtypes & set(note.dtypes)]
    if model.subgraphs > 1:
        notes.append(f"only the first of {model.subgraphs} subgraphs is linted")
    return Lint(
        target.name,
        target.fast_place,
        off,
        tuple(p for p in placements if p.error),
        model.macs,
        off_macs,
        off_macs / model.macs if model.macs else 0.0,
        allowed_share,
        tuple(notes),
    )


def grouped(placements: Sequence[Placement]) -> dict[tuple[str, str, str], list[Placement]]:
    """Placements by (place, operator, reason), those with the most multiply-accumulates first."""
    groups: dict[tuple[str, str, str], list[Placement]] = {}
    for p in placements:
        groups.setdefault((p.place, p.operator.custom or p.operator.name, p.reason), []).append(p)
    return dict(sorted(groups.items(), key=lambda item: -sum(p.operator.macs for p in item[1])))
