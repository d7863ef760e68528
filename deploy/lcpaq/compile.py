"""A run's full network (the teacher, or a selected model by name) as a file, at the bits that it has or a policy's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.compile.artifact import Artifact, arithmetic_of, golden_pair, lint_written, model_metadata
from deploy.compile.subnets import FORMATS, Writing
from deploy.formats.digest import digest
from deploy.formats.files import write_atomically
from deploy.formats.tflite.writer import write
from deploy.lcpaq import resnet
from deploy.lcpaq.run_network import TEACHER, RunNetwork
from deploy.run.context import Context
from deploy.run.keys import settings_of
from deploy.run.quantizing import quantize_network
from hil.errors import UsageError
from nas.errors import ConfigError
from nas.lcpaq.policy import Policy, applied, load_policy, network_digest
from nas.quant.integer_graph import IntegerGraph, Weighted
from nas.quant.scheme import Scheme


@dataclass(frozen=True, eq=False)
class QuantizedSubject:
    """A trained network of a run and how it is quantized; `policy`: None leaves layers the bits that they have."""

    subject: RunNetwork
    scheme: Scheme
    policy: Policy | None = None

    @property
    def name(self) -> str:
        return f"lcpaq-{self.subject.name}" if self.policy else self.subject.name

    @property
    def graph(self) -> IntegerGraph:
        context, model, architecture = self.subject.context, self.subject.model, self.subject.architecture
        return quantize_network(context, model, architecture, scheme=self.scheme, policy=self.policy)


def network_of(context: Context, name: str, scheme: Scheme, policy: Path | None) -> QuantizedSubject:
    """`UsageError` for a network that the run has not, or has not trained; `ConfigError` for a policy not of it."""
    names = (TEACHER, *(budget.name for budget in context.experiment.budgets))
    if resnet.form_in(context.experiment, name) is not None:
        there, command = resnet.checkpoint(context, name).exists(), f"lcpaq run --model {name}"
    elif name in names:
        command = "teacher" if name == TEACHER else "retrain"
        there = context.run.is_done(command, context.keys[command])
    else:
        known = ", ".join((*names, resnet.NAMES))
        raise UsageError(f"{name}: neither a subnet nor a network of '{context.experiment.name}': {known}")
    if not there:
        raise UsageError(f"{name}: {context.path} has no such network under these settings; run hilnas {command} first")
    subject = RunNetwork.of(context, name)
    return QuantizedSubject(subject, scheme, _policy(policy, subject) if policy else None)


def _policy(path: Path, subject: RunNetwork) -> Policy:
    policy = load_policy(path, network_digest(subject.nodes))
    try:
        applied(subject.nodes, policy)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return policy


def compile_network(network: QuantizedSubject, out: Path, writing: Writing) -> Path:
    """Write the network with its golden input and output into `out`; the model's path.

    No golden pair goes with 4-bit weights in INT4: LiteRT rounds those otherwise than the simulation. Raises
    `ModelError` before a file is left that the target answers wrongly.
    """
    graph, form, subject = network.graph, writing.form, network.subject
    target = Artifact.at(out, network.name)
    made_with = digest(subject.key, settings_of(network.scheme), settings_of(form), writing.kind)
    facts = {"policy": str(network.policy)} if network.policy else {}
    metadata = model_metadata(graph, str(subject.architecture or subject.name), made_with, **facts)
    if writing.kind == "onnx":
        from deploy.formats.onnx import to_onnx

        content = to_onnx(graph, metadata, form)
    else:
        content = write(graph, metadata, form)
    if writing.target is not None:
        lint_written(content, network.name, writing.target)
    if not (form.few_bits == "int4" and any(op.bits == 4 for op in graph.operators if isinstance(op, Weighted))):
        image = subject.context.evaluation[:1]
        source, expected = golden_pair(graph, image, form, arithmetic_of(writing.target))
        write_atomically(target.input, source)
        write_atomically(target.expected, expected)
    model = target.model.with_suffix(FORMATS[writing.kind])
    write_atomically(model, content)
    return model
