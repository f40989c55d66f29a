"""A model under suspicion: what it answers, once adapted to each of some clean episodes, to inputs that are stamped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.learners import LEARNERS
from fedmeta.learners.base import Adapted, MetaLearner
from fedmeta.learners.functional import ways_of
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode

Stamp = Callable[[Tensor], Tensor]
"""Inputs `[n, *shape]` to stamped ones, differentiable."""

Where = Literal["query", "both"]


@dataclass(frozen=True, eq=False)
class Suspect:
    """Meta-parameters, and the clean episodes on which they are examined.

    Attributes:
        learner: that adapts.
        params: the model.
        episodes: clean, at least one.
        steps: of adaptation.
        stamped: what carries the stamp: queries, or also the support of the wanted slot before the model adapts to it.
    """

    learner: MetaLearner
    params: Params
    episodes: Sequence[Episode]
    steps: int
    stamped: Where = "query"

    def __post_init__(self) -> None:
        if self.stamped == "both" and self._differentiable is None:
            raise ConfigurationError(
                f"a trigger on supports can be inverted only through an adaptation that keeps its gradients, which "
                f"learner '{LEARNERS.name_of(self.learner)}' does not: look for one on queries"
            )

    @property
    def slots(self) -> int:
        """Slots that every episode has."""
        return min(ways_of(episode) for episode in self.episodes)

    def answers(self, stamp: Stamp, slot: int, chosen: Sequence[int] | None = None) -> Tensor:
        """Logits `[n, ways]` of the stamped queries whose true slot is another than `slot`, episode after episode.

        The other queries are judged beside them, as they are: a network of batch statistics sees all of an episode.

        Args:
            stamp: what is put on inputs.
            slot: the wanted one.
            chosen: indices of episodes; None: all.
        """
        return torch.cat(
            [self._answer(i, stamp, slot) for i in (range(len(self.episodes)) if chosen is None else chosen)]
        )

    def _answer(self, index: int, stamp: Stamp, slot: int) -> Tensor:
        episode = self.episodes[index]
        adapted = self._clean[index] if self.stamped == "query" else self._adapt(episode, stamp, slot)
        eligible = episode.query.y != slot
        output = self.learner.predict(adapted, put(stamp, episode.query.x, eligible))
        return output[eligible]

    def _adapt(self, episode: Episode, stamp: Stamp, slot: int) -> Adapted:
        support = Batch(put(stamp, episode.support.x, episode.support.y == slot), episode.support.y)
        assert self._differentiable is not None
        return next(iter(self._differentiable(self.params, support, ways_of(episode), (self.steps,))))

    @cached_property
    def _clean(self) -> list[Adapted]:
        """What each episode's clean support makes of the model."""
        return [
            self.learner.adapt(self.params, episode.support, ways_of(episode), self.steps) for episode in self.episodes
        ]

    @property
    def _differentiable(self) -> Any:
        """An adaptation through which gradients reach the support; None where there is none."""
        embedding = self.learner.head == "embedding"
        return self.learner.trajectory if embedding else getattr(self.learner, "unrolled", None)


def put(stamp: Stamp, x: Tensor, where: Tensor) -> Tensor:
    """Inputs `[n, *shape]`, stamped where `where` (`[n]` bool) holds."""
    return torch.where(where.view(-1, *[1] * (x.dim() - 1)), stamp(x), x)
