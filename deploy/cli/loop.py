"""`hilnas loop`, `demo`, `teacher`, `distil`, `agree`, `retrain` and `report`: the stages of a run, and its results."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.options import Commands, bind
from deploy.cli.runs import RunOptions, add_agreement, add_run, open_run, view_run
from hil.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from deploy.run.context import Context
    from deploy.run.records import AgreementRecord, ModelRecord, Regrets, Summary
    from hil.measurement import Conditions

LAST = "ship"
EVERY_STAGE = "run every stage of a configuration (demo: generated scenes)"
STAGE_COMMANDS = {
    "teacher": "trains the network that the blocks learn from",
    "distil": "trains every block's supernet on the teacher's feature maps",
    "agree": "measures full models and compares them with the latency table's sums; exits 1 if tau-b is below the gate",
    "retrain": "trains the selected architectures on the task, and the teacher on by the same recipe",
}


@dataclass(frozen=True, kw_only=True)
class LoopOptions(RunOptions):
    """`until`: the last stage to run; `explain`: what would run, and why, instead of running it."""

    until: str | None = None
    explain: bool = False


@dataclass(frozen=True, kw_only=True)
class StageOptions(RunOptions):
    """`command`: a stage's name."""

    command: str


@dataclass(frozen=True, kw_only=True)
class AgreeOptions(RunOptions):
    """`plot`: the image to draw, by its extension."""

    plot: Path | None = None


def add(commands: Commands) -> None:
    loop = add_run(
        commands.add_parser(
            "loop",
            help=EVERY_STAGE,
            description="Runs every stage that is not done under the present settings: teacher, distil, tables, "
            "profile (every subnet on the board), agree (full models on the board), search, retrain, ship. It may be "
            "stopped at any time: the same command goes on.",
        )
    )
    loop.add_argument(
        "--until", metavar="STAGE", help="stop after this stage (teacher, distil, tables, profile, agree, search, ...)"
    )
    demo = add_run(
        commands.add_parser(
            "demo",
            help=EVERY_STAGE,
            description="Runs the demo: images of generated scenes and a loopback board, or the --data given.",
        )
    )
    for whole in (loop, demo):
        add_agreement(whole)
        whole.add_argument(
            "--explain", action="store_true", help="run nothing: show for each stage whether it will run, and why"
        )
        bind(whole, LoopOptions, run_loop)
    for name, text in STAGE_COMMANDS.items():
        stage = add_run(
            commands.add_parser(
                name,
                help="the loop up to that stage",
                description=f"Runs the loop up to the stage '{name}', which {text}.",
            )
        )
        if name in ("agree", "retrain"):
            add_agreement(stage)
        if name == "agree":
            stage.add_argument("--plot", type=Path, metavar="FILE", help="draw predicted against measured (.svg)")
            bind(stage, AgreeOptions, run_agree)
        else:
            bind(stage, StageOptions, run_stage)


def run_loop(options: LoopOptions) -> int:
    from deploy.pipeline.loop import STAGES

    until = options.until or LAST
    if until not in STAGES:
        raise UsageError(f"--until {until}: no such stage; there are {', '.join(STAGES)}")
    if options.explain:
        return _explain(options, until)
    if until != LAST:
        console.say(f"stages up to {until} are done in {_follow(options, until)}")
        return 0
    return finish(options, run=True)


def _explain(options: LoopOptions, until: str) -> int:
    """For each stage up to `until` whether it will run, and which setting changed since. Changes nothing."""
    from deploy.pipeline.explain import explain

    found = explain(view_run(options))
    names = [one.stage for one in found]
    if until not in names:
        raise UsageError(f"--until {until}: the configuration has no such stage; it has {', '.join(names)}")
    shown = found[: names.index(until) + 1]
    if options.json:
        console.say_json([asdict(one) for one in shown])
    else:
        for one in shown:
            console.say(str(one))
    return 0


def run_stage(options: StageOptions) -> int:
    folder = _follow(options, options.command)
    console.say(f"{options.command} is done in {folder}")
    return 0


def run_agree(options: AgreeOptions) -> int:
    """`CheckFailed` where the gate does not hold."""
    from deploy.formats.plots.figures import check_image
    from deploy.latency.gate import check_gate
    from deploy.latency.scatter import write_image
    from deploy.latency.watermark import watermark
    from deploy.run.records import AgreementRecord

    if options.plot:
        check_image(options.plot)
    folder = _follow(options, "agree")
    record = AgreementRecord.read(folder / AgreementRecord.FILE)
    if options.plot:
        write_image(options.plot, record, watermark(record.conditions))
    if options.json:
        console.say_json(record.to_json())
    else:
        show_agreement(record)
        console.say(f"predicted against measured: {options.plot or folder / 'agreement.html'}")
    check_gate(record.gate)
    return 0


def _follow(options: RunOptions, until: str) -> Path:
    """Run the loop; the run's folder."""
    with open_run(options) as context:
        _run_stages(context, until)
        return context.path


def _run_stages(context: Context, until: str) -> None:
    from deploy.pipeline.loop import loop, stages_until

    console.follow(loop(context, until), stages_until(context, until))


def finish(options: RunOptions, *, run: bool = False) -> int:
    """Write and show the finished run's summary, and draw its report; `run`: after all its stages.

    `CheckFailed` if its bundle is not verified, a model does not keep its budget, or a budget has no model.
    """
    from deploy.pipeline.summary import summarize_run
    from deploy.report.finish import report_run
    from deploy.ship.budgets import check_budgets, check_missed

    with open_run(options) as context:
        if run:
            _run_stages(context, LAST)
        summary, folder = summarize_run(context), context.path
        console.follow(report_run(context, summary))
    if options.json:
        console.say_json(summary.to_json())
    else:
        show_summary(summary, folder)
    if not summary.bundle.verified:
        raise CheckFailed(f"{summary.bundle.path}: not verified on {summary.bundle.board}; see `hilnas bundle verify`")
    check_budgets(summary.budgets)
    check_missed(summary.missed)
    return 0


def show_summary(summary: Summary, folder: Path) -> None:
    """The end of the main job."""
    from deploy.latency.gate import gate_text
    from deploy.run.records import TailRecord
    from deploy.search.estimates import split_half_text
    from deploy.ship.budgets import verdict_text
    from deploy.ship.differences import difference_text, measured_text, on_board_text
    from deploy.ship.tail_text import tail_lines
    from nas.table import Table

    _show_watermark(summary.conditions)
    _show_models(summary)
    console.say(measured_text(summary.all_models))
    for m in summary.models:
        console.say(f"  {m.name}: {m.subnet}{f' ({m.scheme})' if m.scheme else ''}")
        if m.against_teacher_plus:
            console.say(f"  {m.name}: {difference_text(m.against_teacher_plus)}")
        if m.board:
            console.say(f"  {m.name}: {on_board_text(m.board, summary.conditions.board)}")
    for limit in summary.budgets:
        console.say(verdict_text(limit))
    for budget in summary.missed:
        console.say(f"budget {budget.name}: no model; {budget.reason}")
    off = ", ".join(f"{m.name} {_off_text(m)}" for m in summary.all_models)
    console.say(f"multiply-accumulates, expected by the target's rules: {off}")
    if (tail := folder / TailRecord.FILE).exists():
        for line in tail_lines(TailRecord.read(tail)):
            console.say(line)
    a, c, counts, bundle = summary.agreement, summary.correction, summary.counts, summary.bundle
    console.say(
        f"agreement: tau-b {a.tau_b:.3f} [{a.ci95[0]:.3f}, {a.ci95[1]:.3f}] over {a.n_models} full models "
        f"(noise ceiling {a.ceiling_tau_b:.3f}); corrected, held out: {c.tau_b_held_out:.3f}, "
        f"error {c.error_before:.1f} % -> {c.error_held_out:.1f} %"
    )
    console.say(
        f"subnets: {counts.subnets_compiled} compiled, {counts.subnets_measured} measured, "
        f"{counts.subnets_exact_parity} byte for byte the integer simulation's"
    )
    nsr = folder / "tables" / "nsr.parquet"
    if reliability := split_half_text(Table.load(nsr)) if nsr.exists() else "":
        console.say(reliability)
    console.say(gate_text(summary.gate))
    verdict = f"verified on {bundle.board}" if bundle.verified else f"NOT verified on {bundle.board}"
    console.say(f"bundle: {bundle.path} ({bundle.model}), {verdict}")
    console.say(
        f"report: {folder / 'report.html'}; summary: {folder / summary.FILE}; "
        f"{summary.seconds['total']:.0f} s of work in all"
    )


def _show_models(summary: Summary) -> None:
    from deploy.ship.differences import board_text

    name = summary.metric.name
    scores = (f"{name} FP32 %", f"{name} INT8 %", f"{name} board %")
    columns = ("model", *scores, "weights kB", "bits req./stored/exec.", "latency ms", "p90 ms", "runs")
    rows = []
    for m in summary.all_models:
        bits = (m.requested_bits, m.stored_bits, m.executed_bits)
        numbers = (f"{m.score_fp32:.2f}", f"{m.score_int8:.2f}", board_text(m), f"{m.size_bits / 8000:.1f}")
        latency = (f"{m.latency_us.median / 1000:.3f}", f"{m.latency_us.p90 / 1000:.3f}", str(m.latency_us.n))
        rows.append((m.name, *numbers, " / ".join(", ".join(map(str, b)) if b else "?" for b in bits), *latency))
    console.table(columns, rows)


def _off_text(m: ModelRecord) -> str:
    """The share of a model's multiply-accumulates off the target's fast place."""
    placed = m.placement
    return f"{placed.off_share:.1%} off {placed.target}'s {placed.fast_place}" if placed else "?"


def _show_watermark(conditions: Conditions) -> None:
    from deploy.latency.watermark import watermark

    if text := watermark(conditions):
        console.say(text)


def show_agreement(record: AgreementRecord) -> None:
    """How the latency table's sums rank and predict full models, the worst predictions, and the gate.

    Below the gate also what the errors follow.
    """
    from deploy.latency.gate import gate_text
    from deploy.latency.suspects import repair_text, suspect_text

    _show_watermark(record.conditions)
    a, c = record.agreement, record.correction
    console.say(
        f"tau-b {a.tau_b:.4f} [{a.ci95[0]:.4f}, {a.ci95[1]:.4f}] over {a.n_models} models, "
        f"noise ceiling {a.ceiling_tau_b:.4f}, Spearman {a.spearman:.4f}"
    )
    console.say(
        f"top-{a.top_k} recall {a.top_recall:.3f} [{a.top_recall_ci95[0]:.3f}, {a.top_recall_ci95[1]:.3f}], "
        f"mean error {a.error_percent:.2f} % after a constant of {a.offset_us:.0f} us"
    )
    console.say(f"regret of the pick under a budget of {record.regret.quantity}: {_regret(record.regret)}")
    for left_out in record.excluded:
        console.say(f"excluded: {left_out.subnet}: {left_out.reason}")
    for o in record.offenders:
        console.say(
            f"predicted badly: {o.subnet} predicted {o.predicted_us / 1000:.3f} ms, "
            f"measured {o.measured_us / 1000:.3f} ms ({o.residual_percent:+.1f} %)"
        )
    for repaired in record.repairs:
        console.say(f"repaired: {repair_text(repaired)}")
    for suspect in record.suspects if a.tau_b < record.gate.tau else ():
        console.say(f"the errors follow {suspect_text(suspect)}")
    console.say(
        f"correction {'applied' if c.applied else 'not applied'}: held-out tau-b {c.tau_b_held_out:.4f}, "
        f"mean error {c.error_before:.2f} % before, {c.error_held_out:.2f} % after"
    )
    if record.with_feedback:
        console.say(f"regret with the correction, held out: {_regret(record.with_feedback.regret)}")
    console.say(gate_text(record.gate))


def _regret(regret: Regrets) -> str:
    each = ", ".join(f"{budget.percent:.1f} % at {budget.quantile:.0%}" for budget in regret.budgets)
    return f"{each}; worst {regret.worst_percent:.1f} %"
