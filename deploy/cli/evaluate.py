"""`hilnas evaluate`: a model's metric on a split of a data set, from a board's own answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console, evaluation_table
from deploy.cli.model_files import add_input_shapes, measurable
from deploy.cli.options import Commands, add_boards, add_json, bind
from deploy.cli.profiling import ON_A_BOARD
from deploy.cli.runs import RunOptions, view_run
from hil.errors import ModelError, UsageError

if TYPE_CHECKING:
    from deploy.formats.tflite.normalization import Normalization
    from deploy.run.context import Context
    from deploy.ship.evaluate import Finished
    from deploy.ship.evaluated_models import ImagesAsked
    from hil.boards.config import BoardConfig


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """None leaves what a run has.

    Attributes:
        subject, against: a .tflite file, or the folder of a finished run.
        model: which of a run's models; None: the bundle's.
        board: None: no board, what this machine simulates alone.
        images: how many; None: all.
        normalize: how pixels become a file's input, "MEAN,STD" or "MEAN,MEAN,MEAN,STD,STD,STD".
        input_shapes: of a file that leaves sizes open, "NAME=1x224x224x3".
        out: the folder of evaluations; each has its own in it.
    """

    subject: Path
    against: Path | None = None
    model: str | None = None
    data: str | None = None
    split: str = "val"
    board: str | None = None
    boards: Path | None = None
    images: int | None = None
    seed: int | None = None
    normalize: str | None = None
    input_shapes: tuple[str, ...] = ()
    config: Path | None = None
    out: Path
    retry_failed: bool = False
    json: bool = False


def add(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help=ON_A_BOARD,
        description="Sends the images of a split to a board in batches and evaluates the board's answers by the task's "
        "metric, beside the integer simulation and the float network (of a file alone: beside this machine's runtime). "
        "Without --board these alone. It may be stopped at any time: the same command goes on. Exits 4 if the board "
        "fails on an image.",
    )
    evaluate.add_argument(
        "subject", type=Path, metavar="MODEL|RUN", help="a .tflite file, or the folder of a finished run"
    )
    evaluate.add_argument("--model", metavar="NAME", help="of a run: which model (default: the one that it shipped)")
    evaluate.add_argument(
        "--against", type=Path, metavar="MODEL|RUN", help="another model, evaluated on the same images and compared"
    )
    evaluate.add_argument(
        "--data",
        metavar="SPEC",
        help="scenes, camvid:FOLDER, cityscapes:FOLDER, shapes or folders:FOLDER (default: the run's)",
    )
    evaluate.add_argument("--split", default="val", metavar="NAME", help="train, val or test (default %(default)s)")
    evaluate.add_argument("--images", type=int, metavar="N", help="so many, evenly spaced (default: all)")
    evaluate.add_argument("--seed", type=int, metavar="N", help="of generated images (default: the run's, or 0)")
    evaluate.add_argument(
        "--board",
        default=os.environ.get("HILNAS_BOARD"),
        metavar="NAME",
        help="a name in --boards (default: none, only what this machine simulates)",
    )
    add_boards(evaluate)
    evaluate.add_argument(
        "--normalize",
        metavar="MEAN,STD",
        help="a file's input is (pixel - MEAN) / STD, pixels from 0 to 255; three of each for R, G and B",
    )
    add_input_shapes(evaluate)
    evaluate.add_argument(
        "--config",
        type=Path,
        metavar="NAME|FILE",
        help="of a run: its configuration (default: the demo's for its data)",
    )
    evaluate.add_argument(
        "--out",
        type=Path,
        default=Path(os.environ.get("HILNAS_RUNS", "runs")) / "evaluations",
        metavar="DIR",
        help="the folder of evaluations; each has its own there (default %(default)s)",
    )
    evaluate.add_argument("--retry-failed", action="store_true", help="run images again that the board failed on")
    add_json(evaluate)
    bind(evaluate, EvaluateOptions, run)


def run(options: EvaluateOptions) -> int:
    """Evaluate and show. Raises `ModelError` naming the first image that a device failed on."""
    from deploy.ship.evaluate import compared
    from deploy.ship.evaluation_record import EvaluationRecord
    from hil.boards.catalog import find_board

    context = _context(options, options.subject)
    images = _images(options, context)
    if options.board and "," in options.board:
        raise UsageError(f"--board {options.board}: images go to one board; name one")
    board = find_board(options.boards, options.board) if options.board else None
    finished, folder = _finished(options, options.subject, context, images, board)
    every = [finished]
    if options.against:
        other = replace(options, model=None)
        theirs, _ = _finished(other, options.against, _context(options, options.against), images, board)
        every.append(theirs)
        finished = replace(finished, record=replace(finished.record, against=compared(finished, theirs)))
        finished.record.write(folder / EvaluationRecord.FILE)
    if options.json:
        console.say_json(finished.record.to_json())
    else:
        evaluation_table.show(finished.record)
        console.say(f"written to {folder}")
    for one in every:
        _require_all(one)
    return 0


def _require_all(finished: Finished) -> None:
    """Raises `ModelError` where images failed."""
    record, scores = finished.record, finished.evaluated.scores
    if record.failed:
        first = record.failed[0]
        raise ModelError(
            f"{record.model}: {len(record.failed)} of {len(scores)} images failed and count in no score; first "
            f"{first.image}: {first.reason}; evaluation.json names all, --retry-failed runs them again"
        )


# The model and its images


def _context(options: EvaluateOptions, subject: Path) -> Context | None:
    """The run, as it stands, of a folder that is one; None for a file, or a bundle's folder.

    Raises `UsageError` for what is neither, and where the run's configuration is not known.
    """
    from deploy.run.records import FinalRecord
    from deploy.ship.manifest import Manifest
    from hil.boards.catalog import all_boards

    if not subject.exists():
        raise UsageError(f"{subject}: no such file or folder; give a .tflite file or the folder of a run")
    if subject.is_file() or (subject / Manifest.FILE).is_file():
        return None
    if not (subject / FinalRecord.FILE).is_file():
        raise UsageError(f"{subject}: no finished run there; run `hilnas loop` to its end, or give a .tflite file")
    for given, option in ((options.normalize, "--normalize"), (options.input_shapes, "--input-shape")):
        if given:
            raise UsageError(f"{option} is for a file alone: a run's models take images as they were trained on")
    unit = FinalRecord.read(subject / FinalRecord.FILE).conditions.unit
    made_with = RunOptions(
        config=options.config,
        data=options.data or _recorded_data(subject),
        board=unit if unit in all_boards(options.boards) else None,
        boards=options.boards,
        name=subject.absolute().name,
        runs_dir=subject.absolute().parent,
    )
    return view_run(made_with)


def _recorded_data(run: Path) -> str | None:
    """The spec of the data that the run was made with."""
    from deploy.run.records import RunState

    path = run / RunState.FILE
    stages = RunState.read(path).stages.values() if path.is_file() else ()
    found = (stage.settings.get("data.spec") for stage in stages)
    return next((spec for spec in found if isinstance(spec, str)), None)


def _images(options: EvaluateOptions, context: Context | None) -> ImagesAsked:
    from deploy.ship.evaluated_models import ImagesAsked

    if context is None:
        if not options.data:
            raise UsageError(f"{options.subject}: which images? give --data (scenes, camvid:FOLDER, ...)")
        return ImagesAsked(options.data, options.split, options.seed or 0, options.images)
    experiment = context.experiment
    counts = {"train": experiment.data.train, "val": experiment.data.val}
    count = counts.get(options.split) if options.images is None else options.images
    seed = experiment.seed if options.seed is None else options.seed
    return ImagesAsked(experiment.data.spec, options.split, seed, count)


def _finished(
    options: EvaluateOptions, subject: Path, context: Context | None, images: ImagesAsked, board: BoardConfig | None
) -> tuple[Finished, Path]:
    """The evaluation of a subject, and its folder."""
    from deploy.ship.evaluate import evaluate, evaluation_folder
    from deploy.ship.evaluated_models import file_model, run_model
    from deploy.ship.manifest import Manifest

    if context:
        model, data = run_model(context, options.model, images, board)
    else:
        if options.model:
            raise UsageError(f"--model {options.model}: {subject} is no run; leave it out")
        path = subject if subject.is_file() else subject / Manifest.read(subject / Manifest.FILE).model
        (shapes,) = measurable([path], options.input_shapes, [board] if board else [])
        model, data = file_model(path, images, _normalization(options.normalize), input_shapes=shapes)
    if options.images is not None and len(data) < options.images:
        console.warn(f"{images.spec}, split {images.split}, has {len(data)} images, fewer than --images")
    folder = evaluation_folder(options.out, model, images, board)
    return console.followed(evaluate(model, data, images, board, folder, retry_failed=options.retry_failed)), folder


def _normalization(text: str | None) -> Normalization | None:
    from deploy.formats.tflite.normalization import Normalization

    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    half = len(numbers) // 2
    mean, std = tuple(numbers[:half]), tuple(numbers[half:])
    if len(numbers) not in (2, 6) or not all(abs(n) < float("inf") for n in numbers) or 0 in std:
        raise UsageError(f"--normalize {text}: give MEAN,STD, or three of each, STD not 0; 127.5,127.5 is -1 to 1")
    return Normalization(mean, std)
