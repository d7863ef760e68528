"""The classification network: the search space's encoder with MobileNetV2's head.

Reference: Sandler et al., arXiv 1801.04381, table 2 (a 1x1 convolution to 1280 channels, global pooling, one
fully connected layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nas.networks.blocks import ConvBN
from nas.networks.segmenter import Encoder
from nas.settings import STRICT
from nas.space import Choice, SearchSpace


@dataclass(frozen=True)
class PooledHead:
    """The head of classification: a 1x1 convolution, the mean over positions, one fully connected layer.

    Attributes:
        features: channels of the convolution.
    """

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

    def head_of(self, x: Tensor) -> Tensor:
        pooled = self.features(x).mean((2, 3))
        logits: Tensor = self.classifier(pooled)
        return logits
