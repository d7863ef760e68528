"""Whole models of a run: its teacher, and any architecture from its supernets' blocks; as integers and as files."""

from __future__ import annotations

from deploy.compile.artifact import Artifact, model_metadata, save_model
from deploy.run.context import Context
from deploy.run.networks import assembled
from deploy.run.quantizing import quantize_network
from nas.networks.blocks import recalibrate
from nas.quant.integer_graph import IntegerGraph
from nas.space import Architecture


def quantized_teacher(context: Context) -> IntegerGraph:
    """The teacher, in 8 bits."""
    return quantize_network(context, context.teacher)


def quantized(context: Context, architecture: Architecture) -> IntegerGraph:
    """The supernets' blocks of `architecture` between the teacher's stem and head, batch norms recalibrated."""
    model = assembled(context, architecture)
    recalibrate(model, context.calibration)
    return quantize_network(context, model, architecture)


def compile_teacher(context: Context) -> Artifact:
    """The INT8 teacher, the yardstick of every budget."""
    graph = quantized_teacher(context)
    metadata = model_metadata(graph, "teacher", context.keys["profile"])
    artifact = Artifact.at(context.path / "models", "teacher")
    return save_model(graph, context.evaluation[:1], artifact, metadata, context.target)


def compile_sample(context: Context, architecture: Architecture, name: str) -> Artifact:
    """A whole model from the supernets' blocks: quantized, compiled, with its golden pair."""
    graph = quantized(context, architecture)
    metadata = model_metadata(graph, str(architecture), context.keys["profile"])
    artifact = Artifact.at(context.path / "models", name)
    return save_model(graph, context.evaluation[:1], artifact, metadata, context.target)
