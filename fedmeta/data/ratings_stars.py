"""How ratings are judged and learnt by: stars, their absolute error, and the order of a user's list."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmeta.tasks import Measure, Regression

CENTRE = 3.5
"""Targets are stars less this, so that a model begins near the middle."""

TOP = 10
"""Items that a list shows."""


def ndcg(output: Tensor, y: Tensor, top: int = TOP) -> Tensor:
    """nDCG@10 of one user's held-out items: gains 2^stars - 1 over log2(rank + 1), as a share of the best order's.

    Items of equal output stay in the order of the queries.

    Args:
        output: `[n, 1]`.
        y: `[n, 1]`, stars less `CENTRE`.

    >>> stars = torch.tensor([[1.5], [-2.5], [0.5]])
    >>> ndcg(stars, stars).item(), round(ndcg(-stars, stars).item(), 3)
    (1.0, 0.634)
    """
    gains = 2.0 ** (y[:, 0] + CENTRE) - 1
    order = torch.sort(output[:, 0], descending=True, stable=True).indices
    discounts = 1 / torch.log2(torch.arange(2, min(top, len(gains)) + 2, dtype=gains.dtype, device=gains.device))
    best = torch.sort(gains, descending=True).values
    return (gains[order][: len(discounts)] * discounts).sum() / (best[: len(discounts)] * discounts).sum()


SUPPORT = 10
"""Ratings over which a sum of losses is divided where each rating counts alike."""


@dataclass(frozen=True)
class Stars(Regression):
    """Mean absolute error in stars as the score, and nDCG@10 beside it.

    Learnt by is squared error or, since the score is an absolute error, Huber's loss: squared / 2 up to one star, and
    from there |error| - 1/2. It is a batch's mean, or its sum / 10, so that users who rated more weigh more.
    """

    score_name: str = "mae"
    measures: Mapping[str, Measure] = field(default_factory=lambda: {"nDCG@10": ndcg})
    by: Literal["squared", "huber"] = "squared"
    alike: Literal["users", "ratings"] = "users"

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Of `[n, 1]` against `[n, 1]`.

        Raises:
            ValueError: the shapes differ.

        >>> errors = torch.tensor([[0.5], [2.0]])
        >>> Stars(by="huber").loss(errors, torch.zeros(2, 1))  # (1/8 + 3/2) / 2
        tensor(0.8125)
        """
        mean = super().loss(output, y)
        if self.by == "huber":
            mean = F.huber_loss(output, y)
        return mean * (len(y) / SUPPORT) if self.alike == "ratings" else mean

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean absolute error of `[n, 1]` against `[n, 1]`."""
        return (output - y).abs().mean()

    def answers(self, output: Tensor, y: Tensor) -> Tensor:
        """`[n]`, 1 for an item among the ten best of `[n, 1]`: fewer than ten are better.

        Items of equal output share the places that are left: a model that ranks nothing is at chance, ten of n.
        """
        better = (output[:, 0] > output).sum(dim=1).to(output.dtype)  # of `[n, n]`
        alike = (output[:, 0] == output).sum(dim=1).to(output.dtype)
        return ((TOP - better) / alike.clamp(min=1)).clamp(0, 1)
