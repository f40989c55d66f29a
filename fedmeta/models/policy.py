"""Policies: small networks with tanh, whose first actions are near the middle."""

import math
from dataclasses import dataclass

from torch import nn

from fedmeta.models.initialise import isolated_rng
from fedmeta.models.network import Network
from fedmeta.parameters import parameter


class NearZero(nn.Linear):
    """A linear layer that starts with small weights: a fresh policy prefers nothing, and gradients are large enough."""

    def reset_parameters(self) -> None:
        """Weights uniform within a hundredth of the usual range, no bias."""
        bound = 0.01 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


@dataclass(frozen=True)
class Policy:
    """Observations flattened, (linear, tanh) for each hidden size, and a linear head that starts near zero.

    >>> sum(p.numel() for p in Policy(input_shape=(2,), ways=2).build().parameters())
    4482
    """

    input_shape: tuple[int, ...] = parameter((2,), doc="shape of one observation", ge=1)
    ways: int | None = parameter(2, doc="outputs: an action's means or logits", ge=1)
    hidden: tuple[int, ...] = parameter((64, 64), doc="sizes of the hidden layers", ge=1)

    def build(self) -> Network:
        """The network; observations `[n, *input_shape]`."""
        width = math.prod(self.input_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        with isolated_rng(0):
            for size in self.hidden:
                layers += [nn.Linear(width, size), nn.Tanh()]
                width = size
            last = None if self.ways is None else NearZero(width, self.ways)
        return Network(nn.Sequential(*layers), last, features=width)
