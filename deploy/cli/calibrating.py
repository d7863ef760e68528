"""What commands share that calibrate a float network: which network, on what data, and what becomes of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.compile import parse_size
from deploy.cli.model_files import add_input_shapes, parse_input_shapes
from deploy.cli.options import Parser
from hil.errors import UsageError

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

    from deploy.formats.importers.network import ImportedNetwork
    from deploy.formats.tflite.operators import Ends
    from deploy.quantize.calibration_data import CalibrationData
    from deploy.quantize.image_preprocessing import ImagePreprocessing
    from deploy.quantize.quantized import Quantized
    from deploy.run.folder import Progress

STAGE = "calibrate"
YOUR_NETWORK = "your own network (ONNX, Keras, TFLite) in INT8; what it loses"
LONGEST = 48  # name of a tensor on the screen


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """See the help of each option; None: not given.

    Attributes:
        mean, std: numbers with commas between.
        outputs: names with commas between; `input`: one name.
    """

    model: Path
    data: str
    outputs: str | None = None
    input: str | None = None
    input_shapes: tuple[str, ...] = ()
    images: int = 100
    seed: int = 0
    preprocessing: Path | None = None
    mean: str | None = None
    std: str | None = None
    size: str | None = None
    colours: str | None = None


def add_calibration(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "model", type=Path, metavar="MODEL", help=".onnx, .keras, .h5, float .tflite, or the folder of a SavedModel"
    )
    command.add_argument(
        "--data",
        required=True,
        metavar="SPEC|FOLDER|FILE.npz|random",
        help="what to calibrate on: a data set (scenes, camvid:FOLDER, ...; its training images), a folder of images, "
        "one array by the name of the input, as the network reads it; random: seeded noise, for a first look only",
    )
    add_cut(command)
    command.add_argument(
        "--images",
        type=int,
        default=CalibrationOptions.images,
        metavar="N",
        help="so many at most, evenly spaced (default %(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of generated data (default %(default)s)")
    add_preprocessing(command)


def add_cut(command: Parser) -> None:
    """Which part of a network is taken, and its sizes."""
    command.add_argument(
        "--outputs", metavar="NAME,...", help="cut the network at these tensors (default: the file's outputs)"
    )
    command.add_argument(
        "--input",
        metavar="NAME",
        help="begin the network at this tensor, which is then your code's to compute (default: the file's input)",
    )
    add_input_shapes(command)


def add_preprocessing(command: argparse.ArgumentParser) -> None:
    images = command.add_argument_group("how images become the input (default: as a .tflite file's metadata says)")
    images.add_argument(
        "--preprocessing", type=Path, metavar="FILE.toml", help="mean, std, size and colours; options come before it"
    )
    images.add_argument(
        "--mean", metavar="M[,M,M]", help="(pixel - M) / S, pixels from 0 to 255; one number, or one for each channel"
    )
    images.add_argument("--std", metavar="S[,S,S]", help="as for --mean; in the order of the network's channels")
    images.add_argument(
        "--size", metavar="HxW", help="resize to this and take its middle (default: resize to the network's input)"
    )
    images.add_argument("--colours", choices=("rgb", "bgr"), help="the order of the network's channels (default rgb)")


def prepared(options: CalibrationOptions) -> tuple[ImportedNetwork, CalibrationData]:
    """The network and its data, tried on the first examples. Noise is warned of."""
    from deploy.formats.importers.files import import_network
    from deploy.quantize.calibration_data import calibration_data

    images = image_preprocessing(options)
    shapes, outputs = parse_input_shapes(options.input_shapes), _names(options.outputs)
    network = import_network(options.model, shapes, outputs, options.input or "")
    data = calibration_data(options.data, network, images, options.images, options.seed)
    _try(network, data)
    if data.noise:
        console.warn(f"calibrated on {data.text}: for a first look only, its ranges are not those of your data")
    return network, data


def calibrated(scheme: str, network: ImportedNetwork, data: CalibrationData, ends: Ends = "quantized") -> Quantized:
    """By one scheme, as it is written."""
    from deploy.compile.scheme import QuantizationScheme
    from deploy.quantize import quantize

    with console.progress((STAGE,)) as show:
        return quantize(network, _batches(data, show), QuantizationScheme.parse(scheme), ends=ends)


def shown(name: str) -> str:
    """Of a tensor: converters join the names of all that they fused."""
    first = name.split(";", maxsplit=1)[0]
    return first if len(first) <= LONGEST else f"...{first[-LONGEST:]}"


def _try(network: ImportedNetwork, data: CalibrationData) -> None:
    import numpy as np

    from deploy.quantize.float_outputs import TRIED, check_float_outputs, check_sizes

    check_sizes(network)
    check_float_outputs(network, np.stack([data.example(i) for i in range(min(TRIED, data.count))]))


def _batches(data: CalibrationData, show: Callable[[Progress], None]) -> Iterator[NDArray[np.float32]]:
    from deploy.run.folder import Progress

    done = 0
    for batch in data.batches():
        yield batch
        done += len(batch)
        show(Progress(STAGE, done, data.count))


# What the options say


def image_preprocessing(options: CalibrationOptions) -> ImagePreprocessing | None:
    """Of images; None where neither options nor the model's file say it."""
    from deploy.quantize.image_preprocessing import ImageOptions, preprocessing_of
    from deploy.ship.model_ends import stated_normalization

    given = ImageOptions(
        _numbers("--mean", options.mean),
        _numbers("--std", options.std),
        parse_size(options.size) if options.size else None,
        "bgr" if options.colours == "bgr" else "rgb" if options.colours else None,
    )
    if options.preprocessing:
        given = given.over(ImageOptions.read(options.preprocessing))
    is_tflite = options.model.suffix.lower() == ".tflite"
    return preprocessing_of(given, stated_normalization(options.model) if is_tflite else None)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: write a number, or three with commas between") from None


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in (text or "").split(",") if name)
