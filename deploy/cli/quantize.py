"""`hilnas quantize`: a float network of any origin as an INT8 file, calibrated on data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli import console
from deploy.cli.calibrating import YOUR_NETWORK, add_calibration, calibrated, prepared, shown
from deploy.cli.choosing_scheme import AUTO, FORMATS, ChoosingOptions, add_criteria, choose_scheme, origin_of, say_onnx
from deploy.cli.options import Commands, add_json, bind

if TYPE_CHECKING:
    import argparse

    from deploy.compile.artifact import Artifact
    from deploy.quantize.record import QuantizationRecord, TensorRecord

SCHEMES = ("channel int8", "tensor int8", "tensor uint8")
WORST = 5  # tensors that are shown; quantization.json has all


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(ChoosingOptions):
    """`out`: the folder for the files."""

    out: Path
    scheme: str = SCHEMES[0]
    json: bool = False


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "quantize",
        help=YOUR_NETWORK,
        description="Reads a float network, calibrates it on data and writes NAME.int8.tflite with its golden pair and "
        "quantization.json, which has the range, scale and noise of every tensor. `hilnas profile`, `lint`, `evaluate` "
        "take the file, `hilnas bundle export` the folder.",
    )
    add_calibration(command)
    add_scheme(command, AUTO)
    command.add_argument(
        "--graph-io",
        choices=("quantized", "float"),
        default="quantized",
        help="type of the file's input and outputs; float is what an application of the float network reads and writes",
    )
    command.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        metavar="|".join(FORMATS),
        help="tflite,onnx: the same integers also as NAME.int8.onnx, for runtimes and tools that read QDQ ONNX",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    add_json(command, "print the record, quantization.json or schemes.json, instead of text")
    add_criteria(command)
    bind(command, QuantizeOptions, run)


def add_scheme(command: argparse.ArgumentParser, *more: str) -> None:
    more_text = f"; {AUTO}: all of them are tried, in several ways, and one is chosen" if more else ""
    command.add_argument(
        "--scheme",
        default=SCHEMES[0],
        choices=(*SCHEMES, *more),
        help=f"scales of the weights, and the type of the file (default %(default)s){more_text}",
    )


def run(options: QuantizeOptions) -> int:
    """Write the files and show what was lost."""
    from deploy.formats.onnx.writer import check_onnx

    if options.onnx:
        check_onnx()
    if options.chooses:
        return choose_scheme(options, options.out, json=options.json)
    from deploy.quantize.files import write_files
    from deploy.quantize.record import QuantizationRecord
    from deploy.targets.placement import load_target

    target = load_target(options.targets, options.target) if options.target else None
    network, data = prepared(options)
    quantized = calibrated(options.scheme, network, data, options.graph_io)
    artifact = write_files(
        quantized,
        options.out,
        options.model.stem,
        data,
        origin=origin_of(options, data, target),
        target=target,
        onnx=options.onnx,
    )
    record = QuantizationRecord.read(options.out / QuantizationRecord.FILE)
    if options.json:
        console.say_json(record.to_json())
    else:
        _show(record, artifact)
        say_onnx(options, artifact.model)
    return 0


def _show(record: QuantizationRecord, artifact: Artifact) -> None:
    size_kb = artifact.model.stat().st_size / 1e3
    console.say(f"{artifact.model}: {size_kb:.0f} kB, {record.scheme}, calibrated on {record.data}")
    ends = [tensor for tensor in record.tensors if tensor.name in record.outputs]
    within = [tensor for tensor in record.tensors if tensor.noise_db is not None and tensor not in ends]
    worst = sorted(within, key=lambda tensor: tensor.noise_db or 0.0, reverse=True)[:WORST]
    rows = [("output", *_row(tensor)) for tensor in ends] + [("noisiest", *_row(tensor)) for tensor in worst]
    console.table(("", "tensor", "shape", "range", "scale", "noise dB"), rows, left=("tensor",))
    console.say(
        f"noise: over {record.noise_images} of the examples, against the float network; every tensor: "
        f"{artifact.model.parent / record.FILE}"
    )


def _row(tensor: TensorRecord) -> tuple[str, ...]:
    noise = "" if tensor.noise_db is None else f"{tensor.noise_db:.1f}"
    shape = "x".join(map(str, tensor.shape))
    return shown(tensor.name), shape, f"{tensor.low:.4g} to {tensor.high:.4g}", f"{tensor.scale:.4g}", noise
