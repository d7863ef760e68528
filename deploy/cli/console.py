"""What a person sees: progress while it works, tables when it is done. Quiet where nobody watches."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable

from deploy.latency.gate import gate_text
from deploy.latency.watermark import watermark
from deploy.run.folder import Progress
from deploy.run.records import GateRecord
from deploy.ship.report import bits_text, metric_of, off_text
from nas.settings import build

if TYPE_CHECKING:
    from deploy.regression.regress import Outcome
    from deploy.targets.inspection import Inspection, Operator
    from deploy.targets.placement import Lint, Placement
    from hil.boards.config import BoardConfig
    from hil.health import Finding
    from hil.measurement import Measurement
    from hil.regression import Comparison
    from nas.table import Table

out = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
lines = Console(highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """One plain line on stdout."""
    print(line, flush=True)


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """A bar for each stage on a terminal; elsewhere a line on stderr when a stage starts and ends."""
    if not sys.stderr.isatty():
        yield lambda p: print(f"{p.stage}: {p.text}", file=sys.stderr) if p.text in ("starts", "done") else None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.fields[stage]:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.description}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(p: Progress) -> None:
            if p.stage not in tasks:
                tasks[p.stage] = bars.add_task("", stage=p.stage, total=p.total)
            total = None if p.text == "starts" else p.total
            bars.update(tasks[p.stage], completed=p.done, total=total, description=p.text[:48])

        yield show


def _models_table(models: Sequence[Mapping[str, Any]], metric: Mapping[str, str]) -> RichTable:
    table = RichTable(title=None)
    name, key = metric["name"], metric["key"]
    judged = (f"{name} FP32 %", f"{name} INT8 %")
    for column in ("model", *judged, "weights kB", "bits req./stored/exec.", "latency ms", "p90 ms", "runs"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for m in models:
        latency = m["latency_us"]
        table.add_row(
            m["name"],
            f"{m[f'{key}_fp32']:.2f}",
            f"{m[f'{key}_int8']:.2f}",
            f"{m['size_bits'] / 8000:.1f}",
            bits_text(m),
            f"{latency['median'] / 1000:.3f}",
            f"{latency['p90'] / 1000:.3f}",
            str(latency["n"]),
        )
    return table


def summary(record: Mapping[str, Any], folder: Path) -> None:
    """The end of the main job."""
    _say_watermark(record["conditions"])
    out.print(_models_table([record["teacher"], *record["models"]], metric_of(record)))
    for m in record["models"]:
        lines.print(f"  {m['name']}: {m['subnet']}{_scheme(m)}")
    off = ", ".join(f"{m['name']} {off_text(m)}" for m in (record["teacher"], *record["models"]))
    lines.print(f"multiply-accumulates, expected by the target's rules: {off}", markup=False)
    a, c, counts, bundle = (record[k] for k in ("agreement", "correction", "counts", "bundle"))
    lines.print(
        f"agreement: tau-b {a['tau_b']:.3f} [{a['ci95'][0]:.3f}, {a['ci95'][1]:.3f}] over {a['n_models']} whole "
        f"models (noise ceiling {a['ceiling_tau_b']:.3f}); with feedback, held out: {c['tau_b_held_out']:.3f}, "
        f"error {c['error_before']:.1f} % -> {c['error_held_out']:.1f} %",
        markup=False,
    )
    lines.print(
        f"subnets: {counts['subnets_compiled']} compiled, {counts['subnets_measured']} measured, "
        f"{counts['subnets_exact_parity']} byte for byte the integer simulation's"
    )
    if "gate" in record:
        say(gate_text(build(GateRecord, record["gate"], "gate")))
    verdict = f"verified on {bundle['board']}" if bundle["verified"] else f"NOT verified on {bundle['board']}"
    lines.print(f"bundle: {bundle['path']} ({bundle['model']}), {verdict}")
    lines.print(
        f"report: {folder / 'report.html'}; summary: {folder / 'summary.json'}; "
        f"{record['seconds']['total']:.0f} s of work in all"
    )


def _say_watermark(conditions: Mapping[str, Any]) -> None:
    if text := watermark(conditions):
        say(text)


def agreement(record: Mapping[str, Any]) -> None:
    _say_watermark(record.get("conditions", {}))
    a, c = record["agreement"], record["correction"]
    say(
        f"tau-b {a['tau_b']:.4f} [{a['ci95'][0]:.4f}, {a['ci95'][1]:.4f}] over {a['n_models']} models, "
        f"noise ceiling {a['ceiling_tau_b']:.4f}, Spearman {a['spearman']:.4f}"
    )
    say(
        f"top-{a['top_k']} recall {a['top_recall']:.3f} "
        f"[{a['top_recall_ci95'][0]:.3f}, {a['top_recall_ci95'][1]:.3f}], "
        f"mean error {a['error_percent']:.2f} % after a constant of {a['offset_us']:.0f} us"
    )
    say(f"regret of the pick under a budget of {record['regret']['quantity']}: {_regret(record['regret'])}")
    for left_out in record["excluded"]:
        say(f"excluded: {left_out['subnet']}: {left_out['reason']}")
    for o in record["offenders"]:
        say(
            f"told badly: {o['subnet']} predicted {o['predicted_us'] / 1000:.3f} ms, "
            f"measured {o['measured_us'] / 1000:.3f} ms ({o['residual_percent']:+.1f} %)"
        )
    say(
        f"feedback {'applied' if c['applied'] else 'not applied'}: held-out tau-b {c['tau_b_held_out']:.4f}, "
        f"mean error {c['error_before']:.2f} % before, {c['error_held_out']:.2f} % after"
    )
    if record["with_feedback"]:
        say(f"regret with feedback, held out: {_regret(record['with_feedback']['regret'])}")
    say(gate_text(build(GateRecord, record["gate"], "gate")))


def _regret(regret: Mapping[str, Any]) -> str:
    said = ", ".join(f"{budget['percent']:.1f} % at {budget['quantile']:.0%}" for budget in regret["budgets"])
    return f"{said}; worst {regret['worst_percent']:.1f} %"


def found(record: Mapping[str, Any]) -> None:
    if record["gate"]["override"]:
        say(gate_text(build(GateRecord, record["gate"], "gate")))
    say(f"front: {len(record['pareto_front'])} architectures over (NSR, latency)")
    for entry in record["selected"]:
        say(
            f"{entry['name']}: {entry['subnet']} nsr {entry['nsr']:.4f} "
            f"predicted {entry['predicted_us'] / 1000:.3f} ms weights {entry['size_bits'] / 8000:.1f} kB"
            f"{_scheme(entry)}"
        )


def searched(record: Mapping[str, Any]) -> None:
    """The answer of `hilnas search` with a question (deploy/search/query.py)."""
    say(
        f"front: {record['front']} of {record['architectures']:.3g} architectures over "
        f"({', '.join(record['objectives'])}), in {record['seconds']:.3f} s; costs are of {record['of']}"
    )
    for rank, entry in enumerate(record["found"], start=1):
        say(f"{rank}: {_costs(entry)}")
    for name in record.get("stale", ()):
        say(f"left out: lcpaq {name}, refined for another search or other bits; hilnas lcpaq refine --model {name}")
    proof = record.get("proof")
    if proof:
        say(
            f"proof: {proof['sub_spaces']} sub-spaces with {proof['architectures']} architectures and "
            f"{proof['queries']} budgets against brute force, {proof['sampled']} random architectures against the "
            f"front: {proof['difference'] or 'no difference'}"
        )


def searched_for_devices(record: Mapping[str, Any]) -> None:
    """The answer for several devices (deploy/search/devices.py)."""
    searched(record)
    for name, device in record["devices"].items():
        say(f"{name} alone: {_costs(device['alone'])}; sharing costs {device['sharing_costs_nsr']:.4f} of NSR")


def _costs(entry: Mapping[str, Any]) -> str:
    costs = [f"nsr {entry['nsr']:.4f}"] if "nsr" in entry else []
    costs += [f"weights {entry['size_bits'] / 8000:.1f} kB"] if "size_bits" in entry else []
    for key, value in entry.items():
        plain, _, device = key.partition("@")
        if plain == "latency_us":
            costs.append(f"predicted {value / 1000:.3f} ms{' on ' + device if device else ''}")
    return f"{entry['subnet']} {' '.join(costs)}{_scheme(entry)}"


def _scheme(entry: Mapping[str, Any]) -> str:
    """Of an entry that says its scheme: there are several."""
    return f" ({entry['scheme']})" if "scheme" in entry else ""


def table(entries: Table, path: Path) -> None:
    values = sorted((entry.value, str(subnet)) for subnet, entry in entries.entries.items())
    say(f"{path}: {len(values)} entries, {entries.quantity} in {entries.unit}")
    for (value, subnet), what in zip(
        (values[0], values[len(values) // 2], values[-1]), ("smallest", "median", "largest"), strict=True
    ):
        say(f"  {what:>8} {value:.6g} {subnet}")


def _delegated(measurement: Measurement) -> str:
    """How much of a model the delegate took: "1 part" when all."""
    parts = f"{measurement.delegated_nodes} part{'s' if measurement.delegated_nodes != 1 else ''}"
    left = measurement.cpu_operators
    return f"{parts}; on the CPU: {', '.join(sorted(set(left)))} ({len(left)})" if left else parts


def profile(measurements: Sequence[Measurement], as_json: bool) -> None:
    from deploy.latency.table import summaries

    if as_json:
        print(json.dumps([m.to_json() for m in measurements], indent=1))
        return
    well = [m for m in measurements if m.failure is None]
    if not well:
        return
    _say_watermark(well[0].conditions.to_json())
    medians = summaries(well)
    shown = RichTable()
    for column in ("model", "median ms", "95 % interval", "p90 ms", "runs", "first ms", "on the delegate"):
        shown.add_column(column, justify="left" if column == "model" else "right", overflow="fold")
    for name, s in medians.items():
        one = next(m for m in well if m.model == name)
        delegated = "-" if one.conditions.delegate == "none" else _delegated(one)
        interval = f"{s.ci95_us[0] / 1000:.3f} - {s.ci95_us[1] / 1000:.3f}"
        numbers = (
            f"{s.median_us / 1000:.3f}",
            interval,
            f"{s.p90_us / 1000:.3f}",
            str(s.n),
            f"{one.first_us / 1000:.2f}",
        )
        shown.add_row(name, *numbers, delegated)
    out.print(shown)
    c = well[0].conditions
    say(
        f"on {c.board} ({c.soc or c.machine}), {c.runtime}, kernels {c.kernels}, threads {c.threads}, "
        f"delegate {c.delegate}"
    )


def board(config: BoardConfig, who_has: str) -> None:
    """One line; `who_has` is empty where nobody asked."""
    where = {
        "ssh": f"{config.user}@{config.host}:{config.port}",
        "labgrid": f"place {config.place}",
        "replay": f"recorded in {config.store}",
    }.get(config.kind, "this machine")
    words = {"fleet": config.fleet, "delegate": config.delegate, **config.labels}
    said = "".join(f"  {name} {value}" for name, value in words.items() if value)
    say(f"{config.name:12} {config.kind:10} {where}{said}{'  ' + who_has if who_has else ''}")


def finding(found: Finding) -> None:
    state = {"ok": "ok", "advice": "note", "failed": "FAIL"}[found.state]
    say(f"{state:5}{found.check:11}{found}")


def regression(outcome: Outcome) -> None:
    state = {"ok": "ok", "regressed": "SLOWER", "failed": "FAILS", "incomparable": "?"}[outcome.status]
    if outcome.first is None:
        say(f"{state:7} {outcome.model}: {outcome.failure or outcome.gap}")
        return
    shown = [_comparison(c) for c in (outcome.first, outcome.second) if c is not None]
    heard = "; the second measuring: ".join(shown) + (f"; {outcome.failure}" if outcome.failure else "")
    say(f"{state:7} {outcome.model} ({outcome.against}): {heard}; allowed {1 + outcome.first.threshold:.3f}")


def _comparison(c: Comparison) -> str:
    return (
        f"{c.head_us / 1000:.3f} ms against {c.base_us / 1000:.3f} ms, ratio {c.ratio:.3f} "
        f"[{c.ci95[0]:.3f}, {c.ci95[1]:.3f}], p {c.p_value:.2g}"
    )


def inspection(name: str, model: Inspection, placements: Sequence[Placement]) -> None:
    """One line an operator, and the totals; `placements` is empty where no target was asked for."""
    for end, word in (*((e, "in") for e in model.inputs), *((e, "out") for e in model.outputs)):
        scale = f"scale {end.scale[0]:.6g} zero point {end.zero_point[0]}" if len(end.scale) == 1 else "not quantized"
        say(f"{word:4}{end.name} {list(end.shape)} {end.dtype}, {scale if len(end.scale) < 2 else 'per channel'}")
    if model.signatures:
        say(f"signatures: {', '.join(model.signatures)}")
    if model.hilnas is not None:
        say(f"hilnas: {json.dumps(model.hilnas, sort_keys=True)}")
    for op, placement in itertools.zip_longest(model.operators, placements):
        say(_operator(op) + (f"  {_placed(placement)}" if placement else ""))
    kinds = ", ".join(f"{n} {kind}" for kind, n in model.operators_by_kind.items())
    say(f"{len(model.operators)} operators: {kinds}")
    if model.subgraphs > 1:
        say(f"only the first of {model.subgraphs} subgraphs is shown")
    widths = (model.requested_bits, model.stored_bits, model.executed_bits)
    said = zip(("requested", "stored", "executed"), widths, strict=True)
    bits = ", ".join(f"{word} {' and '.join(map(str, found or ())) or 'unknown'}" for word, found in said)
    say(f"bits of the weights: {bits}")
    say(
        f"{name}: {model.file_bytes / 1000:.1f} kB, weights {model.weight_bytes / 1000:.1f} kB, "
        f"{model.parameters} parameters, {model.macs / 1e6:.3f} MMACs"
    )


def packed(model: str, model_bytes: int, stored: str, stored_bytes: int) -> None:
    """Both sizes of a model: as the runtime reads it, and as it is stored."""
    share = 1 - stored_bytes / model_bytes
    say(
        f"{model}: {model_bytes} bytes; {stored}: {stored_bytes} bytes, "
        f"{abs(share):.1%} {'smaller' if share > 0 else 'larger: its weights need all their bits'}"
    )


def _operator(op: Operator) -> str:
    def by(size: Sequence[int] | None) -> str:
        return "x".join(map(str, size or ())) or "scalar"

    maps = [f"{'+'.join(map(by, shapes))}" for shapes in (op.input_shapes, op.output_shapes)]
    dtypes = ["+".join(dict.fromkeys(d)) for d in (op.input_dtypes, op.output_dtypes)]
    said = [
        f"{op.index:4} {op.custom or op.name} v{op.version} {' -> '.join(maps)} {' -> '.join(dict.fromkeys(dtypes))}"
    ]
    if op.weight_bits:
        said.append(f"weights {op.weight_bits} bits {op.granularity or 'not quantized'}, {op.weight_bytes} B")
    window = ((op.kernel, "kernel"), (op.stride, "stride"), (op.dilation, "dilation"))
    said += [f"{word} {by(size)}" for size, word in window if size and (word == "kernel" or size != (1, 1))]
    said += [f"scale {op.resize}, {op.centers}"] if op.resize else []
    said += [op.activation] if op.activation != "NONE" else []
    said += [f"{op.macs / 1e6:.3f} MMACs"] if op.macs else []
    return "; ".join(said)


def _placed(p: Placement) -> str:
    return f"[{p.place}{', WRONG' if p.wrong else ''}: {p.reason} ({p.evidence or 'nothing known'})]"


def lint(found: Lint) -> None:
    """What leaves the fast place, most of the work first; then the errors, the notes and the verdict."""
    from deploy.targets.placement import grouped

    for (place, name, reason), members in grouped(found.off).items():
        share = sum(p.operator.macs for p in members) / max(found.macs, 1)
        which = ", ".join(str(p.operator.index) for p in members[:8]) + (", ..." if len(members) > 8 else "")
        state = "ERROR" if members[0].error else "off"
        evidence = members[0].evidence or "nothing known"
        say(f"{state:5} {place:4}{share:7.1%} of MACs  {len(members)} {name} ({which}): {reason} ({evidence})")
    for note in found.notes:
        say(f"note  {note}")
    say(
        f"{'ok' if found.holds else 'FAILS'} on {found.target}: {found.off_share:.1%} of {found.macs / 1e6:.3f} MMACs "
        f"off {found.fast_place}, {found.allowed_share:.1%} allowed; {len(found.errors)} errors"
    )
