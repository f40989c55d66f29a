"""A network over numbered items, whose last layer learners adapt to a user (as MeLU, Lee et al. 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedmeta.errors import ConfigurationError
from fedmeta.models.initialise import isolated_rng
from fedmeta.models.network import Network
from fedmeta.parameters import parameter

SPREAD = 0.1
"""Standard deviation of a fresh item's vector: small, so that an item that nobody rated says little."""


class ItemEmbedding(nn.Embedding):
    """A vector for each item."""

    def reset_parameters(self) -> None:
        """Small draws."""
        nn.init.normal_(self.weight, std=SPREAD)


class Liking(nn.Embedding):
    """A number for each item."""

    def reset_parameters(self) -> None:
        """Zero: nothing is known."""
        nn.init.zeros_(self.weight)


class ItemFeatures(nn.Module):
    """An item's own number, its vector, and what a small perceptron makes of that, side by side.

    The number begins at 0, and the head at 1 times it: what all think of an item is learnt without a detour. Flags that
    say what an item is (a film's genres) enter the perceptron beside the vector, and serve items that nobody rated.

    Args:
        codes: items.
        size: of the vectors.
        hidden: sizes of the perceptron's layers.
        flags: that an input has beside its item's number.
    """

    def __init__(self, codes: int, size: int, hidden: tuple[int, ...], flags: int = 0) -> None:
        super().__init__()
        self.liking = Liking(codes, 1)
        self.items = ItemEmbedding(codes, size)
        layers: list[nn.Module] = []
        size += flags
        for width in hidden:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        self.perceptron = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """int64 `[n, 1 + flags]` to `[n, 1 + size + hidden[-1]]`; without hidden layers flags stand by themselves."""
        vector = self.items(x[:, 0])
        known = torch.cat([vector, x[:, 1:].to(vector.dtype)], dim=-1)
        return torch.cat([self.liking(x[:, 0]), vector, self.perceptron(known)], dim=-1)


class UserHead(nn.Linear):
    """A user's own weights."""

    def reset_parameters(self) -> None:
        """1 for an item's own number, small draws for the rest, no bias."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight[:, 0] = 1.0
            if self.bias is not None:
                self.bias.zero_()


@dataclass(frozen=True)
class Items:
    """Item embedding, small perceptron, linear head. Under ANIL only the head is adapted: a user's own weights.

    The embedding is shared: which of its rows a client's update moves tells what she rated (see docs/scenarios.md).

    >>> sum(p.numel() for p in Items(codes=10, embedding=4, hidden=(8,)).build().parameters())
    104
    """

    input_shape: tuple[int, ...] = parameter(
        (1,), doc="an item's number, and flags of 0 or 1 that say what it is", ge=1
    )
    ways: int | None = parameter(1, doc="outputs of the head; none leaves it away, giving an embedding", ge=1)
    codes: int = parameter(1000, doc="items", ge=1)
    embedding: int = parameter(8, doc="size of an item's vector", ge=1)
    hidden: tuple[int, ...] = parameter((32, 16), doc="sizes of the perceptron's layers", ge=1)

    def build(self) -> Network:
        """The network; inputs int64 `[n, 1 + flags]`.

        Raises:
            ConfigurationError: inputs of another shape.
        """
        if len(self.input_shape) != 1:
            raise ConfigurationError(
                f"model items takes an item's number and flags, [1 + flags], not {list(self.input_shape)}: use another "
                "model"
            )
        flags = self.input_shape[0] - 1
        features = 1 + self.embedding + (self.hidden[-1] if self.hidden else self.embedding + flags)
        with isolated_rng(0):
            body = ItemFeatures(self.codes, self.embedding, self.hidden, flags)
            last = None if self.ways is None else UserHead(features, self.ways)
        return Network(body, last, features=features)
