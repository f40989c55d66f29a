"""A network whose cells choose among operations: differentiable architecture search (Liu et al. 2019, DARTS)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmeta.errors import ConfigurationError
from fedmeta.models.initialise import isolated_rng
from fedmeta.models.network import Network, Normalisation, check_groups, head, normalise
from fedmeta.parameters import parameter

OPERATIONS = ("skip", "conv3", "conv5", "pool")
"""What an edge of a cell may do: nothing, a 3x3 or a 5x5 convolution, or an average over 3x3."""

ALPHA = re.compile(r"body\.(\d+)\.alpha\.(\d+)")
"""The name of the `alpha` of a cell's edge."""


@dataclass(frozen=True)
class Cells:
    """A 3x3 stem and cells of `nodes` nodes, each cell followed by an average over 2x2 (or what is left of a side).

    Node j of a cell is the sum over all nodes before it, the cell's input among them, of
    sum_o softmax(alpha)_o o(x) (DARTS, equation 2); a cell's output is its last node. Every edge of every cell has its
    own `alpha` `[4]`, named `body.<cell>.alpha.<edge>`: parameters like any other, so that they are meta-learnt,
    travel, and are aggregated, clipped and attacked with the rest. `strongest` reads the choice off them; given as
    `chosen` it is the network without a choice, to be trained by itself.

    >>> net = Cells(filters=4, cells=1, nodes=2, ways=5).build()
    >>> [name for name, _ in net.named_parameters() if "alpha" in name]
    ['body.1.alpha.0', 'body.1.alpha.1', 'body.1.alpha.2']
    """

    input_shape: tuple[int, ...] = parameter((1, 28, 28), doc="channels, height and width of an image", ge=1)
    ways: int | None = parameter(None, doc="outputs of the head; none leaves it away, giving an embedding", ge=1)
    filters: int = parameter(16, doc="channels of every layer", ge=1)
    cells: int = parameter(3, doc="cells, each of which halves the sides", ge=1, le=1000)
    nodes: int = parameter(2, doc="nodes of a cell beside its input", ge=1, le=100)
    chosen: tuple[str, ...] = parameter(
        (), doc="operation of every edge, cell by cell: skip, conv3, conv5 or pool; empty: to be searched"
    )
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
            ConfigurationError: an input that is no image, or a choice that does not fit the edges.
        """
        if len(self.input_shape) != 3:
            raise ConfigurationError(
                f"model cells takes images [channels, height, width], not {list(self.input_shape)}. Use model mlp"
            )
        choices = self._choices()
        channels, *sides = self.input_shape
        with isolated_rng(0):
            layers: list[nn.Module] = [self._conv(channels, 3)]
            for own in choices:
                layers += [Cell([self._edge(choice) for choice in own]), Halve()]
                sides = [max(1, side // 2) for side in sides]
            features = self.filters * math.prod(sides)
            last = head(features, self.ways)
        body = nn.Sequential(*layers, nn.Flatten())
        return Network(body, last, transductive=self.normalisation == "batch", features=features)

    @property
    def edges(self) -> int:
        """Edges of a cell."""
        return self.nodes * (self.nodes + 1) // 2

    def _choices(self) -> list[list[str | None]]:
        """The operation of every edge by cell; None where it is searched."""
        wanted = self.cells * self.edges
        if self.chosen and len(self.chosen) != wanted:
            raise ConfigurationError(
                f"model.chosen has {len(self.chosen)} operations, and {self.cells} cells of {self.edges} edges need "
                f"{wanted}"
            )
        unknown = sorted(set(self.chosen) - set(OPERATIONS))
        if unknown:
            raise ConfigurationError(f"model.chosen names '{unknown[0]}': use {', '.join(OPERATIONS)}")
        flat: list[str | None] = [*self.chosen] or [None] * wanted
        return [flat[start : start + self.edges] for start in range(0, wanted, self.edges)]

    def _edge(self, choice: str | None) -> nn.ModuleList:
        return nn.ModuleList([self._operation(name) for name in ([choice] if choice else OPERATIONS)])

    def _operation(self, name: str) -> nn.Module:
        if name == "skip":
            return nn.Identity()
        if name == "pool":
            return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        return self._conv(self.filters, 3 if name == "conv3" else 5)

    def _conv(self, channels: int, size: int) -> nn.Module:
        conv = nn.Conv2d(channels, self.filters, size, padding=size // 2, bias=self.normalisation == "none")
        return nn.Sequential(conv, *normalise(self.normalisation, self.filters, self.groups), nn.ReLU())


class Cell(nn.Module):
    """Nodes that sum mixed operations over all nodes before them; `[n, channels, h, w]` to the same.

    Args:
        edges: operations of every edge, node by node. An edge of one operation has no `alpha`.
    """

    def __init__(self, edges: list[nn.ModuleList]) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)
        searched = [nn.Parameter(torch.zeros(len(edge))) for edge in edges if len(edge) > 1]
        self.alpha = nn.ParameterList(searched)

    def reset_parameters(self) -> None:
        """All operations alike."""
        for alpha in self.alpha:
            nn.init.zeros_(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """The last node."""
        nodes, edge = [x], 0
        while edge < len(self.edges):
            terms = [self._mixed(edge + place, node) for place, node in enumerate(nodes)]
            edge += len(nodes)
            nodes.append(torch.stack(terms).sum(dim=0))
        return nodes[-1]

    def _mixed(self, edge: int, x: Tensor) -> Tensor:
        operations: nn.ModuleList = self.edges[edge]  # type: ignore[assignment]
        if len(operations) == 1:
            return operations[0](x)
        weights = self.alpha[edge].softmax(dim=0)
        return sum(
            (weight * operation(x) for weight, operation in zip(weights.unbind(), operations, strict=True)),
            start=torch.zeros_like(x),
        )


class Halve(nn.Module):
    """The average over 2x2; a side of one stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, h, w]` to half the sides, rounded down, at least 1."""
        return F.avg_pool2d(x, (min(2, x.shape[-2]), min(2, x.shape[-1])))


def strongest(params: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The operation of the largest `alpha` of every edge, cell by cell: what `chosen` takes.

    Cells and edges go by their numbers, whatever the order of the names (a file may sort them as text, 10 before 2);
    of equal operations the first in `OPERATIONS` is taken. Only the network's own alphas count, not what a learner
    keeps beside them under their names (Meta-SGD's step sizes, personal copies).

    >>> strongest({"body.1.alpha.0": torch.tensor([0.0, 1.0, 0.0, 0.0]), "head.weight": torch.zeros(2, 2)})
    ('conv3',)
    """
    found = {(int(place[1]), int(place[2])): params[name] for name in params if (place := ALPHA.fullmatch(name))}
    # `tolist` and `index`, since which of several largest entries `argmax` gives is not promised.
    values = [found[place].detach().flatten().tolist() for place in sorted(found)]
    return tuple(OPERATIONS[alphas.index(max(alphas))] for alphas in values)
