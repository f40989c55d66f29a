"""Prototypical networks (Snell et al. 2017)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics, OuterLoss
from fedmeta.learners.functional import forward, query_loss, ways_of
from fedmeta.models.initialise import initialise
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode, Task


class Prototypes(NamedTuple):
    """What a client keeps: the embedding, and the class means `[ways, features]`."""

    params: Params
    means: Tensor


@dataclass(frozen=True)
class ProtoNet:
    """Nearest class mean in a learned embedding (Snell et al. 2017, equations 1 and 2, algorithm 1).

    c_k = mean of f(x) over class k's support; logits of a query are -||f(x) - c_k||^2; the gradient is that of the
    query's cross-entropy. There are no inner steps: before the support is seen all prototypes are zero,
    which is chance.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification",)
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "embedding"

    model: nn.Module
    task: Task

    def init(self, generator: torch.Generator) -> Params:
        """The embedding's own initialisation."""
        return initialise(self.model, generator)

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Prototypes]:
        """Zero prototypes for 0 steps, class means for any other number."""
        means = class_means(forward(self.model, params, support.x), support.y, ways)
        for count in steps:
            yield Prototypes(params, means if count else torch.zeros_like(means))

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Prototypes:
        """Class means of the support's embeddings."""
        return next(self.trajectory(params, support, ways, (self.default_steps if steps is None else steps,)))

    def predict(self, adapted: Prototypes, x: Tensor) -> Tensor:
        """Negative squared distances `[n, ways]` to the prototypes."""
        return -squared_distances(forward(self.model, adapted.params, x), adapted.means)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """d/dtheta of the query's cross-entropy, through queries and prototypes."""
        return self.query_gradient(params, episode, query_loss)

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """As `meta_gradient`, of another outer loss."""

        def objective(theta: Params) -> tuple[Tensor, Metrics]:
            adapted = self.adapt(theta, episode.support, ways_of(episode), 1)
            return outer(self, adapted, episode.query)

        grads, _, metrics = value_and_grad(objective, params)
        return grads, metrics

    @property
    def training_steps(self) -> int:
        """1, the support seen."""
        return 1

    @property
    def default_steps(self) -> int:
        """Steps in use: 1, the support seen."""
        return 1


def class_means(z: Tensor, y: Tensor, ways: int) -> Tensor:
    """Mean embedding of each class: `[n, features]` and slots `[n]` to `[ways, features]`; zero for an absent class.

    >>> class_means(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2).tolist()
    [[1.0], [5.0]]
    """
    # A product with one-hot rows, because vmap cannot batch indexing by a mask.
    members = (y == torch.arange(ways, device=y.device).unsqueeze(-1)).to(z.dtype)
    return (members @ z) / members.sum(dim=-1, keepdim=True).clamp(min=1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances: `[n, d]` and `[m, d]` to `[n, m]`.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0]])).tolist()
    [[0.0], [25.0]]
    """
    # |a|^2 + |b|^2 - 2ab is a matrix product instead of an [n, m, d] tensor. Distances do not change under translation,
    # and about the centre the three terms are small, so that little is lost when they cancel.
    centre = b.mean(dim=0)
    a, b = a - centre, b - centre
    return (a * a).sum(dim=-1, keepdim=True) + (b * b).sum(dim=-1) - 2 * a @ b.transpose(-1, -2)
