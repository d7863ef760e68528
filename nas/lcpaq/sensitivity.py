"""The sensitivity of each layer to its weight bits: the perturbation tables that LCPAQ's integer program sums.

Omega_i(b) is for layer i at b bits and all others unquantized. "hessian" is HAWQ-V2's (arXiv 1911.03852): the mean
Hessian trace times ||Q_b(W_i) - W_i||^2. The paper publishes no other kinds; these are ours: "quadratic" is the
Hessian's quadratic form of that error itself, which need not lie as evenly in all directions as a mean trace assumes;
"fisher" weights each weight's squared error by its own mean squared gradient, "nsr" measures the noise at the network's
output, "sqnr" at the layer's. Q_b is the deployed quantizer, `nas.quant.weights.quantize_weight`, which rounds to
nearest; in "quadratic" also as the scheme rounds few bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import ConfigError
from nas.lcpaq.hessian import Problem, forward, quadratic_forms
from nas.lcpaq.policy import WEIGHT_BITS
from nas.lcpaq.traces import PRECISION, Precision, Samples, Trace, estimated
from nas.noise import NsrReference
from nas.quant import post_training
from nas.quant.file_order import dimension
from nas.quant.float_graph import INPUT, Node, Weighted
from nas.quant.lower import parameters_of
from nas.quant.ranges import calibrate, observer_of
from nas.quant.scheme import DEFAULT, Scheme
from nas.quant.weights import quantize_weight


@dataclass(frozen=True, eq=False)
class Perturbations:
    """Omega_i(b): `values` is (layers, widths), in the network's order and in that of `widths`; none is negative."""

    names: tuple[str, ...]
    widths: tuple[int, ...]
    values: NDArray[np.float64]

    @property
    def table(self) -> dict[str, dict[int, float]]:
        """By layer and width, as `nas.lcpaq.options.options_of` takes it."""
        return {
            name: dict(zip(self.widths, row, strict=True))
            for name, row in zip(self.names, self.values.tolist(), strict=True)
        }


NEAREST: Mapping[str, Tensor] = MappingProxyType({})
Sensitivity = Callable[[Problem, Sequence[int], Scheme], Perturbations]


def ready(problem: Problem, scheme: Scheme) -> Problem:
    """The problem of the network that `scheme` rounds: equalized where it equalizes."""
    calibration = [{INPUT: images} for images, _ in problem.batches]
    return replace(problem, nodes=post_training.prepared(problem.needed, calibration, scheme))


@torch.no_grad()
def rounded(node: Weighted, bits: int, input_scale: float, scheme: Scheme) -> Tensor:
    """The layer's weight in the deployed integers, as real values."""
    quantized = quantize_weight(replace(node, bits=bits), input_scale, scheme.granularity, scheme.few_bits)
    scale = quantized.scale.reshape(-1, *[1] * (quantized.weight.ndim - 1))
    real = quantized.weight.astype(np.float32) * scale
    return torch.from_numpy(real).to(node.weight)


def input_scales(problem: Problem, scheme: Scheme) -> dict[str, float]:
    """For each layer the scale of its input, on which the rounding of (nearly) dead channels depends."""
    ranges = calibrate(problem.needed, [images for images, _ in problem.batches], observer_of(scheme.observer))
    parameters = parameters_of(ranges | {INPUT: problem.input_range})
    return {layer.name: parameters[layer.x][0] for layer in problem.layers}


def candidates(
    problem: Problem, widths: Sequence[int], scheme: Scheme, grams: Mapping[str, Tensor] = NEAREST
) -> Iterator[tuple[Weighted, list[Tensor]]]:
    """Each layer with its rounded weight at each width; `grams`: of `grams_to_round`, for adaptive rounding."""
    wrong = [bits for bits in widths if bits not in WEIGHT_BITS]
    if wrong or not widths:
        raise ConfigError(f"sensitivity: weights take 2 to 8 bits, not {wrong[0] if wrong else 'none'}")
    scales = input_scales(problem, scheme)
    for layer in problem.layers:
        at_widths = [post_training.rounded([replace(layer, bits=bits)], grams, scheme) for bits in widths]
        nodes = [node for (node,) in at_widths if isinstance(node, Weighted)]
        yield layer, [rounded(node, node.bits, scales[layer.name], scheme) for node in nodes]


def _perturbations(names: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[float]]) -> Perturbations:
    return Perturbations(tuple(names), tuple(widths), np.array(rows, np.float64).reshape(len(names), len(widths)))


def squared_errors(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """||Q_b(W_i) - W_i||^2 of a problem that is `ready`."""
    names, rows = [], []
    for layer, weights in candidates(problem, widths, scheme):
        names.append(layer.name)
        rows.append([float((weight - layer.weight).double().square().sum()) for weight in weights])
    return _perturbations(names, widths, rows)


@dataclass(frozen=True)
class Hessian:
    """HAWQ-V2's perturbation: the mean trace (`nas.lcpaq.traces`) times ||dW||^2."""

    precision: Precision = PRECISION

    def __call__(self, problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
        problem = ready(problem, scheme)
        *_, last = self.estimated(problem)
        return self.by_trace(problem, widths, scheme, last)

    def estimated(
        self, problem: Problem, known: Sequence[Samples] = (), keep: Callable[[Samples], None] | None = None
    ) -> Iterator[dict[str, Trace]]:
        """The traces after each round, of a problem that is `ready`."""
        return estimated(problem, self.precision, known=known, keep=keep)

    @staticmethod
    def by_trace(
        problem: Problem, widths: Sequence[int], scheme: Scheme, estimates: Mapping[str, Trace]
    ) -> Perturbations:
        """Omega_i(b) of a problem that is `ready`, from known traces."""
        errors = squared_errors(problem, widths, scheme)
        return replace(errors, values=errors.values * np.array([[estimates[name].mean] for name in errors.names]))


def quadratic(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """dW'H dW of the layer's own error dW, H in its Gauss-Newton form."""
    problem = ready(problem, scheme)
    calibration = [{INPUT: images} for images, _ in problem.batches]
    layers = [layer.name for layer in problem.layers] if scheme.rounding != "nearest" else []
    grams = post_training.grams_to_round(problem.needed, calibration, layers)
    names, rows = [], []
    for layer, weights in candidates(problem, widths, scheme, grams):
        names.append(layer.name)
        (forms,) = quadratic_forms(problem, [layer], [[weight - layer.weight for weight in weights]])
        rows.append([max(form, 0.0) for form in forms])  # as with traces
    return _perturbations(names, widths, rows)


def fisher(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """sum_j F_j dW_j^2, where F_j is the mean over images of the squared gradient of an image's loss (empirical)."""
    problem = ready(problem, scheme)
    diagonal = fisher_diagonal(problem)
    names, rows = [], []
    for layer, weights in candidates(problem, widths, scheme):
        names.append(layer.name)
        rows.append([float(((weight - layer.weight).square() * diagonal[layer.name]).sum()) for weight in weights])
    return _perturbations(names, widths, rows)


def fisher_diagonal(problem: Problem) -> dict[str, Tensor]:
    """The mean over images of each weight's squared gradient, float64, shaped as the weights."""
    weights = {layer.name: layer.weight.detach().requires_grad_() for layer in problem.layers}
    total = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in weights.items()}
    for images, labels in problem.batches:
        for i in range(len(images)):
            loss = problem.loss_of(weights, images[i : i + 1], labels[i : i + 1])
            gradients = torch.autograd.grad(loss, list(weights.values()))
            for name, gradient in zip(weights, gradients, strict=True):
                total[name] += gradient.double().square()
    return {name: squares / problem.images for name, squares in total.items()}


@torch.no_grad()
def output_nsr(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """NSR (QA-BWNAS's, `nas.noise.nsr`) of the output, with this layer's weights rounded and nothing else."""
    problem = ready(problem, scheme)
    batches = [forward(problem.needed, {}, images) for images, _ in problem.batches]
    target = OutputReference.of(problem, batches)
    names, rows = [], []
    for layer, weights in candidates(problem, widths, scheme):
        names.append(layer.name)
        changed = [replace(layer, weight=weight) for weight in weights]
        rows.append([target.nsr([_rerun(problem, env, node) for env in batches]) for node in changed])
    return _perturbations(names, widths, rows)


@dataclass(frozen=True, eq=False)
class OutputReference:
    """What the NSR of the outputs is against, by their names."""

    maps: Mapping[str, NsrReference]

    @classmethod
    def of(cls, problem: Problem, batches: Sequence[Mapping[str, Tensor]]) -> OutputReference:
        """The results in `batches`."""
        return cls({name: NsrReference(torch.cat([_as_map(env[name]) for env in batches])) for name in problem.outputs})

    def nsr(self, batches: Sequence[Mapping[str, Tensor]]) -> float:
        """Of the results in `batches`; of several outputs the mean."""
        return fmean(target.nsr(_as_map(env[name]) for env in batches) for name, target in self.maps.items())


def _as_map(y: Tensor) -> Tensor:
    """(N, C, H, W), also of a tensor of another rank, whose last axis has the channels."""
    return y if y.ndim == 4 else y.movedim(-1, 1).reshape(len(y), y.shape[-1], -1, 1)


def _rerun(problem: Problem, env: Mapping[str, Tensor], changed: Weighted) -> dict[str, Tensor]:
    """The outputs where one node is `changed`: only the nodes after it are computed."""
    names = [node.name for node in problem.needed]
    here = dict(env)
    rest: list[Node] = [changed, *problem.needed[names.index(changed.name) + 1 :]]
    for node in rest:
        here[node.name] = node(here)
    return {name: here[name] for name in problem.outputs}


@torch.no_grad()
def layer_sqnr(problem: Problem, widths: Sequence[int], scheme: Scheme = DEFAULT) -> Perturbations:
    """1 / SQNR at the layer's own output, before its activation: noise power over the power of the zero-mean signal."""
    problem = ready(problem, scheme)
    layers = list(candidates(problem, widths, scheme))
    noise = np.zeros((len(layers), len(widths)))
    signal = np.zeros((len(layers), 1))
    for images, _ in problem.batches:
        env = forward(problem.needed, {}, images)
        for i, (layer, weights) in enumerate(layers):
            linear = replace(layer, activation="none")
            y = linear(env)
            signal[i] += signal_power(y)
            noise[i] += [float((replace(linear, weight=w)(env) - y).double().square().sum()) for w in weights]
    return Perturbations(tuple(layer.name for layer, _ in layers), tuple(widths), noise / np.maximum(signal, 1e-12))


def signal_power(y: Tensor) -> float:
    """The summed squares of what differs from the mean of its channel."""
    others = [axis for axis in range(y.ndim) if axis != dimension(y, -1)]
    return float((y - y.mean(others, keepdim=True)).double().square().sum())


SENSITIVITIES: Mapping[str, Sensitivity] = {
    "hessian": Hessian(),
    "quadratic": quadratic,
    "fisher": fisher,
    "nsr": output_nsr,
    "sqnr": layer_sqnr,
}
"""From (problem, weight widths, scheme) to perturbations; values of different kinds cannot be compared."""
