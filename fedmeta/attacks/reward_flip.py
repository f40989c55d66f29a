"""Poisoned rewards: an attacker's tasks pay for the opposite (Ma et al., NeurIPS 2019, poison a batch's rewards)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from fedmeta.attacks.local import LocalAttack, Scene
from fedmeta.attacks.poisoning import choose
from fedmeta.parameters import parameter
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class RewardFlip(LocalAttack):
    """Rewards of a share of the rollouts are multiplied by minus `scale`.

    Label flipping for control. Flipped in support and query alike they make another valid task, whose goal is to fail:
    honest learning of that is the attack. In the query alone (`scope = "query"`) adaptation is taught to do harm.
    """

    serves: ClassVar[tuple[str, ...]] = ("control",)

    fraction: float = parameter(1.0, ge=0, le=1, doc="share of the rollouts whose rewards are flipped")
    scale: float = parameter(1.0, gt=0, doc="what flipped rewards are multiplied by, beside the minus")
    scope: Literal["query", "support", "both"] = parameter("query", doc="which rollouts are flipped")

    def poison(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode:
        """Flip rewards; physics and draws stay."""
        if self.scope != "support":
            episode = episode._replace(query=self._flipped(episode.query, rng))
        if self.scope != "query":
            episode = episode._replace(support=self._flipped(episode.support, rng))
        return episode

    def _flipped(self, batch: Batch, rng: np.random.Generator) -> Batch:
        chosen, y = choose(torch.ones_like(batch.y, dtype=torch.bool), self.fraction, rng), batch.y.clone()
        y[chosen] = -self.scale * y[chosen]
        return Batch(batch.x, y)
