"""Every tensor of a quantized network as a board computes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deploy.compile.artifact import stored
from deploy.formats.files import write_atomically
from deploy.formats.tflite.operators import Form
from deploy.formats.tflite.writer import write
from deploy.quantize.debug import results
from deploy.run.folder import Progress
from hil.errors import ModelError
from hil.job import Job
from hil.outputs import outputs_of
from hil.sessions import JobSession
from nas.quant.file_order import from_file_order
from nas.quant.integer_graph import IntegerGraph, IntTensor
from nas.quant.simulate import as_nhwc

KINDS: Mapping[str, np.dtype[np.generic]] = {"int8": np.dtype("i1"), "uint8": np.dtype("u1"), "int32": np.dtype("<i4")}


def board_tensors(
    session: JobSession, graph: IntegerGraph, form: Form, inputs: Sequence[Tensor], folder: Path, *, cut: bool = False
) -> Iterator[tuple[Progress, list[dict[str, Tensor]]]]:
    """The integers of all `results` of `graph` for each of `inputs` (1, C, H, W), by their names, as they come.

    From one file in `folder` that has all of them as outputs; `cut`: from one for each, which ends there, since a
    delegate may compile a graph otherwise whose tensors are all wanted. Raises `ModelError` where a file does not run.
    """
    names, data = results(graph), [stored(as_nhwc(q), form) for q in inputs]
    parts = [(name,) for name in names] if cut else [tuple(names)]
    for number, wanted in enumerate(parts, start=1):
        part = replace(graph.until(wanted[-1]), several=wanted, file_names=())
        path = folder / f"tensors-{number}.tflite"
        write_atomically(path, write(part, form=form))
        found = []
        for answer in outputs_of(session, Job(path, path.stem), data):
            if answer.failure is not None:
                advice = "" if cut else "; ask for one tensor at a time (--cut)"
                raise ModelError(
                    f"a file whose outputs are {', '.join(wanted[:3])} ... fails: {answer.failure}{advice}"
                )
            found.append(_read(answer.data, [graph.tensors[name] for name in wanted], form))
        path.unlink()
        yield Progress("debug", number, len(parts), wanted[-1]), found


def _read(data: bytes, tensors: Sequence[IntTensor], form: Form) -> dict[str, Tensor]:
    """From the bytes of all outputs, one after the other."""
    found, start = dict[str, Tensor](), 0
    for tensor in tensors:
        kind = KINDS["int32" if tensor.dtype == "int32" else form.activations]
        shape = (1, *tensor.shape)
        count = int(np.prod(shape))
        values = np.frombuffer(data, kind, count, start).reshape(shape).astype(np.float32)
        start += count * kind.itemsize
        found[tensor.name] = from_file_order(torch.from_numpy(values - 128 if kind.kind == "u" else values))
    if start != len(data):
        raise ModelError(f"{len(data)} bytes came for tensors of {start}: the board ran another file")
    return found
