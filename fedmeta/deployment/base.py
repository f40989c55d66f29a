"""What defences at deployment have in common: a learner within, whose training they are no part of."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedmeta.deployment import DEPLOYMENTS
from fedmeta.errors import ConfigurationError
from fedmeta.learners.base import Adapted, MetaLearner, Metrics
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode, Task


@dataclass(frozen=True)
class Deployed(ABC):
    """A learner in use, which adapts and predicts as subclasses say.

    Attributes:
        learner: the one that trained the model.
    """

    learner: MetaLearner

    def __post_init__(self) -> None:
        if self.task.kind != "classification":
            raise ConfigurationError(
                f"evaluation.deployment: {DEPLOYMENTS.name_of(self)} needs classes, and this task is {self.task.kind}. "
                "Remove it"
            )

    @abstractmethod
    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Adapted]:
        """What a client keeps after each of the ascending numbers of steps."""

    @abstractmethod
    def predict(self, adapted: Adapted, x: Tensor) -> Tensor:
        """Logits `[n, ways]`."""

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Adapted:
        """What a client keeps after `steps` steps, by default the learner's own."""
        return next(self.trajectory(params, support, ways, (self.default_steps if steps is None else steps,)))

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.learner.model

    @property
    def task(self) -> Task:
        """How outputs are judged."""
        return self.learner.task

    @property
    def head(self) -> Any:
        """What the network ends in."""
        return self.learner.head

    @property
    def serves(self) -> tuple[str, ...]:
        """The task kinds that it can judge."""
        return ("classification",)

    @property
    def default_steps(self) -> int:
        """The learner's own."""
        return self.learner.default_steps

    def init(self, generator: torch.Generator) -> Params:
        """The learner's own."""
        return self.learner.init(generator)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """Refused.

        Raises:
            TypeError: a defence at deployment is no part of training.
        """
        raise TypeError(f"{type(self).__name__} is a defence at deployment, and does not train")
