"""`hilnas debug`: a float network, its integers and a board side by side at every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.calibrating import YOUR_NETWORK, CalibrationOptions, add_calibration, calibrated, prepared, shown
from deploy.cli.options import Commands, add_boards, add_json, bind
from deploy.cli.quantize import SCHEMES, add_scheme
from hil.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from deploy.quantize.debug import DebugRecord, IntegerDifference, Values
    from deploy.quantize.quantized import Quantized
    from deploy.targets.placement import Target
    from hil.boards.config import BoardConfig

NOISIEST = 8  # operators that are shown; --json and --out have all


@dataclass(frozen=True, kw_only=True)
class DebugOptions(CalibrationOptions):
    """See the help of each option.

    Attributes:
        board: None: none, float and integers alone.
        compared: examples that are run.
        cut: a file for each tensor, in place of one with all of them as outputs.
        out: the folder for debug.json; None: it is not written. `plot`: likewise a drawing.
    """

    scheme: str = SCHEMES[0]
    board: str | None = None
    boards: Path | None = None
    compared: int = 4
    cut: bool = False
    out: Path | None = None
    plot: Path | None = None
    json: bool = False


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "debug",
        help=YOUR_NETWORK,
        description="Quantizes a network as `hilnas quantize` does, and compares float, integers and (--board) the "
        "board's integers at every tensor. Each operator is looked at alone, too, on what it read there, so that the "
        "one that a board computes otherwise is named, and not all those behind it. Exits 1 if there is one.",
    )
    add_calibration(command)
    add_scheme(command)
    command.add_argument("--board", metavar="NAME", help="a name in --boards (default: none)")
    add_boards(command)
    command.add_argument("--compared", type=int, default=4, metavar="N", help="examples to run (default %(default)s)")
    command.add_argument(
        "--cut",
        action="store_true",
        help="a file for each tensor, which ends there: a delegate may compile a graph otherwise whose tensors are all "
        "outputs",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="write debug.json there")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw the noise along the network (.svg)")
    add_json(command)
    bind(command, DebugOptions, run)


def run(options: DebugOptions) -> int:
    """Compare and show. Raises `CheckFailed` where the board computes an operator otherwise than the simulation."""
    from deploy.compile.artifact import arithmetic_of, kernels_of
    from deploy.formats.plots.figures import check_image
    from deploy.quantize.debug import DebugRecord, operators_of
    from deploy.quantize.debug_plot import write_image

    if options.compared < 1:
        raise UsageError(f"--compared {options.compared}: give at least 1")
    if options.plot:
        check_image(options.plot)
    board, target = _board(options)
    network, data = prepared(options)
    quantized = calibrated(options.scheme, network, data)
    count = min(options.compared, data.count)
    inputs = quantized.inputs(data.example(i) for i in range(count))
    answers = _answers(board, quantized, [q for _, q in inputs], cut=options.cut) if board else None
    applied = kernels_of(quantized.scheme.form, arithmetic_of(target))
    operators = operators_of(quantized.nodes, quantized.graph, inputs, applied, answers)
    record = DebugRecord(options.model.stem, options.scheme, data.text, count, operators, options.board)
    if options.out:
        record.write(options.out / DebugRecord.FILE)
    if options.plot:
        write_image(options.plot, record)
    if options.json:
        console.say_json(record.to_json())
    else:
        _show(record)
    if record.wrong:
        names = ", ".join(shown(one.name) for one in record.wrong[:3])
        more = f" and {len(record.wrong) - 3} more" if len(record.wrong) > 3 else ""
        raise CheckFailed(f"{options.board} computes otherwise than the simulation: {names}{more}")
    return 0


def _board(options: DebugOptions) -> tuple[BoardConfig | None, Target | None]:
    """The board, and the target whose arithmetic it should have."""
    from deploy.targets.placement import load_target
    from hil.boards.catalog import find_board

    if options.board is None:
        return None, None
    board = find_board(options.boards, options.board)
    beside = options.boards.parent / "targets" if options.boards else None
    return board, load_target(beside, board.target) if board.target else None


def _answers(config: BoardConfig, quantized: Quantized, inputs: Sequence[Tensor], *, cut: bool) -> Iterable[Values]:
    """The board's, of every tensor."""
    import tempfile

    from deploy.quantize.board_tensors import board_tensors
    from hil.boards.kinds import open_board
    from hil.sessions import open_session

    with (
        tempfile.TemporaryDirectory() as folder,
        open_board(config) as board,
        open_session(board) as session,
        console.progress(("debug",)) as show,
    ):
        found: list[dict[str, Tensor]] = [{} for _ in inputs]
        form = quantized.scheme.form
        for progress, tensors in board_tensors(session, quantized.graph, form, inputs, Path(folder), cut=cut):
            show(progress)
            for every, more in zip(found, tensors, strict=True):
                every.update(more)
        return found


# What is shown


def _show(record: DebugRecord) -> None:
    console.say(f"{record.model}, {record.scheme}, over {record.images} examples of {record.data}")
    console.say("noise in dB against the float network, and against the float operator on the same integers:")
    rows = [(shown(one.name), one.kind, _db(one.noise_db), _db(one.added_db)) for one in record.noisiest[:NOISIEST]]
    console.table(("adds most noise", "operator", "noise dB", "its own dB"), rows, left=("operator",))
    if record.board is None:
        return
    if not record.wrong:
        console.say(f"{record.board} computes all {len(record.operators)} operators as the simulation does")
        return
    rows = [(shown(one.name), one.kind, _text(one.board_alone), _text(one.board)) for one in record.wrong]
    columns = (f"otherwise on {record.board}", "operator", "alone", "with what is before it")
    console.table(columns, rows, left=columns)


def _db(noise: float | None) -> str:
    return "" if noise is None else f"{noise:.1f}"


def _text(found: IntegerDifference | None) -> str:
    return "" if found is None else f"{100 * found.share:.3g} % of elements, by {found.largest} at most"
