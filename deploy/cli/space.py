"""`hilnas space`: how large a space is, and with its tables what pruning leaves of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.compile import parse_bits
from deploy.cli.options import Commands, add_json, bind
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.search.space_report import SpaceReport


@dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """Which space, and what is reported of it.

    Attributes:
        space: a name or a file.
        bits: weight bit widths in place of the space's.
        tables: a folder with nsr.parquet and others of this space.
        objectives: which of its costs are compared, separated by commas.
    """

    space: Path
    bits: str | None = None
    tables: Path | None = None
    objectives: str | None = None
    json: bool = False


def add(commands: Commands) -> None:
    space = commands.add_parser(
        "space",
        help="how large a space is; with tables, what pruning leaves of it",
        description="Counts subnets and architectures, and the share of them that block-wise search evaluates. "
        "--tables counts each block's Pareto-optimal subnets, what these can form, and the exact Pareto front too.",
    )
    space.add_argument("space", type=Path, metavar="NAME|FILE", help="table1, demo, ..., or a TOML file")
    space.add_argument("--bits", metavar="4,6,8", help="weight bit widths (default: the space's)")
    space.add_argument(
        "--tables", type=Path, metavar="DIR", help="nsr.parquet, and size and latency where they are: RUN/tables"
    )
    space.add_argument("--objectives", metavar="A,B", help="of nsr,size,latency: what pruning compares (default: all)")
    add_json(space)
    bind(space, SpaceOptions, run)


def run(options: SpaceOptions) -> int:
    """Count and show; the exit code."""
    from deploy.run.records import plain
    from deploy.run.shipped import load_space
    from deploy.search.cost_tables import cost_tables_of_folder
    from deploy.search.space_report import space_report

    if options.objectives is not None and options.tables is None:
        raise UsageError("--objectives goes with --tables: without them nothing is compared")
    space = load_space(options.space)
    if options.bits is not None:
        space = replace(space, bits=parse_bits(options.bits, space))
    tables = cost_tables_of_folder(options.tables, space) if options.tables is not None else None
    report = space_report(space, tables, options.objectives.split(",") if options.objectives else ())
    if options.json:
        console.say_json(plain(report))
    else:
        show_space(report)
    return 0


def show_space(report: SpaceReport) -> None:
    """The space, block by block and in all."""
    bits = ", ".join(map(str, report.bits))
    console.say(
        f"{report.space} ({report.digest}): {len(report.blocks)} blocks, {report.layers} layers of "
        f"{len(report.choices)} choices ({' '.join(report.choices)}), weight bits {bits}, "
        f"output stride {report.output_stride}"
    )
    _show_blocks(report)
    several = len(report.bits) > 1
    console.say(_evaluated(report.subnets, report.architectures, report.reduction, "at one bit width"))
    if several:
        console.say(
            _evaluated(
                report.subnets_with_bits, report.architectures_with_bits, report.reduction_with_bits, "with bits"
            )
        )
    if pruned := report.pruning:
        before, after = _short(report.architectures_with_bits), _short(pruned.architectures)
        console.say(
            f"Pareto-optimal over ({', '.join(pruned.objectives)}): {report.subnets_with_bits} -> {pruned.subnets} "
            f"subnets, {before} -> {after} architectures; {pruned.front} of them on the exact Pareto front"
        )


def _evaluated(subnets: int, architectures: int, reduction: float, which: str) -> str:
    return (
        f"{which}: {_short(architectures)} architectures; block-wise search evaluates {subnets} subnets instead, "
        f"{_short(reduction)} as many"
    )


def _short(number: float) -> str:
    """1.0e14; small counts as they are."""
    if isinstance(number, int) and number < 10_000:
        return str(number)
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"


def _show_blocks(report: SpaceReport) -> None:
    several, pruned = len(report.bits) > 1, report.pruning
    columns = ["block", "stride", "channels", "dilation", "layers", "the teacher's", "subnets"]
    columns += ["with bits"] * several + ["reduction (Eq. 2)"] + ["Pareto-optimal"] * (pruned is not None)
    rows = []
    for b in report.blocks:
        row = [b.block, b.stride, b.channels, b.dilation, b.layers, b.teacher, b.subnets]
        row += [b.subnets_with_bits] * several
        optimal = [] if b.pareto_optimal is None else [str(b.pareto_optimal)]
        rows.append([*map(str, row), _short(b.reduction), *optimal])
    teacher_layers = sum(b.teacher_layers for b in report.blocks)
    total = ["all", "", "", "", str(report.layers), str(teacher_layers), str(report.subnets)]
    total += [str(report.subnets_with_bits)] * several
    total += [_short(report.reduction)] + ([str(pruned.subnets)] if pruned else [])
    console.table(columns, [*rows, total])
