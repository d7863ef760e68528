"""`hilnas lcpaq run MODEL --data ...`: bit widths for each layer of the user's own network."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.calibrating import CalibrationOptions, add_cut, add_preprocessing, image_preprocessing, prepared
from deploy.cli.quantize import SCHEMES
from deploy.cli.runs import RunOptions
from hil.errors import UsageError

if TYPE_CHECKING:
    from deploy.lcpaq.objectives import Loss
    from deploy.lcpaq.own_data import Labels, OwnData
    from deploy.lcpaq.own_network import OwnNetwork
    from deploy.lcpaq.records import ComparedWidth, WidthComparison
    from nas.quant.scheme import Rounding

OF_RUNS = {
    "config": "--config",
    "name": "--name",
    "settings": "--set",
    "encoder_from": "--encoder-from",
    "device": "--device",
}


@dataclass(frozen=True, kw_only=True)
class OwnOptions(RunOptions):
    """Besides those of a run, the options of a model file; see the help of each.

    Attributes:
        file: None: a network of a run.
        out: the folder for everything.
        scheme: of the file; rounding: of weights.
        loss: what the bits are to keep.
        calibration_images: at most.
        pack: the file is written packed, too.
        outputs, input, input_shapes, preprocessing, mean, std, size, colours: as of `CalibrationOptions`.
    """

    file: Path | None = None
    out: Path | None = None
    scheme: str = SCHEMES[0]
    rounding: Rounding = "adaptive all"
    loss: Loss = "auto"
    calibration_images: int = CalibrationOptions.images
    pack: bool = False
    outputs: str | None = None
    input: str | None = None
    input_shapes: tuple[str, ...] = ()
    preprocessing: Path | None = None
    mean: str | None = None
    std: str | None = None
    size: str | None = None
    colours: str | None = None


def add_own_network(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help="your own network: .onnx, .keras, .h5, float .tflite, or the folder of a SavedModel, with --data as "
        "`hilnas quantize` takes it and --out (default: a network of a run)",
    )
    own = action.add_argument_group("of MODEL")
    own.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder for records and files; the command goes on there"
    )
    own.add_argument(
        "--scheme",
        default=SCHEMES[0],
        choices=SCHEMES,
        help="of the file, as of `hilnas quantize` (default %(default)s)",
    )
    own.add_argument(
        "--rounding",
        default=OwnOptions.rounding,
        choices=("adaptive all", "adaptive", "nearest"),
        help="of weights: to the least error of each layer's output, also at 8 bits or below them alone; or to nearest "
        "(default %(default)s)",
    )
    own.add_argument(
        "--loss",
        default=OwnOptions.loss,
        choices=("auto", "labels", "outputs"),
        help="what the bits are to keep: the task's loss on labels, or the float network's outputs (default auto: "
        "labels where the data has some that the outputs fit)",
    )
    own.add_argument(
        "--calibration-images",
        type=int,
        default=OwnOptions.calibration_images,
        metavar="N",
        help="that ranges are of, at most (default %(default)s)",
    )
    own.add_argument("--pack", action="store_true", help="write the packed form too, beside the .tflite file")
    add_cut(own)
    add_preprocessing(action)


def check_without_a_file(options: OwnOptions) -> None:
    """`UsageError` for an option that only a model file has."""
    of_runs = {field.name for field in fields(RunOptions)}
    for field in fields(OwnOptions):
        if field.name not in of_runs and getattr(options, field.name) != field.default:
            name = field.name.replace("_", "-").replace("shapes", "shape")
            raise UsageError(f"--{name}: of a model file: give MODEL too")


@contextmanager
def own_network(options: OwnOptions, file: Path, kind: str) -> Iterator[OwnNetwork]:
    """The network of a file, for a `kind` of sensitivity; its folder is locked.

    Raises `UsageError`, `ModelError` before anything is written.
    """
    from deploy.compile.scheme import QuantizationScheme
    from deploy.lcpaq.objectives import objective_of
    from deploy.lcpaq.own_data import OwnData
    from deploy.lcpaq.own_network import OwnNetwork
    from deploy.quantize.scheme_option import OWN
    from deploy.run.folder import locked

    for name, option in OF_RUNS.items():
        if getattr(options, name):
            raise UsageError(f"{option}: of a run, and {file} is a network of its own: leave it out")
    if options.data is None or options.out is None:
        missing = "--data, as `hilnas quantize` takes it" if options.data is None else "--out DIR"
        raise UsageError(f"{file}: give {missing}")
    wanted = _calibration(options, file, options.data)
    network, calibration = prepared(wanted)
    data = OwnData(network, options.data, image_preprocessing(wanted), wanted.seed)
    objective = objective_of(data, _labels(data, options.loss), options.loss, kind)
    scheme, choices = QuantizationScheme.parse(options.scheme), replace(OWN, rounding=options.rounding)
    subject = OwnNetwork(file.stem, data, calibration, objective, scheme, choices, options.out)
    with closing(locked(options.out, "give another --out")):
        yield subject


def _calibration(options: OwnOptions, file: Path, data: str) -> CalibrationOptions:
    return CalibrationOptions(
        model=file,
        data=data,
        outputs=options.outputs,
        input=options.input,
        input_shapes=options.input_shapes,
        images=options.calibration_images,
        seed=options.seed or 0,
        preprocessing=options.preprocessing,
        mean=options.mean,
        std=options.std,
        size=options.size,
        colours=options.colours,
    )


def _labels(data: OwnData, loss: Loss) -> Labels | UsageError:
    """Why there are none is warned of where nobody asked for the outputs."""
    from deploy.lcpaq.own_data import labels_of
    from nas.data import DATASETS

    try:
        return labels_of(data)
    except UsageError as error:
        if loss == "auto" and data.spec.partition(":")[0] in DATASETS:
            console.warn(f"{error}: the bits keep the outputs instead")
        return error


def show_widths(record: WidthComparison) -> None:
    """The policy's bits beside others, as a table."""
    columns = ("weights kB", "of INT8", "file kB", "packed kB", "noise dB")
    metric = (f"{record.metric} %",) if record.metric else ()
    console.table(("", *columns, *metric), list(_rows(record)))
    console.say(f"noise of the outputs over {record.noise_images} examples, against the float network")
    if record.metric:
        console.say(f"{record.metric} on {record.validation_images} validation images")


def _rows(record: WidthComparison) -> Iterator[tuple[str, ...]]:
    int8 = next(width.size_bits for width in record.widths if width.name == "INT8")
    if record.float_metric is not None:
        yield "float", *[""] * 5, f"{record.float_metric:.2f}"
    for width in record.widths:
        yield _row(width, int8)


def _row(width: ComparedWidth, int8: int) -> tuple[str, ...]:
    sizes = (f"{width.size_bits / 8e3:.1f}", f"{width.size_bits / int8:.1%}")
    files = (f"{width.file_bytes / 1e3:.1f}", f"{width.packed_bytes / 1e3:.1f}")
    metric = () if width.metric is None else (f"{width.metric:.2f}",)
    return width.name, *sizes, *files, f"{width.noise_db:.1f}", *metric
