"""Each layer's latency on the board: the layer as a graph of its own, compiled, checked and measured like any model.

Layers that compute the same (shapes, stride, activation) are measured once. What a graph pays for the call and for its
ends is taken out, from copies of its maps, as `deploy.latency.overhead` does it for blocks. Few bits run as int8 and
cost int8's time: there is one latency a layer, whatever its width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.compile.block_forms import values_at
from deploy.formats.digest import digest
from deploy.formats.files import read_json, write_json
from deploy.latency.overhead import COPIED, COPIES, COPY_SCALE, FLOOR_US, Known, copies, weighted
from deploy.latency.table import summaries
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.measuring import measure_with_progress
from nas.quant.integer_graph import IntegerGraph, QConv, Weighted

RECORD = "latency.json"
EMPTY = "copy-empty"


def alone(graph: IntegerGraph, layer: Weighted) -> IntegerGraph:
    """One layer of `graph`, reading what it reads there."""
    tensors = {name: graph.tensors[name] for name in (layer.x, layer.name)}
    return IntegerGraph(tensors, (layer,), layer.x)


def layers_alone(graph: IntegerGraph) -> dict[str, IntegerGraph]:
    """By layer, the graph that is measured for it: equal work, the same graph."""
    measured: dict[object, IntegerGraph] = {}
    found = {}
    for layer in (op for op in graph.operators if isinstance(op, Weighted)):
        found[layer.name] = measured.setdefault(_work(graph, layer), alone(graph, layer))
    return found


def _work(graph: IntegerGraph, layer: Weighted) -> object:
    """What decides how long a layer takes; its values do not."""
    shapes = (graph.tensors[layer.x].shape, graph.tensors[layer.name].shape, layer.weight.shape)
    own = (layer.stride, layer.dilation, layer.depthwise) if isinstance(layer, QConv) else ()
    return (type(layer), shapes, own, layer.activation, layer.weight_scale.size == 1)


def shapes_at_ends(graph: IntegerGraph) -> tuple[tuple[int, int, int], ...]:
    """The maps that layers read or leave, each once."""
    ends = [graph.tensors[name].shape for op in graph.operators if isinstance(op, Weighted) for name in (op.x, op.name)]
    return tuple(dict.fromkeys(ends))


def compiled(graph: IntegerGraph, image: Tensor, folder: Path, key: str) -> Iterator[Artifact]:
    """The files to measure, each with its golden pair: the layers as `image` (1, 3, H, W) reaches them, the copies."""
    for layer in {id(one): one for one in layers_alone(graph).values()}.values():
        name = _file(layer.output)
        eight = replace(
            layer, operators=tuple(replace(op, bits=8) for op in layer.operators if isinstance(op, Weighted))
        )
        x = values_at(graph, layer.input, image)
        yield save_model(eight, x, Artifact.at(folder, name), model_metadata(eight, name, key))
    for name, copied in _copies(graph).items():
        yield save_model(copied, _ramp(copied), Artifact.at(folder, name), model_metadata(copied, name, key))


def _copies(graph: IntegerGraph) -> dict[str, IntegerGraph]:
    shapes = shapes_at_ends(graph)
    found = {EMPTY: copies((1, 1, shapes[0][2]), 1)}
    return found | {_copy(shape, count): copies(shape, count) for shape in shapes for count in COPIES}


def _copy(shape: tuple[int, int, int], count: int) -> str:
    return f"copy-{'x'.join(map(str, shape))}-{count}"


def _file(layer: str) -> str:
    return "layer-" + layer.replace("/", "-")


def _ramp(graph: IntegerGraph) -> Tensor:
    height, width, channels = graph.tensors[COPIED].shape
    q = torch.arange(height * width * channels) % 256 - 128
    return (q * COPY_SCALE).reshape(1, channels, height, width)


def solved(times: Mapping[str, Known], graph: IntegerGraph) -> dict[str, Known]:
    """Each layer's own time from those of the measured files: less the call, less half of both its ends."""
    empty = times[EMPTY]
    ends = {
        shape: weighted((1.5, times[_copy(shape, 1)]), (-0.5, times[_copy(shape, 3)]), (-1, empty))
        for shape in shapes_at_ends(graph)
    }
    ends = {shape: Known(max(time.us, 0.0), time.half_us) for shape, time in ends.items()}
    found = {}
    for name, layer in layers_alone(graph).items():
        x, y = (ends[layer.tensors[end].shape] for end in (layer.input, layer.output))
        own = weighted((1, times[_file(layer.output)]), (-1, empty), (-0.5, x), (-0.5, y))
        found[name] = Known(max(own.us, FLOOR_US), own.half_us)
    return found


def measure(context: Context, graph: IntegerGraph, image: Tensor, folder: Path) -> Iterator[Progress]:
    """Every layer of `graph` on the run's board, into `folder`/latency.json; what the store holds is not run again."""
    settings = [settings_of(section) for section in (*context.boards, context.experiment.profile)]
    key = digest(context.keys["teacher"], *settings, sorted(layers_alone(graph)))
    path = folder / RECORD
    if path.exists() and read_json(path, ("key",))["key"] == key:
        return
    artifacts = list(compiled(graph, image, folder / "layers", key))
    measuring = protocol(context.experiment.profile)
    jobs = [artifact.job() for artifact in artifacts]
    done = yield from measure_with_progress(context, jobs, measuring, "lcpaq latency")
    times = {name: Known.of(summary) for name, summary in summaries(done).items()}
    layers = {name: {"us": time.us, "half_us": time.half_us} for name, time in solved(times, graph).items()}
    write_json(path, {"key": key, "conditions": done[0].conditions.to_json(), "layers": layers})


def load(folder: Path) -> dict[str, float]:
    """Microseconds by layer, as `measure` left them."""
    record: Any = read_json(folder / RECORD, ("layers",))["layers"]
    return {name: float(time["us"]) for name, time in record.items()}
