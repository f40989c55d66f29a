"""Square attack (Andriushchenko et al., ECCV 2020, algorithms 1 and 2): random search by outputs alone."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.base import Evasion, Logits, along, per_unit, worst_of
from fedmeta.evasion.losses import margin
from fedmeta.learners.draws import uniform
from fedmeta.parameters import parameter

SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 queries, those after which the share of changed pixels halves."""


@dataclass(frozen=True)
class Square(Evasion):
    """Squares of +-eps at random places of an image, kept where the margin rises; Linf.

    It begins with vertical stripes of +-eps. At query i a square of side sqrt(share h w) gets one sign a channel, and
    stays where the mean margin of the unit's outputs is higher for it. The share is `share` at first and halves by the
    paper's schedule, stretched to the number of queries. No gradient is asked for, so that it works where these are
    masked, and on the support of any learner.
    """

    black_box: ClassVar[bool] = True

    queries: int = parameter(300, doc="outputs that are asked for; the paper takes 5,000 to 10,000", ge=1)
    share: float = parameter(0.8, doc="of the pixels that the first square covers", gt=0, le=1)

    def __call__(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Tensor:
        """See `Evasion`.

        Raises:
            ConfigurationError: see `check`.
        """
        self.check(tuple(x.shape[ball.lead :]), ball)
        with torch.no_grad():
            found = ball.project(x + ball.eps * _stripes(x, ball.lead, seed), x)
            highest = per_unit(margin(logits_of(found), y))
            for query in range(1, self.queries):
                change = 2 * ball.eps * _squares(x, ball.lead, self.side(query, x.shape), seed, query)
                tried = ball.project(found + change, x)
                value = per_unit(margin(logits_of(tried), y))
                better = value > highest
                found = torch.where(along(better, x), tried, found)
                highest = torch.where(better, value, highest)
        return worst_of(logits_of, y, [x, found])

    def check(self, shape: tuple[int, ...], ball: Ball) -> None:
        """Refuse another norm than Linf, and inputs that are no images `[channels, height, width]`."""
        if ball.norm != "linf":
            raise ConfigurationError(
                f"evasion 'square' is the Linf form of the attack, and norm = '{ball.norm}': use pgd or apgd_ce, or "
                "linf"
            )
        if len(shape) != 3:
            raise ConfigurationError(
                "evasion 'square' changes squares of images [channels, height, width], and inputs are "
                f"{list(shape)}: use pgd or apgd_ce"
            )

    def side(self, query: int, shape: tuple[int, ...]) -> int:
        """Of the square at a query, in pixels, for images of height and width `shape[-2:]`."""
        place = 10_000 * query // self.queries
        share = self.share / 2 ** sum(place > bound for bound in SCHEDULE)
        height, width = shape[-2:]
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def _stripes(x: Tensor, lead: int, seed: Tensor) -> Tensor:
    """A sign for every column of every channel, `[*lead, channels, 1, width]`."""
    return _signs((*x.shape[: lead + 1], 1, x.shape[-1]), seed, 0).to(x.dtype)


def _squares(x: Tensor, lead: int, side: int, seed: Tensor, query: int) -> Tensor:
    """0, but +-1 by channel within a square at a random place of each example; shaped as x."""
    examples, (height, width) = x.shape[:lead], x.shape[-2:]
    top, left = (
        (uniform(seed, 3 * query + axis, math.prod(examples)) * (size - side + 1)).long().reshape(*examples, 1, 1, 1)
        for axis, size in ((1, height), (2, width))
    )
    rows = torch.arange(height, device=x.device).unsqueeze(-1) - top
    columns = torch.arange(width, device=x.device) - left
    within = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return within.to(x.dtype) * _signs((*x.shape[: lead + 1], 1, 1), seed, 3 * query).to(x.dtype)


def _signs(shape: tuple[int, ...], seed: Tensor, stream: int) -> Tensor:
    return torch.where(uniform(seed, stream, math.prod(shape)).reshape(shape) < 0.5, -1.0, 1.0)
