"""The classification network: the search space's encoder as MobileNetV2 ends it.

Reference: Sandler et al., arXiv 1801.04381, table 2 (a 1x1 convolution to 1280 channels, global pooling, one
fully connected layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nas.networks.blocks import ConvBN
from nas.quant.float_graph import FullyConnected, Mean, Node, Softmax, fold_conv, fold_encoder
from nas.settings import STRICT
from nas.space import Architecture, Choice, SearchSpace
from nas.networks.segmenter import Encoder


@dataclass(frozen=True)
class PooledHead:
    """A 1x1 convolution to `features` channels, the mean over positions, one fully connected layer."""

    features: int = 1280
    __pydantic_config__ = STRICT


class Classifier(Encoder):
    """Encoder, 1x1 convolution to `features` channels, global mean, fully connected: (N, 3, H, W) to (N, classes)."""

    def __init__(
        self, space: SearchSpace, layers: Sequence[Sequence[Choice]], classes: int, features: int = 1280
    ) -> None:
        super().__init__(space, layers)
        self.features = ConvBN(space.blocks[-1].channels, features)
        self.classifier = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.features(self.boundaries(x)[-1]).mean((2, 3))
        logits: Tensor = self.classifier(pooled)
        return logits


def fold_classifier(
    model: Classifier, architecture: Architecture | None = None, *, probabilities: bool = False
) -> list[Node]:
    """The whole network from the image to `logits`, or to their softmax; block weights in `architecture`'s bits."""
    nodes = fold_encoder(model, architecture)
    linear = model.classifier
    nodes += [
        fold_conv(model.features, "features", nodes[-1].name),
        Mean("mean", "features"),
        FullyConnected("logits", "mean", linear.weight.detach(), linear.bias.detach()),
    ]
    return [*nodes, Softmax("probabilities", "logits")] if probabilities else nodes
