"""What a detector of adversarial queries sees: a model that has adapted to a support, and inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.learners.base import Adapted, MetaLearner
from fedmeta.learners.functional import embed, ways_of
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class View:
    """A model in use on one task.

    Attributes:
        learner, params: the model before adaptation.
        support: clean examples that it has adapted to.
        ways: class slots.
        adapted: what it adapted to.
    """

    learner: MetaLearner
    params: Params
    support: Batch
    ways: int
    adapted: Adapted

    @classmethod
    def of(cls, learner: MetaLearner, params: Params, episode: Episode) -> "View":
        """Of an episode's support, after the learner's own number of steps."""
        ways = ways_of(episode)
        return cls(learner, params, episode.support, ways, learner.adapt(params, episode.support, ways))

    def logits(self, x: Tensor) -> Tensor:
        """Answers `[n, ways]`."""
        return self.learner.predict(self.adapted, x)

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings `[n, features]` of the adapted model."""
        own: Any = getattr(self.adapted, "params", self.adapted)
        return embed(self.learner, own, x)


class Detector(Protocol):
    """A score of queries; higher is more suspicious.

    Scores are differentiable in the inputs, through rounding by the straight-through estimator: an attacker who knows
    the detector is to have a gradient.
    """

    def fitted(self, learner: MetaLearner, params: Params, episodes: Sequence[Episode]) -> "Detector":
        """The detector for a model, from clean episodes of meta-training classes."""
        ...

    def scores(self, view: View, x: Tensor) -> Tensor:
        """`[n]` of inputs `[n, *shape]`, each by itself."""
        ...


@dataclass(frozen=True)
class NeedsNoFit:
    """A detector that the model's episodes of meta-training tell nothing."""

    def fitted(self, learner: MetaLearner, params: Params, episodes: Sequence[Episode]) -> Any:
        """Itself."""
        return self


def require_one_model(learner: MetaLearner, detector: str) -> None:
    """Refuse a learner that adapts to several models at once, which have no common embedding.

    Raises:
        ConfigurationError: names the learner and the remedy.
    """
    from fedmeta.learners.abml import ABML

    if isinstance(learner, ABML):
        raise ConfigurationError(
            f"detector '{detector}' takes one adapted model's embedding, and learner 'abml' draws several: leave it out"
        )
