"""Each layer's latency on the board: the layer as an isolated graph, compiled, checked and measured like any model.

Layers that compute the same (shapes, stride, activation) are measured once. What a graph costs for the call and for its
input and output is taken out, from copies of its maps, as `deploy.latency.overhead` does it for blocks. Few bits run as
int8 and cost int8's time: there is one latency per layer, whatever its width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.compile.block_forms import values_at
from deploy.formats.digest import digest
from deploy.latency.estimates import moved, of_summary, weighted_sum
from deploy.latency.overhead import COPIES, FLOOR_US, copies, ramp, transfer
from deploy.latency.table import summaries
from deploy.lcpaq.records import LayerLatencies
from deploy.run.context import Context, protocol
from deploy.run.folder import Progress
from deploy.run.keys import settings_of
from deploy.run.measuring import measure_with_progress
from nas.estimate import Estimate
from nas.quant.integer_graph import IntegerGraph, QConv, Weighted

EMPTY = "copy-empty"


def isolated(graph: IntegerGraph, layer: Weighted) -> IntegerGraph:
    """One layer of `graph`, reading what it reads there."""
    tensors = {name: graph.tensors[name] for name in (layer.x, layer.name)}
    return IntegerGraph(tensors, (layer,), layer.x)


def isolated_layers(graph: IntegerGraph) -> dict[str, IntegerGraph]:
    """By layer, the graph that is measured for it: equal work, the same graph."""
    measured: dict[object, IntegerGraph] = {}
    layers = [op for op in graph.operators if isinstance(op, Weighted)]
    return {layer.name: measured.setdefault(_work(graph, layer), isolated(graph, layer)) for layer in layers}


def _work(graph: IntegerGraph, layer: Weighted) -> object:
    """What decides how long a layer takes; its values do not."""
    shapes = (graph.tensors[layer.x].shape, graph.tensors[layer.name].shape, layer.weight.shape)
    window = (layer.stride, layer.dilation, layer.depthwise) if isinstance(layer, QConv) else ()
    return (type(layer), shapes, window, layer.activation, layer.weight_scale.size == 1)


def boundary_shapes(graph: IntegerGraph) -> tuple[tuple[int, ...], ...]:
    """The shapes of maps that layers read or write, each once."""
    shapes = [
        graph.tensors[name].shape for op in graph.operators if isinstance(op, Weighted) for name in (op.x, op.name)
    ]
    return tuple(dict.fromkeys(shapes))


def compiled(graph: IntegerGraph, image: Tensor, folder: Path, key: str) -> Iterator[Artifact]:
    """The files to measure, each with its golden pair: the layers as `image` (1, 3, H, W) reaches them, the copies."""
    for layer in {id(one): one for one in isolated_layers(graph).values()}.values():
        name = _file(layer.output)
        eight = replace(
            layer, operators=tuple(replace(op, bits=8) for op in layer.operators if isinstance(op, Weighted))
        )
        x = values_at(graph, layer.input, image)
        yield save_model(eight, x, Artifact.at(folder, name), model_metadata(eight, name, key))
    for name, copied in _copies(graph).items():
        yield save_model(copied, ramp(copied), Artifact.at(folder, name), model_metadata(copied, name, key))


def _copies(graph: IntegerGraph) -> dict[str, IntegerGraph]:
    shapes = boundary_shapes(graph)
    empty = {EMPTY: copies((1, 1, shapes[0][2]), 1)}
    return empty | {_copy(shape, count): copies(shape, count) for shape in shapes for count in COPIES}


def _copy(shape: tuple[int, ...], count: int) -> str:
    return f"copy-{'x'.join(map(str, shape))}-{count}"


def _file(layer: str) -> str:
    return "layer-" + layer.replace("/", "-")


def solved(times: Mapping[str, Estimate], graph: IntegerGraph) -> dict[str, Estimate]:
    """Each layer's time from those of the measured files: less the call, less half of its input's and output's."""
    empty = times[EMPTY]
    shapes = boundary_shapes(graph)
    transfers = {shape: transfer(times[_copy(shape, 1)], times[_copy(shape, 3)], empty) for shape in shapes}
    layers = {}
    for name, layer in isolated_layers(graph).items():
        x, y = (transfers[layer.tensors[tensor].shape] for tensor in (layer.input, layer.output))
        time = weighted_sum((1, times[_file(layer.output)]), (-1, empty), (-0.5, x), (-0.5, y))
        layers[name] = moved(time, max(time.value, FLOOR_US))
    return layers


def measure(context: Context, graph: IntegerGraph, image: Tensor, folder: Path) -> Iterator[Progress]:
    """Every layer of `graph` on the run's board, into `folder`/latency.json; what the store holds is not run again."""
    settings = [settings_of(section) for section in (*context.boards, context.experiment.profile)]
    key = digest(context.keys["teacher"], *settings, sorted(isolated_layers(graph)))
    if LayerLatencies.current(folder, key):
        return
    jobs = [artifact.job() for artifact in compiled(graph, image, folder / "layers", key)]
    done = yield from measure_with_progress(context, jobs, protocol(context.experiment.profile), "lcpaq latency")
    times = {name: of_summary(summary) for name, summary in summaries(done).items()}
    record = LayerLatencies(key, done[0].conditions, solved(times, graph))
    record.write(folder / record.FILE)


def load(folder: Path) -> dict[str, float]:
    """Microseconds by layer, as `measure` left them."""
    return {name: time.value for name, time in LayerLatencies.read(folder / LayerLatencies.FILE).layers.items()}
