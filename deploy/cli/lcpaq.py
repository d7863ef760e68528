"""`hilnas lcpaq sensitivity|solve|refine|proxy|run`: bit widths for each layer of a trained network.

It is a run's, or of a file (`own_lcpaq`). Each action but `proxy`, which needs a policy, runs those before it where
they are not done under the present settings; what was finished is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli import console
from deploy.cli.calibrating import shown
from deploy.cli.help import sentence
from deploy.cli.options import Commands, bind
from deploy.cli.own_lcpaq import OwnOptions, add_own_network, check_without_a_file, own_network, show_widths
from deploy.cli.runs import add_run, load, open_run
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.lcpaq.records import (
        Perturbations,
        ProxyRecord,
        RefineRecord,
        SensitivityRecord,
        ShippedRecord,
        SolveRecord,
        StepRecords,
    )
    from deploy.lcpaq.settings import StepSettings
    from deploy.run.context import Context
    from deploy.run.folder import Progress
    from deploy.search.refined import RefinedRecord

ACTIONS = {
    "sensitivity": "how much each layer loses at each width",
    "solve": "the bit widths of least perturbation within the limits, by integer programming",
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
class LcpaqOptions(OwnOptions):
    """Which network, and `deploy.lcpaq.settings.StepSettings` as they are written.

    Attributes:
        action: a key of `ACTIONS`.
        model: the network's name.
        size_limit: as `67%`, `250kB` or `blocks`; bops_limit: as `50%` or `3.2G`; latency_limit: as `90%` or `3.5ms`.
        measure_latency: of every layer, without a limit on it.
        sensitivity: its kind; None: a run's "hessian", a model file's "quadratic".
        bits: of weights, separated by commas; activation_bits: of what a layer reads, None: 8.
        tie_bits: a layer's weights and what it reads have one width.
        all_layers: the first and the last layer may have other widths than 8.
        images: labelled, for the sensitivity; scoring_images: that policies are scored on.
        k: policies of the frontier that are scored.
        trials: of the proxy search; tuning_steps: of a full trial; fix: hyperparameters that it does not search.
        plot: the file of a drawing.
    """

    action: str = "run"
    model: str = "teacher"
    size_limit: str | None = None
    bops_limit: str | None = None
    latency_limit: str | None = None
    measure_latency: bool = False
    sensitivity: str | None = None
    bits: str = "2,3,4,5,6,7,8"
    activation_bits: str | None = None
    tie_bits: bool = False
    all_layers: bool = False
    images: int = 64
    scoring_images: int = 512
    k: int = 8
    trials: int = 40
    tuning_steps: int = 64
    fix: tuple[str, ...] = ()
    plot: Path | None = None


def add(commands: Commands) -> None:
    lcpaq = commands.add_parser("lcpaq", help="bits for each layer of a trained network, by LCPAQ")
    actions = lcpaq.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in ACTIONS.items():
        action = add_run(actions.add_parser(name, help=text, description=sentence(text)))
        _add_settings(action)
        if name != "proxy":  # which trains: a file has no training
            add_own_network(action)
        bind(action, LcpaqOptions, run)


def _add_settings(action: argparse.ArgumentParser) -> None:
    model = (
        "teacher (default), a selected model's name, resnet18, resnet50, or resnet18w16: that with 16 channels for 64"
    )
    action.add_argument("--model", default="teacher", metavar="NAME", help=model)
    limits = action.add_argument_group("limits (default: --size-limit 67%)")
    limits.add_argument(
        "--size-limit", metavar="X", help="67%% of INT8's, 250kB; blocks: what a selected model's block bits take"
    )
    limits.add_argument("--bops-limit", metavar="X", help="50%% of INT8's, or 3.2G bit operations (M, G, T)")
    limits.add_argument("--latency-limit", metavar="X", help="90%% of the layers' sum, or 3.5ms")
    action.add_argument("--measure-latency", action="store_true", help="of every layer, without a limit on it")
    action.add_argument(
        "--sensitivity",
        metavar="KIND",
        help="hessian (default), quadratic (default of a model file), fisher, nsr or sqnr",
    )
    action.add_argument("--bits", default="2,3,4,5,6,7,8", metavar="4,6,8", help="to choose from (%(default)s)")
    action.add_argument(
        "--activation-bits",
        metavar="4,6,8",
        help="of what a layer reads, 4 to 8, to choose from (default 8): fewer save bit operations, for which give "
        "--bops-limit, and no size",
    )
    action.add_argument("--tie-bits", action="store_true", help="a layer's weights and what it reads: one width")
    action.add_argument("--all-layers", action="store_true", help="the first and the last may leave 8 bits too")
    numbers = (
        ("--images", 64, "labelled, for the sensitivity"),
        ("--scoring-images", 512, "held-out ones that policies are scored on, at most"),
        ("--k", 8, "policies of the frontier to score"),
        ("--trials", 40, "of the proxy search"),
        ("--tuning-steps", 64, "of fine-tuning in a full trial"),
    )
    for option, default, text in numbers:
        action.add_argument(option, type=int, default=default, metavar="N", help=f"{text} (default %(default)s)")
    action.add_argument(
        "--fix",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a hyperparameter that the proxy search leaves there, as distillation=0; may be given again; all of them: "
        "nothing is searched, the network ships as they make it",
    )
    action.add_argument("--plot", type=Path, metavar="FILE", help="draw it, beside lcpaq.html (.svg)")


def run(options: LcpaqOptions) -> int:
    """Take the steps, show; the exit code."""
    from deploy.formats.plots.figures import check_image

    settings = _settings(options)
    if options.plot:
        check_image(options.plot)
    folder = _of_a_file(options, options.file, settings) if options.file else _of_a_run(options, settings)
    _show(options, folder)
    return 0


def _of_a_run(options: LcpaqOptions, settings: StepSettings) -> Path:
    """Train what is not trained, take the steps; the folder of the records."""
    from deploy.lcpaq.actions import run_steps, take
    from deploy.lcpaq.run_network import RunNetwork, check_name

    check_without_a_file(options)
    experiment, _ = load(options)
    check_name(experiment, options.model, settings)
    if experiment.quantization.calibration_images < 2:
        console.warn("one calibration image: ranges are that image's; set quantization.calibration_images to 16")
    with open_run(options) as context:
        console.follow(_trained(context, options.model))
        subject = RunNetwork.of(context, options.model)
        console.follow(take(run_steps(options.action, settings), subject, settings))
        if options.action != "proxy":
            _draw(subject.folder, options.plot)
    return subject.folder


def _of_a_file(options: LcpaqOptions, file: Path, settings: StepSettings) -> Path:
    """Likewise."""
    from deploy.lcpaq.actions import OF_A_FILE, take
    from deploy.lcpaq.widths import artifact_of, write_packed

    if options.latency_limit or options.measure_latency:
        raise UsageError(f"--latency-limit, --measure-latency: {file} has no board, which is a run's: leave them out")
    if options.fix:
        raise UsageError(f"--fix: {file} has no proxy search, which trains: leave it out")
    if options.size_limit == "blocks":
        raise UsageError(f"--size-limit blocks: {file} has no block bits; give %, kB or MB")
    with own_network(options, file, settings.kind) as subject:
        console.follow(take(OF_A_FILE[options.action], subject, settings))
        _draw(subject.folder, options.plot)
        if options.action == "run" and options.pack:
            write_packed(artifact_of(subject))
    return subject.folder


def _settings(options: LcpaqOptions) -> StepSettings:
    from deploy.lcpaq.settings import DEFAULT_LIMIT, StepSettings
    from nas.lcpaq.policy import ACTIVATION_BITS, INT8

    given = {"size_bits": options.size_limit, "bops": options.bops_limit, "latency_us": options.latency_limit}
    limits = {name: text for name, text in given.items() if text is not None}
    widths = _widths("--bits", options.bits)
    activation_widths = (INT8,) if not options.tie_bits else tuple(w for w in widths if w in ACTIVATION_BITS)
    if options.activation_bits:
        activation_widths = _widths("--activation-bits", options.activation_bits)
    return StepSettings(
        limits=limits or {"size_bits": DEFAULT_LIMIT},
        kind=options.sensitivity or ("quadratic" if options.file else "hessian"),
        widths=widths,
        exempt_ends=not options.all_layers,
        images=options.images,
        scoring_images=options.scoring_images,
        k=options.k,
        trials=options.trials,
        tuning_steps=options.tuning_steps,
        fixed=tuple(options.fix),
        activation_widths=activation_widths,
        tie_bits=options.tie_bits,
        measure_latency=options.measure_latency,
    )


def _widths(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{option} {text}: write bit widths with commas between, for example 4,6,8")
    return tuple(sorted({int(part) for part in parts}))


def _trained(context: Context, name: str) -> Iterator[Progress]:
    """Train what the network needs, where it is not done; a ResNet needs nothing of the loop."""
    from deploy.lcpaq.resnet import form_in, train_resnet
    from deploy.lcpaq.run_network import TEACHER
    from deploy.pipeline.loop import loop

    if (form := form_in(context.experiment, name)) is not None:
        return train_resnet(context, name, form)
    return loop(context, "teacher" if name == TEACHER else "retrain")


def _draw(folder: Path, plot: Path | None) -> None:
    """lcpaq.html, and `plot`, as far as there is something to draw."""
    from deploy.lcpaq import plots
    from deploy.lcpaq.records import StepRecords

    records = StepRecords.read(folder)
    if records.sensitivity and records.solve:
        drawn = plots.drawn(records.sensitivity, records.solve, records.refine)
        plots.write_page(folder / "lcpaq.html", drawn)
        if plot:
            plots.write_image(plot, drawn)


def _show(options: LcpaqOptions, folder: Path) -> None:
    from deploy.lcpaq.records import StepRecords

    records = StepRecords.read(folder)
    if options.json:
        console.say_json(records.to_json())
    else:
        show_records(options.action, records)
        console.say(f"records in {folder}")


def show_records(action: str, records: StepRecords) -> None:
    """What the steps of an action found."""
    if action == "sensitivity" and records.sensitivity:
        _show_sensitivity(records.sensitivity)
    if action in ("solve", "refine", "run") and records.solve:
        if records.sensitivity and records.sensitivity.loss:
            _show_loss(records.sensitivity)
        _show_solution(records.solve)
    if action in ("refine", "run") and records.refine:
        _show_refinement(records.refine)
    if action in ("refine", "run") and records.blocks:
        _show_blocks(records.blocks)
    if action in ("proxy", "run") and records.proxy:
        _show_proxy(records.proxy)
    if action == "run" and records.shipped:
        _show_shipped(records.shipped)
    if action == "run" and records.widths:
        show_widths(records.widths)


def _show_sensitivity(record: SensitivityRecord) -> None:
    tables: Mapping[str, Perturbations] = {"{} bits": record.layers, "reads {} bits": record.activations or {}}
    columns = [
        (title.format(width), rows, width) for title, rows in tables.items() for width in next(iter(rows.values()), {})
    ]
    console.table(
        ("layer", *(title for title, _, _ in columns)),
        [(shown(name), *(f"{rows[name][width]:.3g}" for _, rows, width in columns)) for name in record.layers],
    )
    _show_loss(record)


def _show_loss(record: SensitivityRecord) -> None:
    of = f" of the {record.loss}" if record.loss else ""
    console.say(f"sensitivity: {record.kind}{of}, on {record.images} images, {record.cpu_s:.1f} s of CPU")


def _show_solution(record: SolveRecord) -> None:
    words = (word.rpartition("=") for word in record.policy.split())
    console.say(" ".join(f"{shown(name)}={bits}" for name, _, bits in words))
    for name, value in record.totals.items():
        if name in SHOWN:
            text, unit, symbol = SHOWN[name]
            limit = f", limit {record.limits[name] / unit:.4g} {symbol}" if name in record.limits else ""
            console.say(f"{text} {value / unit:.4g} {symbol}, {value / record.int8[name]:.1%} of INT8's{limit}")
    console.say(f"solved in {record.seconds:.3f} s")


def _show_refinement(record: RefineRecord) -> None:
    rows = []
    for scored in record.scored:
        kept = " (kept)" if scored.policy == record.best else ""
        costs = f"{scored.costs['perturbation']:.4g}", f"{scored.costs['size_bits'] / 8e3:.1f}"
        rows.append((scored.origin + kept, f"{scored.score:.2f}", *costs))
    console.table(("origin", f"{record.metric} {record.unit}", "perturbation", "weights kB"), rows)


def _show_blocks(record: RefinedRecord) -> None:
    """Of a selected model: its NSR in the search's terms."""
    nsr, plain = sum(block.nsr for block in record.blocks), sum(block.plain_nsr for block in record.blocks)
    console.say(f"NSR of the blocks {nsr:.4f}, at the bits that the search gave them {plain:.4f}")


def _show_proxy(record: ProxyRecord) -> None:
    settings: Mapping[str, Any] = asdict(record.best)
    best = ", ".join(f"{name} {value}" for name, value in settings.items())
    console.say(f"settings: {best}: {record.score:.2f} %")
    reached = ", ".join(map(str, record.reached))
    console.say(f"trials on each rung: {reached}; {record.cpu_s:.1f} s of CPU; a grid has {record.grid_settings}")
    for rung in record.agreement:
        if rung.tau_b is not None:
            console.say(f"rung {rung.rung + 1} ranks as the last one: tau-b {rung.tau_b:.2f} over {rung.trials}")


def _show_shipped(record: ShippedRecord) -> None:
    console.say(
        f"validation: {record.int8:.2f} % {record.metric} at the policy, by {record.quantized_by}; "
        f"{record.int8_all8:.2f} % with 8 bits everywhere, {record.fp32:.2f} % in float"
    )
    console.say(f"bundle: {record.bundle}")
