"""`hilnas results` and `hilnas quarantine`: what a store holds, as tables and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, add_json, add_store, bind
from hil.errors import UsageError

if TYPE_CHECKING:
    from hil.measurement import Status
    from hil.results import Result
    from hil.stats import LatencySummary
    from hil.store import Store

ALL = "all"
MOST_PLOTS = 24


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """`model`: a glob over the models' names; `since`: ISO 8601."""

    store: str
    model: str
    board: str | None
    since: str | None
    status: Status | None = None
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class ResultExportOptions(QueryOptions):
    format: str
    out: Path


@dataclass(frozen=True, kw_only=True)
class ResultPlotOptions(QueryOptions):
    """`threshold`: the share by which an occasion may be slower than the first one."""

    threshold: float
    out: Path


@dataclass(frozen=True, kw_only=True)
class QuarantineOptions:
    store: str
    cleared: bool
    json: bool = False


@dataclass(frozen=True, kw_only=True)
class ClearOptions:
    """`model`: the first digits of a model's sha256, or "all"."""

    store: str
    model: str


def add(commands: Commands) -> None:
    _add_results(commands)
    _add_quarantine(commands)


def _add_results(commands: Commands) -> None:
    found = commands.add_parser(
        "results",
        help="what was measured: summaries, and files for other tools",
        description="Reads a store of measurements: summaries of every model, or files for other tools.",
    )
    actions = found.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "median, p90, p95, MAD and 95 %% interval of every model, for each set of conditions"
    query = actions.add_parser("query", help=text, description=sentence(text).replace("%%", "%"))
    query.add_argument("--status", choices=("ok", "failed"), help="failed: in at least one round")
    add_json(query)
    export = actions.add_parser(
        "export",
        help="raw samples, or what pytest-benchmark compares",
        description="csv and parquet: one row per sample, latencies in microseconds. pytest-benchmark: for "
        "`pytest-benchmark compare`, in seconds. Models that failed in a round are left out.",
    )
    export.add_argument("--format", required=True, metavar="NAME", help="csv, parquet or pytest-benchmark")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    plot = actions.add_parser(
        "plot",
        help="latency over time of every model on its board",
        description="Draws the occasions of every model on its board over time: slower ones, changes of the conditions "
        "and of the file are marked. An occasion is compared with the first one under the same conditions, as by "
        "`hilnas regress` with stored samples; it takes 4 rounds or more.",
    )
    plot.add_argument(
        "--threshold",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="slower by more than this share is marked (default %(default)s)",
    )
    plot.add_argument("--out", type=Path, required=True, metavar="FILE.svg", help="the figure to write")
    for action in (query, export, plot):
        add_store(action)
        action.add_argument("--model", default="*", metavar="GLOB", help="over the models' names (default: all)")
        action.add_argument("--board", metavar="NAME", help="a name in boards.toml, or a fleet's")
        action.add_argument("--since", metavar="TIME", help="ISO 8601, in UTC unless it names a zone")
    bind(query, QueryOptions, query_results)
    bind(export, ResultExportOptions, export_results)
    bind(plot, ResultPlotOptions, plot_results)


def _add_quarantine(commands: Commands) -> None:
    kept = commands.add_parser(
        "quarantine",
        help="models that crashed, hung or took a board down",
        description="Models that crashed, hung or took a board down are not run again under the same conditions until "
        "they are cleared.",
    )
    actions = kept.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "which models, under which conditions, why and since when"
    listing = actions.add_parser("list", help=text, description=sentence(text))
    add_store(listing)
    listing.add_argument("--cleared", action="store_true", help="also those that were cleared")
    add_json(listing)
    bind(listing, QuarantineOptions, list_quarantine)
    clear = actions.add_parser("clear", help="let models run again", description="Lets models run again.")
    clear.add_argument("model", nargs="?", default=ALL, metavar="SHA", help="6 or more digits (default: all models)")
    add_store(clear)
    bind(clear, ClearOptions, clear_quarantine)


def open_store(where: str | Path) -> Store:
    """To write to: a path or a URL. A path's folder is made where there is none."""
    from hil.database import is_url
    from hil.store import Store

    if not is_url(where):
        Path(where).parent.mkdir(parents=True, exist_ok=True)
    return Store(where)


def query_results(options: QueryOptions) -> int:
    found = _wanted(options)
    if options.json:
        console.say_json([result.to_json() for result in found])
    else:
        _show(found)
    return 0


def export_results(options: ResultExportOptions) -> int:
    from deploy.formats.files import write_atomically
    from hil.export import FORMATS, export

    if options.format not in FORMATS:
        raise UsageError(f"--format {options.format}: no such format; there are {', '.join(FORMATS)}")
    found = _wanted(options)
    write_atomically(options.out, export(found, options.format))
    measured = [result.latency.n for result in found if result.latency]
    failed = f"; {len(found) - len(measured)} that failed left out" if len(found) > len(measured) else ""
    console.say(f"{options.out}: {sum(measured)} samples of {len(measured)} models{failed}")
    return 0


def plot_results(options: ResultPlotOptions) -> int:
    """Also says which models are slower in their last occasion."""
    from deploy.formats.plots.figures import check_image
    from deploy.formats.plots.svg import write_svg
    from deploy.regression.history import histories
    from deploy.regression.history_plot import history_plot, slower_text

    check_image(options.out, "--out")
    found = histories((m for result in _wanted(options) for m in result.measurements), options.threshold)
    if len(found) > MOST_PLOTS:
        raise UsageError(f"{len(found)} models: at most {MOST_PLOTS} fit into a figure; choose by --model and --board")
    write_svg(options.out, [history_plot(one, options.threshold) for one in found], columns=min(2, len(found)))
    console.say(f"{options.out}: {sum(len(one.occasions) for one in found)} occasions of {len(found)} models")
    for one in found:
        last = one.occasions[-1]
        if last.slower:
            console.say(
                f"SLOWER  {one.model} on {one.board}: {slower_text(last)} since {one.first_like(last).at:%Y-%m-%d}"
            )
    return 0


def list_quarantine(options: QuarantineOptions) -> int:
    from hil.store import Store

    with Store(options.store, create=False) as store:
        rows = [row for row in store.quarantines() if options.cleared or row.cleared_at is None]
    if options.json:
        console.say_json([asdict(row) for row in rows])
        return 0
    for row in rows:
        cleared = f", cleared {row.cleared_at}" if row.cleared_at else ""
        model = f"{row.model_sha256[:12]} {row.model or '(never measured)'}, conditions {row.conditions_key}"
        console.say(f"{model}, since {row.since}{cleared}: {row.reason}")
    if not rows:
        console.say("no model is in quarantine")
    return 0


def clear_quarantine(options: ClearOptions) -> int:
    from hil.store import Store

    which = None if options.model == ALL else options.model
    with Store(options.store, create=False) as store:
        cleared = store.clear(which)
    if which is not None and not cleared:
        raise UsageError(f"{which}: no such model in quarantine: see `hilnas quarantine list`")
    console.say(f"{cleared} cleared")
    return 0


def _wanted(options: QueryOptions) -> list[Result]:
    from hil.results import Wanted, moment, results
    from hil.store import Store

    since = moment(options.since) if options.since else None
    wanted = Wanted(model=options.model, board=options.board, status=options.status, since=since)
    with Store(options.store, create=False) as store:
        return results(store.all(), wanted)


def _show(found: Sequence[Result]) -> None:
    """One row per model and conditions; below, why the failed ones failed."""
    from deploy.cli.profile_table import flags_cell
    from hil.names import told_apart
    from hil.results import days

    names = told_apart([result.known for result in found])
    rows = []
    for name, result in zip(names, found, strict=True):
        flags = flags_cell(result.flags, len(result.measurements))
        model = f"{name} {result.conditions.input_shapes}".strip()
        which = (model, result.conditions.board, result.conditions.key(), days(result.measurements))
        rows.append((*which, *_numbers(result.latency), flags))
    numbers = ("median ms", "95 % interval", "p90 ms", "p95 ms", "MAD us", "n")
    left = ("board", "conditions", "measured", "flags")
    console.table(("model", "board", "conditions", "measured", *numbers, "flags"), rows, left)
    for name, result in zip(names, found, strict=True):
        if result.reason is not None:
            console.say(f"{name} failed on {result.conditions.board}: {result.reason}")


def _numbers(s: LatencySummary | None) -> tuple[str, ...]:
    from hil.stats import milliseconds

    if s is None:
        return ("failed", *[""] * 5)
    median, low, high, p90, p95 = map(milliseconds, (s.median_us, *s.ci95_us, s.p90_us, s.p95_us))
    return median, f"{low} - {high}", p90, p95, f"{s.mad_us:.3g}", str(s.n)
