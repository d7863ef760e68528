"""`hilnas quantize --scheme auto`: schemes tried on the user's network, and the one chosen of them written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.calibrating import CalibrationOptions, image_preprocessing, prepared, shown
from deploy.cli.options import DEFAULT_STORE, TARGETS, add_boards, add_store, add_targets, arguments
from hil.errors import ModelError, UsageError

if TYPE_CHECKING:
    import argparse

    from deploy.formats.importers.network import ImportedNetwork
    from deploy.formats.tflite.operators import Ends
    from deploy.quantize.calibration_data import CalibrationData
    from deploy.quantize.labelled import LabelledImages
    from deploy.quantize.record import NetworkOrigin
    from deploy.quantize.scheme_trials import Criteria, NetworkOnData, SchemeTrial
    from deploy.quantize.schemes import SchemeTrials, TriedScheme
    from deploy.targets.placement import Target
    from hil.boards.config import BoardConfig
    from nas.estimate import Estimate
    from nas.tasks.counted import Counted

AUTO = "auto"
FORMATS = ("tflite", "tflite,onnx")
CHANGE = "less float"


@dataclass(frozen=True, kw_only=True)
class CriteriaOptions:
    """What schemes are chosen by; see the help of each option, None: not given.

    Attributes:
        labelled: spec of a data set.
        labelled_images: how many of it at most.
        metric_drop: points.
        keep_float: how many layers stay in float.
        store: of the board's measurements.
    """

    labelled: str | None = None
    labelled_images: int = 200
    metric_drop: float | None = None
    target: str | None = None
    targets: Path = TARGETS
    board: str | None = None
    boards: Path | None = None
    keep_float: int | None = None
    store: str = DEFAULT_STORE


@dataclass(frozen=True, kw_only=True)
class ChoosingOptions(CriteriaOptions, CalibrationOptions):
    """`scheme`: of the file, or `AUTO`; `graph_io`: type of its input and outputs; `format`: one of `FORMATS`."""

    scheme: str
    graph_io: Ends = "quantized"
    format: str = FORMATS[0]

    @property
    def onnx(self) -> bool:
        """Whether the file is written as QDQ ONNX too."""
        return self.format == FORMATS[1]

    @property
    def chooses(self) -> bool:
        """Whether there is anything to choose or to choose by."""
        asked = (self.labelled, self.metric_drop, self.keep_float, self.board)
        return self.scheme == AUTO or any(option is not None for option in asked)


def add_criteria(command: argparse.ArgumentParser) -> None:
    criteria = command.add_argument_group("what schemes are chosen by, beside the noise of the outputs")
    criteria.add_argument(
        "--labelled",
        metavar="SPEC",
        help="a data set whose validation images give the metric (default: --data, if it is one that fits)",
    )
    criteria.add_argument(
        "--labelled-images",
        type=int,
        default=CriteriaOptions.labelled_images,
        metavar="N",
        help="so many of them at most (default %(default)s)",
    )
    criteria.add_argument(
        "--metric-drop",
        type=float,
        metavar="POINTS",
        help="the fastest whose metric is at most so much below the float network's (default: the fastest)",
    )
    criteria.add_argument(
        "--keep-float",
        type=int,
        metavar="N",
        help="so many layers stay in float, those that gain most by it; with --metric-drop only if they are needed",
    )
    criteria.add_argument(
        "--target",
        metavar="NAME",
        help="whose rules say where operators will run, and whose arithmetic gives the golden outputs, which of uint8 "
        "are not a CPU's; what it cannot run is refused (imx8mp-vx, cpu-xnnpack, yours; default: the board's)",
    )
    add_targets(criteria)
    criteria.add_argument("--board", metavar="NAME", help="measure the latency of each there (default: none)")
    add_boards(criteria)
    add_store(criteria)


def choose_scheme(options: ChoosingOptions, out: Path, *, json: bool) -> int:
    """Try them, show them, write the chosen one into `out`. Raises `CheckFailed` where none is good enough."""
    from deploy.quantize.files import write_files
    from deploy.quantize.float_layers import check_count
    from deploy.quantize.output_noise import float_answers
    from deploy.quantize.scheme_trials import NetworkOnData
    from deploy.quantize.schemes import SchemeTrials, choose
    from nas.tasks.counted import score_of

    _check(options)
    board, target = _board_and_target(options)
    network, data = prepared(options)
    if options.keep_float is not None:
        check_count(network, options.keep_float)
    labelled = _labelled(options, network)
    float_counts = labelled.float_counts() if labelled else None
    with _criteria(options, board, target, labelled, float_counts) as (criteria, scratch):
        batches, name = list(data.batches()), options.model.stem
        answers, origin = float_answers(network, batches), origin_of(options, data, target)
        subject = NetworkOnData(network, name, batches, data.text, answers, origin)
        trials = _tried(options, subject, criteria, scratch)
    tried = tuple(trial.tried for trial in trials)
    forced = options.keep_float is not None and options.metric_drop is None
    best = choose(tried[-1:] if forced else tried, options.metric_drop)
    chosen = next(trial for trial in trials if trial.tried is best)
    assert chosen.quantized is not None  # noqa: S101 (only failures have none)
    record = SchemeTrials(
        model=name,
        data=data.text,
        chosen=best.option,
        tried=tried,
        labelled=labelled.text if labelled else None,
        float_metric=score_of(float_counts) if float_counts else None,
        metric_drop=options.metric_drop,
        in_float=chosen.option.in_float,
        target=target.name if target else None,
        board=board.name if board else None,
    )
    artifact = write_files(chosen.quantized, out, name, data, origin=origin, target=target, onnx=options.onnx)
    record.write(out / SchemeTrials.FILE)
    if json:
        console.say_json(record.to_json())
    else:
        _show(record, labelled.metric if labelled else "", artifact.model)
        say_onnx(options, artifact.model)
    return 0


def say_onnx(options: ChoosingOptions, model: Path) -> None:
    """The line about the ONNX file beside `model`, if it was asked for."""
    from deploy.formats.onnx.writer import OPSET
    from deploy.quantize.quantized import ONNX

    if options.onnx:
        beside = model.with_suffix(ONNX)
        size_kb = beside.stat().st_size / 1e3
        console.say(
            f"{beside}: {size_kb:.0f} kB, the same integers as QDQ ONNX (opset {OPSET}), of the same golden pair"
        )


def origin_of(options: ChoosingOptions, data: CalibrationData, target: Target | None) -> NetworkOrigin:
    """What the files that these options write are made from."""
    from deploy.quantize.files import digest_of
    from deploy.quantize.record import NetworkOrigin

    named = replace(options, model=Path(options.model.name))
    words = arguments(named, leave_out=("out", "targets", "boards", "store", "json"))
    command = shlex.join(["hilnas", "quantize", *words, "--out", "DIR"])
    return NetworkOrigin(
        options.model.name, digest_of(options.model), data.images, target.name if target else None, command
    )


def _check(options: ChoosingOptions) -> None:
    if options.metric_drop is not None and not options.metric_drop >= 0:
        raise UsageError(f"--metric-drop {options.metric_drop:g}: give points, 0 or more")
    if options.labelled_images < 1:
        raise UsageError(f"--labelled-images {options.labelled_images}: give at least 1")
    if options.metric_drop is not None and _spec(options) is None:
        raise UsageError("--metric-drop: there is no metric without labelled data; give --labelled SPEC")


def _spec(options: ChoosingOptions) -> str | None:
    """Of the labelled data: as it is named, or what the network is calibrated on."""
    from nas.data import DATASETS

    return options.labelled or (options.data if options.data.partition(":")[0] in DATASETS else None)


def _tried(options: ChoosingOptions, subject: NetworkOnData, criteria: Criteria, scratch: Path) -> list[SchemeTrial]:
    """All that are asked for, and at last the one of them that would be chosen with layers in float."""
    from deploy.compile.scheme import QuantizationScheme
    from deploy.quantize.float_layers import images_of, layers_to_keep
    from deploy.quantize.scheme_option import OPTIONS, SchemeOption
    from deploy.quantize.scheme_trials import try_schemes
    from deploy.quantize.schemes import choose

    tried = OPTIONS if options.scheme == AUTO else (SchemeOption(QuantizationScheme.parse(options.scheme)),)
    asked = [replace(option, ends=options.graph_io) for option in tried]
    trials = console.followed(try_schemes(subject, scratch, criteria, asked))
    if options.keep_float is None:
        return trials
    best = choose([trial.tried for trial in trials])
    trial = next(trial for trial in trials if trial.tried is best)
    assert trial.quantized is not None  # noqa: S101 (only failures have none)
    inputs = images_of(trial.quantized, subject.batches)
    kept = console.followed(layers_to_keep(trial.quantized, inputs, options.keep_float))
    option = replace(trial.option, in_float=kept)
    return trials + console.followed(try_schemes(subject, scratch / "in-float", criteria, [option]))


def _board_and_target(options: ChoosingOptions) -> tuple[BoardConfig | None, Target | None]:
    """The target is the board's, if no other is named."""
    from deploy.targets.placement import load_target
    from hil.boards.catalog import find_board

    board = find_board(options.boards, options.board) if options.board else None
    name = options.target or (board.target if board else None)
    return board, load_target(options.targets, name) if name else None


def _labelled(options: ChoosingOptions, network: ImportedNetwork) -> LabelledImages | None:
    """What is named, or the data that it is calibrated on; a warning where that has labels of something else."""
    from deploy.quantize.labelled import labelled_images

    spec = _spec(options)
    if spec is None:
        return None
    try:
        images = image_preprocessing(options)
        return labelled_images(spec, network, images, options.labelled_images, seed=options.seed)
    except ModelError as error:
        if options.labelled or options.metric_drop is not None:
            raise
        console.warn(f"no metric: {error}")
        return None


@contextmanager
def _criteria(
    options: ChoosingOptions,
    config: BoardConfig | None,
    target: Target | None,
    labelled: LabelledImages | None,
    float_counts: Counted | None,
) -> Iterator[tuple[Criteria, Path]]:
    """what there is to choose by; and a folder for the files. A board's rounds are durable in the store."""
    import tempfile
    from contextlib import ExitStack
    from functools import partial

    from deploy.cli.results import open_store
    from deploy.compile.canary import known_good
    from deploy.quantize.scheme_trials import PROTOCOL, Criteria
    from hil.boards.kinds import open_board
    from hil.measure import measure
    from hil.sessions import open_session

    with ExitStack() as stack:
        scratch, run = Path(stack.enter_context(tempfile.TemporaryDirectory())), None
        if config is not None:
            store = stack.enter_context(open_store(options.store))
            session = stack.enter_context(open_session(stack.enter_context(open_board(config))))
            run = partial(measure, session, protocol=PROTOCOL, store=store, canary=known_good(scratch))
        yield Criteria(target, labelled, float_counts, run), scratch


# What is shown


def _show(record: SchemeTrials, metric: str, model: Path) -> None:
    """The table without the columns that nobody asked for."""
    of_float: dict[str, str] = {"scheme": "float", metric: _points(record.float_metric)}
    rows = ([of_float] if record.float_metric else []) + [_row(one, metric, record) for one in record.tried]
    scored = [metric, CHANGE] if record.labelled else []
    columns = ["scheme", "noise dB", "kB", *scored, "% off the fast place", "latency ms", "95 %", ""]
    kept = [column for column in columns if any(row.get(column) for row in rows)]
    console.table(kept, [[row.get(column, "") for column in kept] for row in rows], left=("",))
    console.say(f"{model}: {record.chosen}, calibrated on {record.data}")
    if record.in_float:
        console.say(f"in float: {', '.join(shown(name) for name in record.in_float)}")
    if record.labelled:
        console.say(f"{metric}: of {record.labelled}, by this machine's runtime")
    console.say(f"chosen: {_reason(record)}; {model.parent / record.FILE} has all of it")


def _row(one: TriedScheme, metric: str, record: SchemeTrials) -> dict[str, str]:
    latency = one.latency_us
    return {
        "scheme": one.option,
        "noise dB": "" if one.noise_db is None else f"{one.noise_db:.1f}",
        "kB": "" if one.size_bytes is None else f"{one.size_bytes / 1e3:.0f}",
        metric: _points(one.metric),
        CHANGE: ""
        if one.change is None
        else f"{one.change.value:+.2f} ({one.change.low:+.2f} to {one.change.high:+.2f})",
        "% off the fast place": "" if one.off_share is None else f"{100 * one.off_share:.1f}",
        "latency ms": "" if latency is None else f"{latency.value / 1e3:.3f}",
        "95 %": "" if latency is None else f"{latency.low / 1e3:.3f} to {latency.high / 1e3:.3f}",
        "": one.failure or ("chosen" if one.option == record.chosen else ""),
    }


def _points(metric: Estimate | None) -> str:
    return "" if metric is None else f"{metric.value:.2f}"


def _reason(record: SchemeTrials) -> str:
    """By what the one was chosen."""
    if record.in_float and record.metric_drop is None:
        return "as asked"
    if record.board:
        fastest = f"the fastest on {record.board}"
    elif record.target:
        fastest = f"the least work off the fast place of {record.target}"
    else:
        fastest = "with neither a board nor a target, as exact as any"
    if record.metric_drop is not None:
        return f"{fastest}, within {record.metric_drop:g} points of the float network"
    return f"{fastest}; of those alike the most exact"
