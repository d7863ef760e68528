"""From a network or a quantized block to the file that the board runs, with the golden input and output.

Every compiled model is three files: `NAME.tflite`, its input and the output that the integer simulation
gives for it, as raw little-endian bytes. Whoever runs the model compares before timing it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.compile.kernel_spread import kernel_spread
from deploy.compile.made_for import other_arithmetic
from deploy.compile.tails import CLASS_MAP, class_map_of
from deploy.formats.files import write_atomically
from deploy.formats.tflite.here import RunHere
from deploy.formats.tflite.metadata import Description
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import parse, read
from deploy.formats.tflite.writer import write
from deploy.targets.inspection import inspect_model
from deploy.targets.placement import Lint, Target, lint
from hil.errors import ModelError
from hil.input_shape import InputShape
from hil.measure import Job
from nas.lcpaq.policy import Policy, applied
from nas.quant import post_training, simulate
from nas.quant.arithmetic import LITERT, Arithmetic
from nas.quant.file_order import to_file_order
from nas.quant.integer_graph import IntegerGraph, IntTensor, QFloatLayer, Weighted
from nas.quant.safe_resize import split_resizes
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.simulate import Applied
from nas.quant.simulations import SIMULATIONS
from nas.quant.tails import Tail, in_file
from nas.space import Architecture
from nas.tasks.task import Network, fold

IN_A_BLOCK = re.compile(r"b\d+/")


@dataclass(frozen=True)
class Artifact:
    """A compiled model and its golden pair; `input_shapes` as a `Job` has them."""

    name: str
    model: Path
    input: Path
    expected: Path
    input_shapes: tuple[InputShape, ...] = ()

    @classmethod
    def at(cls, folder: Path, name: str, shared_input: str | None = None) -> Artifact:
        source = folder / f"{shared_input or name}.input.bin"
        return cls(name, folder / f"{name}.tflite", source, folder / f"{name}.expected.bin")

    @property
    def exists(self) -> bool:
        return self.model.exists() and self.input.exists() and self.expected.exists()

    def job(self) -> Job:
        """Timed to the class map where the file leaves it to the CPU."""
        left = class_map_of(self.model)
        spread = partial(kernel_spread, self.model, self.input, self.input_shapes)
        hint = partial(other_arithmetic, self.model)
        return Job(self.model, self.name, self.input, self.expected, self.input_shapes, left, spread, hint)


def quantize(
    model: Network,
    images: Iterable[Tensor],
    size: tuple[int, int],
    *,
    architecture: Architecture | None = None,
    scheme: Scheme = DEFAULT,
    resize_factors: Sequence[int] = (),
    policy: Policy | None = None,
) -> IntegerGraph:
    """The full network, from the image to the task's output, calibrated on `images` (batches (N, 3, H, W)).

    `resize_factors` are the target's safe ones (`nas.quant.safe_resize`); empty: every resize stays as it is.
    `policy` gives each layer its bits (`nas.lcpaq.policy`), over the architecture's.
    """
    model.eval()
    nodes = fold(model, size, architecture)
    if policy is not None:
        nodes = applied(nodes, policy)
    return split_resizes(post_training.quantize(nodes, images, (*size, 3), scheme), resize_factors)


def arithmetic_of(target: Target | None) -> Arithmetic:
    """Of the hardware that runs a file; without a target it is a CPU."""
    return target.arithmetic if target else LITERT


def kernels_of(form: Form, arithmetic: Arithmetic) -> Applied:
    """What a file of this form computes on hardware of this arithmetic, in int8's integers."""
    return SIMULATIONS[arithmetic][form.activations]


def stored(values: NDArray[np.int8 | np.int32], form: Form) -> bytes:
    """int8's integers as a file of this form takes and gives them; a class map (int32) is the same in all."""
    if form.activations == "uint8" and values.dtype == np.int8:
        return (values.view(np.uint8) ^ 128).tobytes()
    return values.tobytes()


def golden_pair(
    graph: IntegerGraph,
    x: Tensor,
    form: Form = Form(),  # noqa: B008
    arithmetic: Arithmetic = LITERT,
) -> tuple[bytes, bytes]:
    """The bytes that a file of this form takes for `x` (1, C, H, W) in real values, and those that it has to output."""
    q = simulate.quantize(x, graph.tensors[graph.input])
    outputs = simulate.outputs_of(graph, q, kernels_of(form, arithmetic))
    return (
        stored_input(graph, q, form),
        b"".join(_as_written(y, graph.tensors[name], form) for name, y in outputs.items()),
    )


def stored_input(graph: IntegerGraph, q: Tensor, form: Form) -> bytes:
    """An input's integers as a file of this form takes them."""
    return _as_written(q, graph.tensors[graph.input], form)


def _as_written(q: Tensor, tensor: IntTensor, form: Form) -> bytes:
    if form.ends == "float" and tensor.dtype == "int8":
        real: Tensor = simulate.dequantize(q, tensor)
        return to_file_order(real).contiguous().numpy().tobytes()
    return stored(simulate.as_nhwc(q, np.int32 if tensor.dtype == "int32" else np.int8), form)


def model_metadata(graph: IntegerGraph, subnet: str, key: str, **facts: object) -> dict[str, object]:
    """The metadata of a model's file: the subnet, the requested widths, the size, and what it was made from.

    `key` is the digest of the configuration: of the stage that writes the file and of all stages before it.
    """
    bits = sorted({op.bits for op in graph.operators if isinstance(op, Weighted)})
    return {"subnet": subnet, "requested_bits": bits, "size_bits": graph.size_bits, "key": key, **facts}


def lint_written(content: bytes, name: str, target: Target) -> Lint:
    """What `target` does to the .tflite file with these bytes; `name` stands for it in errors.

    Raises `ModelError` naming the first operator that would give wrong outputs there or cannot run, and why; where the
    others run is the caller's to check.
    """
    found = lint(inspect_model(parse(content, name)), target, allowed_share=1.0)
    if found.errors:
        first = found.errors[0]
        op = first.operator
        more = f" (and {len(found.errors) - 1} more)" if len(found.errors) > 1 else ""
        ratio = f" of {op.resize}" if op.resize else ""
        raise ModelError(
            f"{name} on {target.name}: operator {op.index}, {op.custom or op.name}{ratio} '{op.result}', "
            f"{'cannot run' if first.place == 'REFUSED' else 'gives wrong outputs'}{more}: {first.reason}"
        )
    return found


@dataclass(frozen=True)
class Placed:
    """The share of a model's multiply-accumulates that a target is expected to run off its fast place."""

    target: str
    fast_place: str
    off_share: float


@dataclass(frozen=True)
class ReadBack:
    """What a written file holds; the widths as in `deploy.targets.inspection.Inspection`."""

    requested_bits: tuple[int, ...] | None
    stored_bits: tuple[int, ...]
    executed_bits: tuple[int, ...]
    placement: Placed | None


def read_back(model: Path, target: Target | None) -> ReadBack:
    """The file's widths, and where `target` would run it."""
    found = inspect_model(read(model))
    placed = None
    if target:
        linted = lint(found, target, allowed_share=1.0)
        placed = Placed(target.name, target.fast_place, linted.off_share)
    return ReadBack(found.requested_bits, found.stored_bits, found.executed_bits, placed)


def save_model(
    graph: IntegerGraph,
    image: Tensor,
    artifact: Artifact,
    metadata: dict[str, object],
    target: Target | None = None,
    *,
    form: Form = Form(),  # noqa: B008
    tail: Tail = "classes",
    described: Description | None = None,
) -> Artifact:
    """Compile a full model and write its three files; the model last, so that all are there if it is.

    `described`: of the ecosystem's metadata, in a file that ships; a candidate has none.
    `tail`: where its file ends (`nas.quant.tails`); the metadata says what is left to the CPU, and the golden output is
    the class map all the same, by `target`'s arithmetic. Raises what `lint_written` does before anything is written.
    """
    kept, sizes = in_file(graph, tail)
    content = write(kept, metadata if sizes is None else {**metadata, CLASS_MAP: sizes}, form, described)
    if target:
        lint_written(content, artifact.name, target)
    source, expected = golden_pair(graph, image, form, arithmetic_of(target))
    if any(isinstance(op, QFloatLayer) for op in graph.operators):
        expected = RunHere(content).outputs(source)  # every kernel adds floats in another order
    write_atomically(artifact.input, source)
    write_atomically(artifact.expected, expected)
    write_atomically(artifact.model, content)
    return artifact


def bits_outside_blocks(graph: IntegerGraph) -> int:
    """Weight bits of the stem, the first inverted residual and the head, which no choice changes."""
    return sum(op.size_bits for op in graph.operators if isinstance(op, Weighted) and not IN_A_BLOCK.match(op.name))


def calibration_batch(batches: Iterable[Tensor]) -> Tensor:
    """A stream of batches as one (N, 3, H, W)."""
    return torch.cat(list(batches))
