"""Full models of a run: its teacher, and any architecture from its supernets' blocks; as integers and as files."""

from __future__ import annotations

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.formats.tflite.operators import Form
from deploy.run.context import Context
from deploy.run.networks import assembled
from deploy.run.quantizing import quantize_network
from deploy.run.schemes import SchemeRun
from nas.networks.blocks import recalibrate
from nas.quant.integer_graph import IntegerGraph
from nas.quant.scheme import Scheme
from nas.space import Architecture
from nas.training.threads import one_thread


def quantized_teacher(context: Context) -> IntegerGraph:
    """The teacher, in 8 bits."""
    return quantize_network(context, context.teacher)


def quantized(context: Context, architecture: Architecture, scheme: Scheme | None = None) -> IntegerGraph:
    """The supernets' blocks of `architecture` between the teacher's stem and head, batch norms recalibrated."""
    model = assembled(context, architecture)
    with one_thread():
        recalibrate(model, context.calibration)
    return quantize_network(context, model, architecture, scheme=scheme)


def compile_teacher(
    context: Context, graph: IntegerGraph | None = None, name: str = "teacher", **facts: object
) -> Artifact:
    """The INT8 teacher, of which every budget is a share; `facts`: more of the file's metadata."""
    graph = graph or quantized_teacher(context)
    metadata = model_metadata(graph, "teacher", context.keys["profile"], **facts)
    artifact = Artifact.at(context.path / "models", name)
    return save_model(graph, context.evaluation[:1], artifact, metadata, context.target, tail=context.tail)


def compile_sample(
    context: Context, architecture: Architecture, name: str, of: SchemeRun | None = None, **facts: object
) -> Artifact:
    """A full model from the supernets' blocks, by the main scheme or another: quantized, compiled, a golden pair.

    `facts`: more of the file's metadata.
    """
    if of is None or of.main:
        graph, key, folder = quantized(context, architecture), context.keys["profile"], context.path / "models"
    else:
        graph, key, folder = quantized(context, architecture, of.options), of.keys["agree"], of.models
    artifact, metadata = Artifact.at(folder, name), model_metadata(graph, str(architecture), key, **facts)
    form, image = of.scheme.form if of else Form(), context.evaluation[:1]
    return save_model(graph, image, artifact, metadata, context.target, form=form, tail=context.tail)
