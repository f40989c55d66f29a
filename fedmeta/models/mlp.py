"""Fully connected networks: MAML's for Omniglot and for sine waves (Finn et al. 2017, sections 5.1 and 5.2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from fedmeta.models.initialise import isolated_rng
from fedmeta.models.network import Network, Normalisation, check_groups, head, normalise
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class MLP:
    """Inputs flattened, then (linear, normalisation, ReLU) for each hidden size, and a linear head.

    >>> MLP(hidden=(8, 4), ways=5, normalisation="none").build().head
    Linear(in_features=4, out_features=5, bias=True)
    """

    input_shape: tuple[int, ...] = parameter((1, 28, 28), doc="shape of one input", ge=1)
    ways: int | None = parameter(None, doc="outputs of the head; none leaves it away, giving an embedding", ge=1)
    hidden: tuple[int, ...] = parameter((256, 128, 64, 64), doc="sizes of the hidden layers", ge=1)
    normalisation: Normalisation = parameter(
        "batch", doc="batch statistics (transductive), group normalisation, or none"
    )
    groups: int = parameter(8, doc="groups of group normalisation; must divide every hidden size", ge=1)

    @staticmethod
    def check_together(values: Mapping[str, Any], where: str) -> None:
        """Refuse groups that do not divide a hidden size."""
        check_groups(values, where, "hidden")

    def build(self) -> Network:
        """The network; inputs `[n, *input_shape]`."""
        return _perceptron(self.input_shape, self.hidden, self.ways, self.normalisation, self.groups)


@dataclass(frozen=True)
class SinusoidNet:
    """Two hidden layers of 40 with ReLU and no normalisation, for the regression of sine waves.

    >>> sum(p.numel() for p in SinusoidNet().build().parameters())
    1761
    """

    input_shape: tuple[int, ...] = parameter((1,), doc="shape of one input", ge=1)
    ways: int | None = parameter(1, doc="outputs of the head; none leaves it away, giving an embedding", ge=1)
    hidden: tuple[int, ...] = parameter((40, 40), doc="sizes of the hidden layers", ge=1)

    def build(self) -> Network:
        """The network; inputs `[n, *input_shape]`."""
        return _perceptron(self.input_shape, self.hidden, self.ways, "none", 1)


def _perceptron(
    input_shape: tuple[int, ...], hidden: tuple[int, ...], ways: int | None, normalisation: Normalisation, groups: int
) -> Network:
    width = math.prod(input_shape)
    layers: list[nn.Module] = [nn.Flatten()]
    with isolated_rng(0):
        for size in hidden:
            layers.append(nn.Linear(width, size, bias=normalisation != "batch"))
            layers += [*normalise(normalisation, size, groups), nn.ReLU()]
            width = size
        last = head(width, ways)
    return Network(nn.Sequential(*layers), last, transductive=normalisation == "batch", features=width)
