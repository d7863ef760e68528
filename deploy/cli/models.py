"""`hilnas inspect`, `lint`, `pack`, `unpack`: what a model file holds, where a target runs it, its storage form."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.model_files import add_input_shapes, parse_input_shapes
from deploy.cli.options import TARGETS, Commands, add_json, add_targets, bind
from hil.errors import CheckFailed, ModelError

if TYPE_CHECKING:
    from deploy.targets.inspected_operator import Operator
    from deploy.targets.inspection import Inspection
    from deploy.targets.placement import Lint, Placement

READ_A_FILE = "what a .tflite file holds; what leaves a target's fast cores"
NO_EVIDENCE = "no evidence"


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    model: Path
    target: str | None = None
    targets: Path = TARGETS
    input_shapes: tuple[str, ...] = ()
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class LintOptions:
    """`max_off_nn`: share of the multiply-accumulates, 0 to 1."""

    model: Path
    target: str
    targets: Path = TARGETS
    max_off_nn: float = 0.0
    input_shapes: tuple[str, ...] = ()
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    model: Path
    out: Path


@dataclass(frozen=True, kw_only=True)
class UnpackOptions:
    packed: Path
    out: Path


def add(commands: Commands) -> None:
    _add_inspect(commands)
    _add_lint(commands)
    text = "a model in its storage form, and back"
    pack = commands.add_parser(
        "pack",
        help=text,
        description="Writes a model's storage form: weights of few bits take as many bits as they need.",
    )
    pack.add_argument("model", type=Path, metavar="MODEL.tflite")
    pack.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    bind(pack, PackOptions, pack_model)
    unpack = commands.add_parser(
        "unpack", help=text, description="Writes the .tflite file of a packed model, byte for byte."
    )
    unpack.add_argument("packed", type=Path, metavar="FILE")
    unpack.add_argument("--out", type=Path, required=True, metavar="MODEL.tflite", help="the file to write")
    bind(unpack, UnpackOptions, unpack_model)


def _add_inspect(commands: Commands) -> None:
    inspect = commands.add_parser(
        "inspect",
        help=READ_A_FILE,
        description="Shows each operator of a .tflite file: shapes, types, how its weights are stored, their bits, and "
        "its multiply-accumulates (MACs); with --target also where it is expected to run.",
    )
    _add_model(inspect)
    inspect.add_argument(
        "--target",
        metavar="NAME",
        help="also where each operator runs there (imx8mp-vx, cpu-xnnpack, or a file in --targets without .toml)",
    )
    bind(inspect, InspectOptions, inspect_file)


def _add_lint(commands: Commands) -> None:
    lint = commands.add_parser(
        "lint",
        help=READ_A_FILE,
        description="Expected from rules, not measured. Exits 1 if an operator computes a wrong result or cannot run "
        "on the target, or if more than --max-off-nn of the multiply-accumulates leave the NN cores (on a target "
        "without them: the fast kernels). Operators without multiply-accumulates are listed and do not fail.",
    )
    _add_model(lint)
    lint.add_argument(
        "--target", required=True, metavar="NAME", help="imx8mp-vx, cpu-xnnpack, or a file in --targets without .toml"
    )
    lint.add_argument(
        "--max-off-nn",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="largest share of the multiply-accumulates that may run elsewhere, 0 to 1 (default %(default)s: none)",
    )
    bind(lint, LintOptions, lint_file)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.tflite")
    add_input_shapes(parser)
    add_targets(parser)
    add_json(parser)


def inspect_file(options: InspectOptions) -> int:
    from deploy.targets.placement import load_target, place, placement_record

    target = load_target(options.targets, options.target) if options.target else None
    model, notes = _inspected(options.model, options.input_shapes)
    placements = place(model, target) if target else []
    if options.json:
        record = model.to_json()
        if target:
            record["placements"] = [placement_record(p) for p in placements]
        console.say_json(record)
    else:
        _show_inspection(str(options.model), model, placements)
        for note in notes:
            console.say(f"note: {note}")
    return 0


def lint_file(options: LintOptions) -> int:
    """`CheckFailed` for a model that does not fit its target."""
    from deploy.targets.placement import lint, load_target

    target = load_target(options.targets, options.target)
    model, _ = _inspected(options.model, options.input_shapes, sized=True)
    found = lint(model, target, options.max_off_nn)
    if options.json:
        console.say_json(found.to_json())
    else:
        _show_lint(found)
    if not found.holds:
        raise CheckFailed(
            f"{options.model} on {options.target}: {len(found.errors)} operators wrong or refused, "
            f"{found.off_share:.1%} of the MACs off {found.fast_place} ({found.allowed_share:.1%} allowed); "
            f"fix what is listed, or raise --max-off-nn"
        )
    return 0


def pack_model(options: PackOptions) -> int:
    from deploy.formats.files import write_atomically
    from deploy.formats.pack import pack
    from deploy.formats.tflite.read import read

    read(options.model)  # refuses a file that is no model
    content = options.model.read_bytes()
    packed = pack(content)
    write_atomically(options.out, packed)
    _show_packed(str(options.model), len(content), str(options.out), len(packed))
    return 0


def unpack_model(options: UnpackOptions) -> int:
    from deploy.formats.pack import unpack_file

    _check_packed(options.packed)
    size = unpack_file(options.packed, options.out)
    _show_packed(str(options.out), size, str(options.packed), options.packed.stat().st_size)
    return 0


def _check_packed(path: Path) -> None:
    """Raises `ModelError` for a file that was never packed; what else is wrong with one, unpacking says."""
    from deploy.formats.pack import MAGIC
    from deploy.formats.wrong_file import identified
    from deploy.formats.wrong_text import MARK, pointer, text_of

    if not path.is_file():
        return
    with path.open("rb") as file:
        begins = file.read(1024)
        if begins.startswith(MAGIC[:-1]):  # of any version
            return
        what = "a TFLite model already" if begins[4:8] == MARK else identified(file)[0]
    found = pointer(text_of(begins) or "")
    advice = found[1] if found else "give a file that `hilnas pack` made"
    raise ModelError(f"{path}: {what}, not a packed model; {advice}")


def _inspected(path: Path, texts: Sequence[str], *, sized: bool = False) -> tuple[Inspection, list[str]]:
    """A model at the input sizes of `texts`, or where `sized` is not asked for, at those of its file; and notes on it.

    Raises `ModelError` that names the file, `UsageError` for sizes that are missing or do not fit.
    """
    from deploy.formats.tflite.input_shapes import check_names, input_shapes, options_for, resized
    from deploy.formats.tflite.precompiled import compiled_for
    from deploy.formats.tflite.read import read
    from deploy.targets.inspection import inspect_model

    given, model = parse_input_shapes(texts), read(path)
    check_names(given, [model])
    shapes = input_shapes(model, given, str(path)) if given or sized else ()
    if shapes:
        model = resized(model, path.read_bytes(), shapes, str(path))
    missing, compiled = options_for(model), compiled_for(model)
    notes = [f"sizes that are left open (-1) count as 1 here; {missing} gives them yours"] if missing else []
    notes += [f"{compiled}; to measure it elsewhere, {compiled.advice}"] if compiled else []
    try:
        return inspect_model(model), notes
    except ModelError as error:
        raise error if str(path) in str(error) else ModelError(f"{path}: {error}") from None


def _show_inspection(name: str, model: Inspection, placements: Sequence[Placement]) -> None:
    """One line per operator, and the totals; `placements` is empty where no target was asked for."""
    for tensor, word in (*((t, "in") for t in model.inputs), *((t, "out") for t in model.outputs)):
        one = len(tensor.scale) == 1
        scale = f"scale {tensor.scale[0]:.6g} zero point {tensor.zero_point[0]}" if one else "not quantized"
        kind = scale if len(tensor.scale) < 2 else "per channel"
        console.say(f"{word:4}{tensor.name} {list(tensor.signature or tensor.shape)} {tensor.dtype}, {kind}")
    if model.signatures:
        console.say(f"signatures: {', '.join(model.signatures)}")
    if model.hilnas is not None:
        console.say(f"hilnas: {json.dumps(model.hilnas, sort_keys=True)}")
    for op, placement in itertools.zip_longest(model.operators, placements):
        console.say(_operator(op) + (f"  {_placed(placement)}" if placement else ""))
    kinds = ", ".join(f"{n} {kind}" for kind, n in model.operators_by_kind.items())
    console.say(f"{len(model.operators)} operators: {kinds}")
    if model.subgraphs > 1:
        console.say(f"only the first of {model.subgraphs} subgraphs is shown")
    widths = (model.requested_bits, model.stored_bits, model.executed_bits)
    shown = zip(("requested", "stored", "executed"), widths, strict=True)
    bits = ", ".join(f"{word} {' and '.join(map(str, found or ())) or 'unknown'}" for word, found in shown)
    console.say(f"bits of the weights: {bits}")
    console.say(
        f"{name}: {model.file_bytes / 1000:.1f} kB, weights {model.weight_bytes / 1000:.1f} kB, "
        f"{model.parameters} parameters, {model.macs / 1e6:.3f} MMACs"
    )


def _operator(op: Operator) -> str:
    def by(size: Sequence[int] | None) -> str:
        return "x".join(map(str, size or ())) or "scalar"

    maps = [f"{'+'.join(map(by, shapes))}" for shapes in (op.input_shapes, op.output_shapes)]
    dtypes = ["+".join(dict.fromkeys(d)) for d in (op.input_dtypes, op.output_dtypes)]
    parts = [
        f"{op.index:4} {op.custom or op.name} v{op.version} {' -> '.join(maps)} {' -> '.join(dict.fromkeys(dtypes))}"
    ]
    if op.weight_bits:
        parts.append(f"weights {op.weight_bits} bits {op.granularity or 'not quantized'}, {op.weight_bytes} B")
    window = ((op.kernel, "kernel"), (op.stride, "stride"), (op.dilation, "dilation"))
    parts += [f"{word} {by(size)}" for size, word in window if size and (word == "kernel" or size != (1, 1))]
    parts += [f"scale {op.resize}, {op.centers}"] if op.resize else []
    parts += [op.activation] if op.activation != "NONE" else []
    parts += [f"{op.macs / 1e6:.3f} MMACs"] if op.macs else []
    return "; ".join(parts)


def _placed(p: Placement) -> str:
    return f"[{p.place}{', WRONG' if p.wrong else ''}: {p.reason} ({p.evidence or NO_EVIDENCE})]"


def _show_lint(found: Lint) -> None:
    """What is wrong, off the fast place or costly there, the dearest first; then the notes and the verdict."""
    from deploy.targets.placement import grouped

    for members in grouped([*found.off, *found.costly]):
        first, op = members[0], members[0].operator
        share = sum(p.operator.macs for p in members) / max(found.macs, 1)
        which = ", ".join(str(p.operator.index) for p in members[:8]) + (", ..." if len(members) > 8 else "")
        state = "ERROR" if first.error else "cost" if first.fast else "off"
        words = f"{state:5} {first.place:4}{first.cost:7}{share:7.1%} of MACs  {len(members)} {op.custom or op.name}"
        console.say(f"{words} ({which}): {first.reason} ({first.evidence or NO_EVIDENCE})")
    for note in found.notes:
        console.say(f"note  {note}")
    console.say(
        f"{'ok' if found.holds else 'FAILS'} on {found.target}: {found.off_share:.1%} of {found.macs / 1e6:.3f} MMACs "
        f"off {found.fast_place}, {found.allowed_share:.1%} allowed; {len(found.errors)} errors"
    )


def _show_packed(model: str, model_bytes: int, stored: str, stored_bytes: int) -> None:
    """Both sizes of a model: as the runtime reads it, and as it is stored."""
    share = 1 - stored_bytes / model_bytes
    console.say(
        f"{model}: {model_bytes} bytes; {stored}: {stored_bytes} bytes, "
        f"{abs(share):.1%} {'smaller' if share > 0 else 'larger: its weights need all their bits'}"
    )
