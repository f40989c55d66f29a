"""What other users think of items, and a user's mood: baselines of recommendation that learn nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.tasks import Baseline, Episode

ITEM_SHRINKAGE, USER_SHRINKAGE = 5.0, 5.0
"""Ratings of nothing in particular that are added to an item's (a user's) own before its mean is taken."""


@dataclass(frozen=True)
class User:
    """One user's ratings by time: items `[n, 1 + flags]` int64, the number first; targets `[n, 1]` float32."""

    name: str
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class ItemMeans:
    """What training users think of each item, for baselines that learn nothing about a user but her mood.

    Attributes:
        mean: of all targets.
        offsets: `[items]`, sum of (target - mean) / (ratings + ITEM_SHRINKAGE).
    """

    mean: float
    offsets: Tensor

    @classmethod
    def of(cls, users: Sequence[User], items: int) -> "ItemMeans":
        """From these users' ratings."""
        x, y = torch.cat([user.x[:, 0] for user in users]), torch.cat([user.y[:, 0] for user in users])
        mean = float(y.double().mean())
        sums = torch.zeros(items, dtype=y.dtype).index_add_(0, x, y - mean)
        return cls(mean, sums / (torch.bincount(x, minlength=items) + ITEM_SHRINKAGE))

    @property
    def baselines(self) -> dict[str, Baseline]:
        """By name."""
        return {
            "global mean": self.global_mean,
            "shrunk item mean": self.item_mean,
            "item mean + shrunk user offset": self.user_offset,
        }

    def global_mean(self, episode: Episode) -> Tensor:
        """The same for every query, `[queries, 1]`."""
        return torch.full_like(episode.query.y, self.mean)

    def item_mean(self, episode: Episode) -> Tensor:
        """Each item's, `[queries, 1]`."""
        return self.mean + self.offsets[episode.query.x[:, :1]]

    def user_offset(self, episode: Episode) -> Tensor:
        """Each item's, and by how much the user rates higher than others: the mean of her support, shrunk to 0."""
        residuals = episode.support.y - self.mean - self.offsets[episode.support.x[:, :1]]
        return self.item_mean(episode) + residuals.sum() / (len(residuals) + USER_SHRINKAGE)
