"""All that `hilnas quantize` leaves of a network: its file and record, and examples with their golden outputs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deploy.compile.artifact import Artifact, arithmetic_of
from deploy.formats.digest import file_digest
from deploy.quantize.calibration_data import CalibrationData
from deploy.quantize.quantized import Quantized
from deploy.quantize.record import NetworkOrigin
from deploy.ship.golden import GoldenExample, spaced, write_golden
from deploy.targets.placement import Target

GOLDEN_EXAMPLES = 8


def write_files(
    quantized: Quantized,
    folder: Path,
    name: str,
    data: CalibrationData,
    *,
    origin: NetworkOrigin | None = None,
    target: Target | None = None,
    onnx: bool = False,
) -> Artifact:
    """`Quantized.save`, and beside the file NAME.golden: examples of `data`, evenly spaced, with their outputs."""
    artifact = quantized.save(folder, name, data.text, origin, target, onnx=onnx)
    indices = spaced(data.count, GOLDEN_EXAMPLES)
    examples = [data.example(i) for i in indices]
    read = (x for x, _ in quantized.inputs(examples))
    golden = (
        GoldenExample(data.name(index), x, None if data.images is None else data.images.image(example))
        for index, example, x in zip(indices, examples, read, strict=True)
    )
    form, arithmetic = quantized.option.form, arithmetic_of(target)
    write_golden(artifact.model, quantized.graph, golden, form=form, arithmetic=arithmetic)
    return artifact


def digest_of(model: Path) -> str:
    """Of a network's file, or of the names and files of its folder."""
    if model.is_file():
        return file_digest(model)
    files = sorted(path for path in model.rglob("*") if path.is_file())
    listed = "".join(f"{file_digest(path)}  {path.relative_to(model).as_posix()}\n" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()
