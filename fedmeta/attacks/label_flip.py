"""Label flipping (Tolpegin et al., ESORICS 2020), for episodes."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedmeta.attacks.local import LocalAttack, Scene
from fedmeta.attacks.poisoning import random_labels, reverse_labels
from fedmeta.learners.functional import ways_of
from fedmeta.parameters import parameter
from fedmeta.tasks import Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment


@dataclass(frozen=True)
class LabelFlip(LocalAttack):
    """Answer y with C - 1 - y, C the number of slots.

    In an episode slots are names that are dealt at random: flipped in support and query alike (`scope = "both"`) they
    make another valid episode, on which honest learning goes on as before. So the query alone is flipped (`query`), or
    every chosen query is given a wrong slot of its own draw (`random`). With an odd C the middle slot flips to itself.
    """

    fraction: float = parameter(1.0, ge=0, le=1, doc="share of the examples that are flipped")
    scope: Literal["query", "support", "random", "both"] = parameter(
        "query", doc="what is flipped; random: queries to slots drawn one by one; both: no attack on episodes"
    )

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Warn of the scope that is no attack."""
        super().check(experiment, data)
        if self.scope == "both" and self.fraction == 1 and experiment.task.kind == "episodes":
            warnings.warn(
                "attack.method.scope = 'both' is no attack on episodes: slots flipped in support and query alike are "
                "another valid episode. Use query or random",
                stacklevel=6,
            )

    def poison(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode:
        """Flip labels; inputs stay."""
        ways = ways_of(episode)
        if self.scope == "random":
            return episode._replace(query=random_labels(episode.query, ways, self.fraction, rng))
        if self.scope in ("query", "both"):
            episode = episode._replace(query=reverse_labels(episode.query, ways, self.fraction, rng))
        if self.scope in ("support", "both"):
            episode = episode._replace(support=reverse_labels(episode.support, ways, self.fraction, rng))
        return episode
