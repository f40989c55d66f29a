"""MAML's convolutional network for Omniglot (Finn et al. 2017, section 5.2): stride 2 instead of pooling."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.models.initialise import isolated_rng
from fedmeta.models.network import Network, Normalisation, check_groups, head, normalise
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class Conv4:
    """Four blocks of (3x3 convolution of stride 2, normalisation, ReLU), features flattened, a linear head.

    28x28 images become 14, 7, 4 and 2 pixels wide: 4 * filters features. The authors' code averages the last 2x2
    positions; here they are kept, which suits ProtoNet's distances. No pooling: 3.7 times fewer multiply-adds, and no
    argmax whose near-ties let float32 runs drift apart.

    >>> sum(p.numel() for p in Conv4(filters=32, ways=5).build().parameters())
    28837
    """

    input_shape: tuple[int, ...] = parameter((1, 28, 28), doc="channels, height and width of an image", ge=1)
    ways: int | None = parameter(None, doc="outputs of the head; none leaves it away, giving an embedding", ge=1)
    filters: int = parameter(64, doc="channels of every layer", ge=1)
    normalisation: Normalisation = parameter(
        "batch", doc="batch statistics (transductive), group normalisation, or none"
    )
    groups: int = parameter(8, doc="groups of group normalisation; must divide filters", ge=1)

    @staticmethod
    def check_together(values: Mapping[str, Any], where: str) -> None:
        """Refuse groups that do not divide filters."""
        check_groups(values, where)

    def build(self) -> Network:
        """The network; inputs `[n, *input_shape]`.

        Raises:
            ConfigurationError: an input that is not channels, height and width.
        """
        if len(self.input_shape) != 3:
            raise ConfigurationError(
                f"model conv4 takes images [channels, height, width], not {list(self.input_shape)}. Use model mlp"
            )
        channels, *sides = self.input_shape
        layers: list[nn.Module] = []
        with isolated_rng(0):
            for _ in range(4):
                # The normalisation has a shift of its own; under batch statistics a bias would cancel exactly.
                layers.append(
                    nn.Conv2d(channels, self.filters, 3, stride=2, padding=1, bias=self.normalisation == "none")
                )
                layers += [*normalise(self.normalisation, self.filters, self.groups), nn.ReLU()]
                channels, sides = self.filters, [(side + 1) // 2 for side in sides]
            features = channels * math.prod(sides)
            last = head(features, self.ways)
        body = nn.Sequential(*layers, nn.Flatten())
        return Network(body, last, transductive=self.normalisation == "batch", features=features)
