"""Single subnets of a space as files, each with its golden pair."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deploy.compile.artifact import Artifact, arithmetic_of, golden_pair, lint_written
from deploy.compile.block_forms import FORMS as BLOCK_FORMS
from deploy.compile.block_forms import random_reference
from deploy.compile.weights import Origin
from deploy.formats.files import write_atomically
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.read import parse
from deploy.formats.tflite.writer import write
from deploy.targets.placement import Target
from hil.errors import UsageError
from nas.networks.blocks import recalibrate
from nas.quant.float_graph import INPUT, Node, run
from nas.quant.folding import fold_mbconv
from nas.quant.integer_graph import IntegerGraph
from nas.space import SearchSpace, Subnet

FORMATS = {"tflite": ".tflite", "onnx": ".onnx", "converter": ".tflite"}
"""Who writes a subnet, and its file's suffix: our writer, QDQ ONNX, or TensorFlow's converter for comparison."""


def in_space(space: SearchSpace, name: str, bits: Sequence[int]) -> Subnet:
    """The subnet of that name; `UsageError` if it is not in `space` at these bit widths."""
    subnet = Subnet.parse(name)
    known = 1 <= subnet.block <= len(space.blocks) and subnet in set(space.subnets(subnet.block, subnet.bits))
    if not known or subnet.bits not in bits:
        raise UsageError(
            f"{name} is not in space '{space.name}' at {', '.join(map(str, bits))} bits: "
            "see its blocks, layers and choices, and --bits"
        )
    return subnet


@dataclass(frozen=True)
class Writing:
    """How single subnets are written.

    Attributes:
        form: of the integers.
        kind: a key of `FORMATS`.
        block_form: a key of `deploy.compile.block_forms.FORMS`; all but isolated have random weights.
        target: by whose rules the files are linted before they are written, and whose arithmetic the expected outputs
            follow; None: by none, and a CPU's.
    """

    form: Form = Form()  # noqa: RUF009 (frozen)
    kind: str = "tflite"
    block_form: str = "isolated"
    target: Target | None = None

    def has_golden_pair(self, subnet: Subnet) -> bool:
        """Not for INT4 weights: LiteRT's builtin kernels run those, and their rounding is not simulated."""
        return not (self.form.few_bits == "int4" and subnet.bits == 4)


def compile_subnets(
    origin: Origin,
    subnets: Iterable[Subnet],
    out: Path,
    writing: Writing = Writing(),
) -> Iterator[Path]:
    """Write each subnet, with its golden input and output, into `out`; yields the models' paths.

    Raises `ModelError` before a file is written for which the target gives wrong outputs.
    """
    isolated = writing.block_form == "isolated"
    reference = None if isolated else random_reference(origin.space, origin.size, granularity=origin.scheme.granularity)
    for subnet in subnets:
        name = str(subnet) if isolated else f"{subnet}.{writing.block_form}"
        target = Artifact.at(out, name)
        model = target.model.with_suffix(FORMATS[writing.kind])
        graph, content, x = _written(origin, subnet, writing, reference)
        if writing.target is not None:
            lint_written(content, name, writing.target)
        if writing.has_golden_pair(subnet):
            source, expected = golden_pair(graph, x, writing.form, arithmetic_of(writing.target))
            write_atomically(target.input, source)
            write_atomically(target.expected, expected)
        write_atomically(model, content)
        yield model


def _written(
    origin: Origin, subnet: Subnet, writing: Writing, reference: IntegerGraph | None
) -> tuple[IntegerGraph, bytes, Tensor]:
    """A subnet's integers, its file, and the map (1, C, H, W) of its golden pair."""
    x = origin.golden_map(subnet.block)
    if writing.kind == "converter":
        return *_converted(origin, subnet), x
    ((_, graph),) = origin.graphs([subnet])
    metadata = origin.metadata(subnet, writing.form)
    if reference is not None:
        form = BLOCK_FORMS[writing.block_form]
        image = torch.randint(-128, 128, (1, 3, *origin.size), generator=torch.Generator().manual_seed(0)) / 128
        graph, x = form.compose(graph, reference), form.input(reference, subnet.block, image)
        metadata = {**metadata, "form": writing.block_form}
    if writing.kind == "onnx":
        from deploy.formats.onnx import to_onnx

        return graph, to_onnx(graph, metadata, writing.form), x
    return graph, write(graph, metadata, writing.form), x


def _converted(origin: Origin, subnet: Subnet) -> tuple[IntegerGraph, bytes]:
    """The converter's file, as it wrote it, and the integers with the same outputs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's C++ talks on stderr
    from deploy.formats.keras import converted, equivalent

    if subnet.bits != 8:
        raise UsageError(f"{subnet}: the converter's weights are 8 bits wide; name subnets that end in _w8")
    supernet, x = origin.supernet(subnet.block), origin.calibration_maps(subnet.block)
    nodes: list[Node] = []
    env = {INPUT: x}
    for i, layer in enumerate(supernet.path(subnet)):
        last = nodes[-1].name if nodes else INPUT
        recalibrate(layer, env[last])
        nodes += (folded := fold_mbconv(layer, f"b{subnet.block}/{i}", last))
        run(folded, env)
    fits = x.shape[2:] == origin.map_size(subnet.block)  # it calibrates on maps of the model's input size only
    content = converted(nodes, x if fits else origin.golden_map(subnet.block))
    return equivalent(parse(content, str(subnet)), nodes), content
