"""`hilnas lcpaq sensitivity|solve|refine|proxy|run`: bits for each layer of a run's trained network.

Each action runs those before it, where they are not done under the present settings; what was finished is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli import console
from deploy.cli.help import sentence
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_run, load, open_run
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.lcpaq.subject import Subject, Wanted
    from deploy.run.context import Context
    from deploy.run.folder import Progress

ACTIONS = {
    "sensitivity": "how much each layer loses at each width",
    "solve": "the bits of least perturbation within the limits, by integer programming",
    "refine": "score the policies around that answer, keep the best",
    "proxy": "search the quantization's hyperparameters for the policy, most trials evaluated at low cost",
    "run": "all of it, then measure and bundle the network",
}
SHOWN = {
    "size_bits": ("weights", 8e3, "kB"),
    "bops": ("bit operations", 1e9, "G"),
    "latency_us": ("latency", 1e3, "ms"),
}


@dataclass(frozen=True, kw_only=True)
class LcpaqOptions(RunOptions):
    """See the help of each option."""

    action: str
    model: str
    size_limit: str | None
    bops_limit: str | None
    latency_limit: str | None
    measure_latency: bool
    sensitivity: str
    bits: str
    activation_bits: str | None
    tie_bits: bool
    all_layers: bool
    images: int
    judged: int
    k: int
    trials: int
    tuning_steps: int
    plot: Path | None


def add(commands: Commands) -> None:
    lcpaq = commands.add_parser("lcpaq", help="bits for each layer of a trained network, by LCPAQ")
    actions = lcpaq.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in ACTIONS.items():
        action = add_run(actions.add_parser(name, help=text, description=sentence(text)))
        model = "teacher (default), a selected model's name, resnet18, or resnet18w16: that with 16 channels for 64"
        action.add_argument("--model", default="teacher", metavar="NAME", help=model)
        limits = action.add_argument_group("limits (default: --size-limit 67%)")
        limits.add_argument("--size-limit", metavar="X", help="67%% of INT8's, 250kB; blocks: a selected model's bits")
        limits.add_argument("--bops-limit", metavar="X", help="50%% of INT8's, or 3.2G bit operations (M, G, T)")
        limits.add_argument("--latency-limit", metavar="X", help="90%% of the layers' sum, or 3.5ms")
        action.add_argument("--measure-latency", action="store_true", help="of every layer, without a limit on it")
        action.add_argument("--sensitivity", default="hessian", metavar="KIND", help="hessian, fisher, nsr or sqnr")
        action.add_argument("--bits", default="2,3,4,5,6,7,8", metavar="4,6,8", help="to choose from (%(default)s)")
        action.add_argument(
            "--activation-bits",
            metavar="4,6,8",
            help="of what a layer reads, 4 to 8, to choose from (default 8): fewer save bit operations, for which give "
            "--bops-limit, and no size",
        )
        action.add_argument("--tie-bits", action="store_true", help="a layer's weights and what it reads: one width")
        action.add_argument("--all-layers", action="store_true", help="the first and the last may leave 8 bits too")
        action.add_argument("--images", type=int, default=64, help="for the sensitivity, labelled (%(default)s)")
        action.add_argument("--judged", type=int, default=512, help="images to score policies on (default %(default)s)")
        action.add_argument("--k", type=int, default=8, help="policies of the frontier to score (default %(default)s)")
        action.add_argument("--trials", type=int, default=40, help="of the proxy search (default %(default)s)")
        action.add_argument("--tuning-steps", type=int, default=64, help="of a full trial (default %(default)s)")
        action.add_argument("--plot", type=Path, metavar="FILE", help="draw it, beside lcpaq.html (.png, .svg)")
        bind(action, LcpaqOptions, run)


def run(options: LcpaqOptions) -> int:
    """Train what is not trained, take the steps, show; the exit code."""
    from deploy.formats.figures import check_image
    from deploy.lcpaq.resnet import width_in
    from deploy.lcpaq.subject import BLOCKS, Subject

    wanted = _wanted(options)
    if options.plot:
        check_image(options.plot)
    experiment, _ = load(options)
    names = ("teacher", *(budget.name for budget in experiment.budgets), "resnet18")
    if options.model not in names and width_in(experiment, options.model) is None:
        raise UsageError(f"--model {options.model}: '{experiment.name}' has {', '.join(names)}")
    if BLOCKS in wanted.limits.values() and options.model not in {budget.name for budget in experiment.budgets}:
        raise UsageError(f"--size-limit {BLOCKS}: {options.model} has no block bits; name a selected model or give %")
    if experiment.quantization.calibration_images < 2:
        console.warn("one calibration image: ranges are that image's; set quantization.calibration_images to 16")
    with open_run(options) as context:
        console.follow(_trained(context, options.model))
        subject = Subject.of(context, options.model)
        console.follow(_steps(options, subject, wanted))
        if options.action != "proxy":
            _draw(subject, options.plot)
    _show(options, subject.folder)
    return 0


def _trained(context: Context, name: str) -> Iterator[Progress]:
    """Train what the network needs, where it is not done; a ResNet18 needs nothing of the loop."""
    from deploy.lcpaq.resnet import train_resnet, width_in
    from deploy.pipeline.loop import loop

    if (width := width_in(context.experiment, name)) is not None:
        return train_resnet(context, name, width)
    return loop(context, "teacher" if name == "teacher" else "retrain")


def _steps(options: LcpaqOptions, subject: Subject, wanted: Wanted) -> Iterator[Progress]:
    from deploy.lcpaq import steps
    from deploy.lcpaq.blocks import judge_blocks
    from deploy.lcpaq.proxy import search_settings
    from deploy.lcpaq.ship import ship

    refined = (steps.sensitivity, steps.solve_policy, steps.refine_policy, judge_blocks)
    of_action = {
        "sensitivity": refined[:1],
        "solve": refined[:2],
        "refine": refined,
        "proxy": (search_settings,),
        "run": (*refined, search_settings, ship),
    }
    if "latency_us" in wanted.limits or options.measure_latency:
        yield from steps.measure_latency(subject)
    for step in of_action[options.action]:
        yield from step(subject, wanted)


def _wanted(options: LcpaqOptions) -> Wanted:
    from deploy.lcpaq.subject import Wanted
    from nas.lcpaq.policy import ACTIVATION_BITS, INT8

    given = {"size_bits": options.size_limit, "bops": options.bops_limit, "latency_us": options.latency_limit}
    limits = {name: text for name, text in given.items() if text is not None}
    widths = _widths("--bits", options.bits)
    activation_widths = (INT8,) if not options.tie_bits else tuple(w for w in widths if w in ACTIVATION_BITS)
    if options.activation_bits:
        activation_widths = _widths("--activation-bits", options.activation_bits)
    return Wanted(
        limits or {"size_bits": "67%"},
        options.sensitivity,
        widths,
        not options.all_layers,
        options.images,
        options.judged,
        options.k,
        trials=options.trials,
        tuning_steps=options.tuning_steps,
        activation_widths=activation_widths,
        tie_bits=options.tie_bits,
    )


def _widths(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{option} {text}: write bit widths with commas between, for example 4,6,8")
    return tuple(sorted({int(part) for part in parts}))


def _records(folder: Path) -> dict[str, Any]:
    from deploy.formats.files import read_json

    names = ("sensitivity", "solve", "refine", "blocks", "proxy", "shipped")
    return {name: read_json(folder / f"{name}.json") for name in names if (folder / f"{name}.json").exists()}


def _draw(subject: Subject, plot: Path | None) -> None:
    """lcpaq.html, and `plot`, as far as there is something to draw."""
    from deploy.lcpaq import plots

    records = _records(subject.folder)
    if not {"sensitivity", "solve"} <= records.keys():
        return
    drawn = plots.drawn(records["sensitivity"], records["solve"], records.get("refine"))
    plots.write_page(subject.folder / "lcpaq.html", drawn)
    if plot:
        plots.write_image(plot, drawn)


def _show(options: LcpaqOptions, folder: Path) -> None:
    records = _records(folder)
    if options.json:
        console.say_json(records)
        return
    if options.action == "sensitivity":
        _show_sensitivity(records["sensitivity"])
    if options.action in ("solve", "refine", "run"):
        _show_solution(records["solve"])
    if options.action in ("refine", "run"):
        _show_refinement(records["refine"])
        _show_blocks(records.get("blocks"))
    if options.action in ("proxy", "run"):
        _show_proxy(records["proxy"])
    if options.action == "run":
        shipped = records["shipped"]
        console.say(
            f"validation: {shipped['int8']:.2f} % {shipped['metric']} at the policy, by {shipped['by']}; "
            f"{shipped['int8_all8']:.2f} % with 8 bits everywhere, {shipped['fp32']:.2f} % in float"
        )
        console.say(f"bundle: {shipped['bundle']}")
    console.say(f"records in {folder}")


def _show_sensitivity(record: Mapping[str, Any]) -> None:
    tables = {"{} bits": record["layers"], "reads {} bits": record.get("activations", {})}
    columns = [(title.format(width), rows, width) for title, rows in tables.items() for width in _first(rows)]
    console.table(
        ("layer", *(title for title, _, _ in columns)),
        [(name, *(f"{rows[name][width]:.3g}" for _, rows, width in columns)) for name in record["layers"]],
    )
    console.say(f"{record['kind']} on {record['images']} images, {record['cpu_s']:.1f} s of CPU")


def _first(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(next(iter(rows.values()), {}))


def _show_solution(record: Mapping[str, Any]) -> None:
    console.say(record["policy"])
    for name, value in record["totals"].items():
        if name in SHOWN:
            text, unit, symbol = SHOWN[name]
            limit = f", limit {record['limits'][name] / unit:.4g} {symbol}" if name in record["limits"] else ""
            share = value / record["int8"][name]
            console.say(f"{text} {value / unit:.4g} {symbol}, {share:.1%} of INT8's{limit}")
    console.say(f"solved in {record['seconds']:.3f} s")


def _show_refinement(record: Mapping[str, Any]) -> None:
    rows = []
    for one in record["scored"]:
        kept = " (kept)" if one["policy"] == record["best"] else ""
        costs = one["costs"]
        weights_kb = f"{costs['size_bits'] / 8e3:.1f}"
        rows.append((one["origin"] + kept, f"{one['score']:.2f}", f"{costs['perturbation']:.4g}", weights_kb))
    console.table(("origin", f"{record['metric']} %", "perturbation", "weights kB"), rows)


def _show_blocks(record: Mapping[str, Any] | None) -> None:
    """Of a found model: what its search would say of it now."""
    if record:
        nsr, plain = (sum(block[name] for block in record["blocks"]) for name in ("nsr", "plain_nsr"))
        console.say(f"NSR of the blocks {nsr:.4f}, at the bits that the search gave them {plain:.4f}")


def _show_proxy(record: Mapping[str, Any]) -> None:
    best = ", ".join(f"{name} {value}" for name, value in record["best"].items())
    console.say(f"settings: {best}: {record['score']:.2f} %")
    reached = ", ".join(map(str, record["reached"]))
    console.say(f"trials on each rung: {reached}; {record['cpu_s']:.1f} s of CPU; a grid has {record['grid_settings']}")
    for one in record["agreement"]:
        if one["tau_b"] is not None:
            console.say(f"rung {one['rung'] + 1} ranks as the last one: tau-b {one['tau_b']:.2f} over {one['trials']}")
