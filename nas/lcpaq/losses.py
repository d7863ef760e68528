"""Losses with a root of their Hessian, by which its trace is estimated (`nas.lcpaq.traces`).

Each is the mean over a batch of something convex in the network's output y, so B, the Hessian along y, has a root R
with B = RR'. For a z of independent signs the vector Rz has covariance B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.data.sample import IGNORE
from nas.networks.segmenter import upsampled
from nas.tasks.task import Task

Signs = Callable[[Tensor], Tensor]
"""Independent signs, +1 or -1, shaped as what it gets."""


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss, called with (output, labels).

    Attributes:
        value: from (output, labels) to a scalar.
        root: from (output, labels, signs) to Rz, shaped as the output; linear in what `signs` gives.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    root: Callable[[Tensor, Tensor, Signs], Tensor]

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        return self.value(output, labels)


def _softmax_root(scores: Tensor, known: Tensor, signs: Signs) -> Tensor:
    """Of the mean cross-entropy over what is `known`, along the scores (N, K, ...).

    One position's Hessian is diag(p) - pp' = RR' with R = diag(sqrt p) - p sqrt(p)', since p sums to 1.
    """
    p = scores.softmax(1)
    z = p.sqrt() * signs(p)
    return (z - p * z.sum(1, keepdim=True)) * known / known.sum().sqrt()


def _of_labels(scores: Tensor, _: Tensor, signs: Signs) -> Tensor:
    return _softmax_root(scores, torch.ones_like(scores[:, :1]), signs)


def _of_pixels(logits: Tensor, labels: Tensor, signs: Signs) -> Tensor:
    logits = logits.detach().requires_grad_()
    height, width = labels.shape[1:]
    with torch.enable_grad():
        scores = upsampled(logits, (height, width))
    known = (labels != IGNORE).unsqueeze(1).to(scores)
    (root,) = torch.autograd.grad(scores, logits, _softmax_root(scores.detach(), known, signs))
    return root


def loss_of(task: Task) -> Loss:
    """The task's: the mean cross-entropy of scores (N, classes), or over labelled pixels of (N, classes, h, w)."""
    return Loss(task.loss, _of_pixels if task.dense else _of_labels)


def flattened(loss: Loss) -> Loss:
    """`loss` of an output (N, classes, 1, 1)."""
    return Loss(
        lambda y, labels: loss.value(y.flatten(1), labels),
        lambda y, labels, signs: loss.root(y.flatten(1), labels, signs).view_as(y),
    )


def squared_distance(weights: Tensor) -> Loss:
    """The mean over images of the squared distance, element by element times `weights` (elements of one image,)."""

    def root(y: Tensor, _: Tensor, signs: Signs) -> Tensor:
        return signs(y) * (2 * weights / len(y)).sqrt().view_as(y[0])

    return Loss(lambda y, labels: ((y - labels).flatten(1).square() @ weights).mean(), root)
