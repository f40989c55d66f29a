"""A small convolutional network over characters, for snippets of text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedmeta.errors import ConfigurationError
from fedmeta.models.initialise import isolated_rng
from fedmeta.models.network import Network, Normalisation, check_groups, head, normalise
from fedmeta.parameters import parameter


class ByteEmbedding(nn.Module):
    """Code points by their two bytes: the sum of a vector of the lower and one of the higher.

    Args:
        size: of a vector.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.low, self.high = nn.Embedding(256, size), nn.Embedding(256, size)

    def forward(self, x: Tensor) -> Tensor:
        """int64 `[n, characters]` in [0, 65536) to `[n, size, characters]`."""
        return (self.low(x % 256) + self.high(x // 256)).transpose(-1, -2)


class MeanAndMax(nn.Module):
    """Over positions: how much there is of a feature, and whether it occurs at all."""

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, positions]` to `[n, 2 * channels]`."""
        return torch.cat([x.mean(dim=-1), x.amax(dim=-1)], dim=-1)


@dataclass(frozen=True)
class TextConv:
    """Embedded characters, (convolution, normalisation, ReLU) for each layer, mean and maximum over positions, a head.

    With kernels of 3 the first layer sees trigrams, the second five characters. No recurrence: it runs under `vmap`.

    >>> sum(p.numel() for p in TextConv(embedding=8, channels=16, layers=2).build().parameters())
    5344
    """

    input_shape: tuple[int, ...] = parameter((30,), doc="characters of a snippet", ge=1)
    ways: int | None = parameter(None, doc="outputs of the head; none leaves it away, giving an embedding", ge=1)
    embedding: int = parameter(32, doc="size of a character's vector", ge=1)
    channels: int = parameter(128, doc="of every layer", ge=1)
    layers: int = parameter(2, doc="convolutions", ge=1, le=1000)
    kernel: int = parameter(3, doc="characters that a convolution sees", ge=1, unit="characters")
    normalisation: Normalisation = parameter(
        "group", doc="batch statistics (transductive), group normalisation, or none"
    )
    groups: int = parameter(8, doc="groups of group normalisation; must divide channels", ge=1)

    @staticmethod
    def check_together(values: Mapping[str, Any], where: str) -> None:
        """Refuse groups that do not divide channels."""
        check_groups(values, where, "channels")

    def build(self) -> Network:
        """The network; inputs int64 `[n, characters]`.

        Raises:
            ConfigurationError: inputs that are no snippets, or shorter than the kernel.
        """
        if len(self.input_shape) != 1 or self.input_shape[0] < self.kernel:
            raise ConfigurationError(
                f"model text takes snippets [characters] of model.kernel = {self.kernel} or more, not "
                f"{list(self.input_shape)}: use another model, or longer snippets"
            )
        size = self.embedding
        with isolated_rng(0):
            layers: list[nn.Module] = [ByteEmbedding(size)]
            for _ in range(self.layers):
                layers.append(nn.Conv1d(size, self.channels, self.kernel, padding=self.kernel // 2))
                layers += [*normalise(self.normalisation, self.channels, self.groups), nn.ReLU()]
                size = self.channels
            last = head(2 * size, self.ways)
        return Network(
            nn.Sequential(*layers, MeanAndMax()),
            last,
            transductive=self.normalisation == "batch",
            features=2 * size,
        )
