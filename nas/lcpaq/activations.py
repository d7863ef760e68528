"""The sensitivity of each layer to the bit width of its input: the second table that LCPAQ's integer program sums.

Omega^A_i(a) is added to the weights' Omega_i(b) of the same kind (`nas.lcpaq.sensitivity`), so each kind is the same
quantity in both tables:

- "hessian", after HAWQ-V2's section on activations: the mean Hessian trace times the squared error. The Hessian of the
  mean loss over N images, along the tensor of all of them, has the blocks H_n / N, one per image. Its mean trace
  times that tensor's ||Q_a(x) - x||^2 is therefore (mean over images of tr H_n / size) x (mean over images of
  ||Q_a(x_n) - x_n||^2), with `size` and norm those of one image. As with weights, half of it is the second-order
  estimate of how much the mean loss grows.
- "quadratic": that Hessian's quadratic form of the error itself, averaged over the images.
- "fisher": the mean over images of sum_j g_nj^2 dx_nj^2, where g_n is the gradient of image n's own loss.
- "nsr": the output's NSR with only this tensor rounded.
- "sqnr": the noise power over the signal power at the layer's own output, as for weights: the tensor's own SQNR does
  not show how much of its noise passes the layer.

All except the last belong to the tensor, at its source, where additions read it too. Layers that read one tensor share
its bits (`nas.lcpaq.policy.ties`) and its perturbation in equal parts, so that the sum over layers counts it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.lcpaq.hessian import Change, Problem, forms, forward
from nas.lcpaq.policy import ACTIVATION_BITS
from nas.lcpaq.sensitivity import OutputReference, Perturbations, Sensitivity, ready, signal_power
from nas.lcpaq.traces import PRECISION, Precision, Samples, Trace, estimated
from nas.quant.float_graph import INPUT, Weighted
from nas.quant.integer_graph import IntTensor
from nas.quant.lower import parameters_of
from nas.quant.ranges import Parameters, Shared, calibrate, observer_of, shared, widths_of
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.simulate import dequantize, quantize


@dataclass(frozen=True, eq=False)
class Read:
    """Tensors of one scale that layers read, and their scale and zero point at each width."""

    tensors: Shared
    parameters: tuple[Parameters, ...]


def reads(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> list[Read]:
    """The inputs of the problem's layers, calibrated on its images; `ConfigError` for bits that no tensor can have."""
    wrong = [bits for bits in widths if bits not in ACTIVATION_BITS]
    if wrong or not widths:
        raise ConfigError(f"sensitivity: activations take 4 to 8 bits, not {wrong[0] if wrong else 'none'}")
    images, by_width = [images for images, _ in problem.batches], []
    for bits in widths:
        nodes = [replace(n, input_bits=bits) if isinstance(n, Weighted) else n for n in problem.needed]
        ranges = calibrate(nodes, images, observer_of(scheme.observer)) | {INPUT: problem.input_range}
        by_width.append(parameters_of(ranges, widths_of(nodes)))
    return [
        Read(group, tuple(parameters[group.tensors[0]] for parameters in by_width))
        for group in shared(problem.needed)
        if group.readers
    ]


@torch.no_grad()
def rounded(x: Tensor, parameters: Parameters) -> Tensor:
    """`x` in the deployed integers, as real values."""
    tensor = IntTensor("", (0, 0, 0), *parameters)
    return dequantize(quantize(x, tensor), tensor)


def _summed(inputs: Sequence[Read], by_source: Mapping[str, Sequence[float]]) -> Iterator[tuple[Read, list[float]]]:
    """The perturbation of tensors of one scale: the sum over their sources."""
    for read in inputs:
        rows = [by_source[name] for name in read.tensors.sources]
        yield read, [sum(values) for values in zip(*rows, strict=True)]


def _shared_out(problem: Problem, widths: Sequence[int], rows: Iterable[tuple[Read, list[float]]]) -> Perturbations:
    """The perturbations of tensors, each in equal parts to the layers that read it."""
    of_layer: dict[str, list[float]] = {}
    for read, values in rows:
        for name in read.tensors.readers:
            of_layer[name] = [value / len(read.tensors.readers) for value in values]
    names = tuple(layer.name for layer in problem.layers)
    return Perturbations(names, tuple(widths), np.array([of_layer[name] for name in names]))


@dataclass(frozen=True)
class ActivationHessian:
    """The mean trace (`nas.lcpaq.traces`) times the squared error."""

    precision: Precision = PRECISION

    def __call__(self, problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
        problem = ready(problem, scheme)
        *_, last = self.estimated(problem)
        return self.by_trace(problem, widths, scheme, last)

    def estimated(
        self, problem: Problem, known: Sequence[Samples] = (), keep: Callable[[Samples], None] | None = None
    ) -> Iterator[dict[str, Trace]]:
        """The traces of what layers read after each round, of a problem that is `ready`."""
        tensors = [name for group in shared(problem.needed) if group.readers for name in group.sources]
        return estimated(problem, self.precision, tensors=tensors, known=known, keep=keep)

    @staticmethod
    def by_trace(
        problem: Problem, widths: Sequence[int], scheme: Scheme, estimates: Mapping[str, Trace]
    ) -> Perturbations:
        """Omega^A_i(a) of a problem that is `ready`, from known traces."""
        inputs = reads(problem, widths, scheme)
        errors = squared_errors(problem, inputs)
        products = {name: [estimates[name].mean * error for error in row] for name, row in errors.items()}
        return _shared_out(problem, widths, _summed(inputs, products))


def activation_quadratic(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """dx'H dx of the tensor's own rounding error dx, averaged over the images."""
    problem = ready(problem, scheme)
    inputs = reads(problem, widths, scheme)

    def error(name: str, parameters: Sequence[Parameters]) -> Change:
        return lambda env: torch.cat([rounded(env[name], p) - env[name] for p in parameters])

    changes = [(name, error(name, read.parameters)) for read in inputs for name in read.tensors.sources]
    found = forms(problem, changes, len(widths))
    by_source = {name: [max(form, 0.0) for form in row] for (name, _), row in zip(changes, found, strict=True)}
    return _shared_out(problem, widths, _summed(inputs, by_source))


@torch.no_grad()
def squared_errors(problem: Problem, inputs: Sequence[Read]) -> dict[str, list[float]]:
    """||Q_a(x) - x||^2 of an image, averaged over the images, by source tensor and width."""
    total = {name: [0.0] * len(read.parameters) for read in inputs for name in read.tensors.sources}
    for images, _ in problem.batches:
        env = forward(problem.needed, {}, images)
        for name, i, error in _errors(env, inputs):
            total[name][i] += float(error.double().square().sum()) / problem.images
    return total


def _errors(env: Mapping[str, Tensor], inputs: Sequence[Read]) -> Iterator[tuple[str, int, Tensor]]:
    """(source tensor, index of the width, Q_a(x) - x)"""
    for read in inputs:
        for name in read.tensors.sources:
            for i, parameters in enumerate(read.parameters):
                yield name, i, rounded(env[name].detach(), parameters) - env[name].detach()


def activation_fisher(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """The mean over images of sum_j g_j^2 dx_j^2, where g is the gradient of the image's loss (empirical)."""
    problem = ready(problem, scheme)
    inputs = reads(problem, widths, scheme)
    total = {name: [0.0] * len(widths) for read in inputs for name in read.tensors.sources}
    for images, labels in problem.batches:
        for i in range(len(images)):
            slopes, env = _slopes(problem, list(total), images[i : i + 1], labels[i : i + 1])
            for name, width, error in _errors(env, inputs):
                total[name][width] += float((slopes[name] * error).double().square().sum()) / problem.images
    return _shared_out(problem, widths, _summed(inputs, total))


def _slopes(
    problem: Problem, names: Sequence[str], images: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss's gradient at each of the tensors, and all tensors."""
    env = forward(problem.needed, {}, images.detach().requires_grad_())
    loss = problem.checked_loss(env, problem.logits(env), labels)
    slopes = torch.autograd.grad(loss, [env[name] for name in names])
    return dict(zip(names, slopes, strict=True)), env


@torch.no_grad()
def activation_nsr(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """NSR (QA-BWNAS's, `nas.noise.nsr`) of the output, with this tensor rounded and nothing else."""
    problem = ready(problem, scheme)
    target = OutputReference.of(problem, [forward(problem.needed, {}, images) for images, _ in problem.batches])

    def nsr(read: Read, parameters: Parameters) -> float:
        return target.nsr([with_rounded(problem, read.tensors, parameters, images) for images, _ in problem.batches])

    inputs = reads(problem, widths, scheme)
    return _shared_out(problem, widths, [(read, [nsr(read, p) for p in read.parameters]) for read in inputs])


def with_rounded(problem: Problem, tensors: Shared, parameters: Parameters, images: Tensor) -> dict[str, Tensor]:
    """The outputs where the sources of these tensors are rounded."""
    env = {INPUT: rounded(images, parameters) if INPUT in tensors.sources else images}
    for node in problem.needed:
        y = node(env)
        env[node.name] = rounded(y, parameters) if node.name in tensors.sources else y
    return {name: env[name] for name in problem.outputs}


@torch.no_grad()
def activation_sqnr(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """1 / SQNR at the layer's own output, before its activation, with its input rounded; of the zero-mean signal."""
    problem = ready(problem, scheme)
    parameters = {name: read.parameters for read in reads(problem, widths, scheme) for name in read.tensors.readers}
    noise = np.zeros((len(problem.layers), len(widths)))
    signal = np.zeros((len(problem.layers), 1))
    for images, _ in problem.batches:
        env = forward(problem.needed, {}, images)
        for i, layer in enumerate(problem.layers):
            linear = replace(layer, activation="none")
            y = linear(env)
            signal[i] += signal_power(y)
            for j, of_width in enumerate(parameters[layer.name]):
                changed = linear({layer.x: rounded(env[layer.x], of_width)})
                noise[i, j] += float((changed - y).double().square().sum())
    names = tuple(layer.name for layer in problem.layers)
    return Perturbations(names, tuple(widths), noise / np.maximum(signal, 1e-12))


ACTIVATION_SENSITIVITIES: Mapping[str, Sensitivity] = {
    "hessian": ActivationHessian(),
    "quadratic": activation_quadratic,
    "fisher": activation_fisher,
    "nsr": activation_nsr,
    "sqnr": activation_sqnr,
}
"""From (problem, activation widths, scheme) to perturbations by reading layer; same keys as `SENSITIVITIES`."""
