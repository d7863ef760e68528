"""The trace of the loss's Hessian along every layer's weights, without computing the Hessian.

That Hessian is J'BJ: J is the derivative of the network's output by one layer's weights, and B is the loss's Hessian
at the output. A searched network is piecewise linear in any one layer's weights (convolutions, sums, RELU, maxima),
kinks ignored, and J'BJ is all of it; where a network has curved operators (sigmoid, products of maps) it is the
Gauss-Newton form, and all of it again where the loss has no slope, as the squared distance of the outputs to their
own values has none.

Hutchinson's estimate, as in HAWQ-V2 (arXiv 1911.03852) and LCPAQ, is the mean of z'J'BJz over signs z of the weights:
a pass through the network for each layer and z, since z over all layers at once has cross terms that dominate in small
layers. The same trace is that of R'JJ'R with B = RR' (`nas.lcpaq.losses`), so it is also the mean of ||J'Rz||^2 over
signs z of the output (Martens, Sutskever and Swersky's curvature propagation, arXiv 1206.6464): one backward pass is a
sample for every layer, and its cross terms are none of another layer's. Both matrices have the same eigenvalues, so as
many samples are as exact; batches are sampled separately, which leaves out cross terms between their images.
All of it holds for activations as for weights, image by image: no image's activations change another's loss.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nas.errors import ConfigError
from nas.lcpaq.hessian import Problem, forward

PROBES_PER_ROUND = 8  # of one forward pass
LEAST_PROBES = 16  # before a standard error is used

Samples = Mapping[str, Sequence[float]]
"""Of one round: by tensor, an estimate of its trace from each of the round's probes."""


@dataclass(frozen=True)
class Trace:
    """The estimated trace of a Hessian over `size` weights, or over one image's activations.

    `converged` is false where the limit on probes was reached before the required standard error.
    """

    trace: float
    standard_error: float
    size: int
    probes: int
    converged: bool

    @property
    def mean(self) -> float:
        """The trace per weight (or per activation), HAWQ-V2's sensitivity."""
        return self.trace / self.size


@dataclass(frozen=True)
class Precision:
    """How closely traces are estimated.

    Attributes:
        relative_error: a tensor needs no more probes when its standard error is at most this share of its trace.
        most_probes: a limit.
        seed: of the probes.
    """

    relative_error: float = 0.05
    most_probes: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.relative_error > 0 or self.most_probes < LEAST_PROBES:
            raise ConfigError(f"sensitivity: give a relative error above 0 and at least {LEAST_PROBES} probes")


PRECISION = Precision()


def estimated(
    problem: Problem,
    precision: Precision = PRECISION,
    *,
    tensors: Sequence[str] | None = None,
    known: Sequence[Samples] = (),
    keep: Callable[[Samples], None] | None = None,
) -> Iterator[dict[str, Trace]]:
    """Every layer's `Trace` after each round of probes, until all are exact enough or out of probes.

    `tensors`: activations instead, whose traces are those of one image's Hessian, averaged over the images. `keep` is
    called with each new round; `known` are the first rounds, as it got them, and are not computed again. Raises
    `QuantizationError` where the loss is not finite.
    """
    sizes = _sizes(problem, tensors)
    samples: dict[str, list[float]] = {name: [] for name in sizes}
    estimates: dict[str, Trace] = {}
    active = list(sizes)
    for number, start in enumerate(range(0, precision.most_probes, PROBES_PER_ROUND)):
        if number < len(known):
            found = known[number]
        else:
            count = min(PROBES_PER_ROUND, precision.most_probes - start)
            found = sampled(problem, active, count, f"{precision.seed}/{number}", activations=tensors is not None)
            if keep is not None:
                keep(found)
        for name in active:
            samples[name] += found[name]
            estimates[name] = _trace(samples[name], sizes[name], precision.relative_error)
        yield dict(estimates)
        active = [name for name in active if not estimates[name].converged]
        if not active:
            return


def traces(
    problem: Problem, precision: Precision = PRECISION, tensors: Sequence[str] | None = None
) -> dict[str, Trace]:
    """The last of `estimated`."""
    *_, last = estimated(problem, precision, tensors=tensors)
    return last


def sampled(problem: Problem, names: Sequence[str], count: int, seed: str, *, activations: bool) -> Samples:
    """||J'Rz||^2 for each tensor (a layer's weights, or activations) and each of `count` vectors of signs z."""
    total = torch.zeros(len(names), count, dtype=torch.float64)
    for number, (images, labels) in enumerate(problem.batches):
        weights = {layer.name: layer.weight.detach().requires_grad_() for layer in problem.layers if not activations}
        env = forward(problem.needed, weights, images.detach().requires_grad_(activations))
        y = problem.logits(env)
        problem.checked_loss(env, y.detach(), labels)
        at = [(env if activations else weights)[name] for name in names]
        share, generator = len(images) / problem.images, generator_of(f"{seed}/{number}")
        for probe in range(count):
            root = problem.loss.root(y.detach(), labels, partial(signs, generator=generator))
            slopes = torch.autograd.grad(y, at, root, retain_graph=probe + 1 < count)
            norms = [slope.square().sum(dtype=torch.float64) for slope in slopes]
            total[:, probe] += share * torch.stack(norms).cpu()
    return dict(zip(names, total.tolist(), strict=True))


def _sizes(problem: Problem, tensors: Sequence[str] | None) -> dict[str, int]:
    if tensors is None:
        return {layer.name: layer.weight.numel() for layer in problem.layers}
    with torch.no_grad():
        env = forward(problem.needed, {}, problem.batches[0][0][:1])
    return {name: env[name].numel() for name in tensors}


def _trace(samples: Sequence[float], size: int, relative_error: float) -> Trace:
    count = len(samples)
    mean = math.fsum(samples) / count
    variance = math.fsum((sample - mean) ** 2 for sample in samples) / max(count - 1, 1)
    error = math.sqrt(variance / count)
    converged = count >= LEAST_PROBES and error <= relative_error * mean
    return Trace(mean, error, size, count, converged)


def generator_of(seed: str) -> torch.Generator:
    return torch.Generator().manual_seed(random.Random(seed).getrandbits(63))


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn on the CPU: the same on every device."""
    return (torch.randint(2, like.shape, generator=generator) * 2 - 1).to(like)
