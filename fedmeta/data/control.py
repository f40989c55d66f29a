"""What all environments share as data: how rollouts are judged, and episodes of rows that a policy is to play."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from fedmeta.data.base import EpisodeShape
from fedmeta.data.families import Family, FamilyFederation, federate_families
from fedmeta.parameters import parameter
from fedmeta.rl.baselines import Baseline
from fedmeta.rl.control import Control
from fedmeta.rl.environment import Environment, Layout, Row
from fedmeta.rl.estimators import Estimator
from fedmeta.rl.rollout import Rollout
from fedmeta.tasks import Batch, Episode


@dataclass(frozen=True)
class Tasks:
    """One client's tasks: physics of its own, and for each the draws of `shots` and `queries` rollouts.

    Attributes:
        layout: of an example.
        physics: draws one task's physics `[physics]`.
        start: draws `[n, start]` for so many rollouts.
        uniform: whether actions are drawn by uniform numbers, else by normal ones.
    """

    layout: Layout
    physics: Any
    start: Any
    uniform: bool

    def sample(self, shape: EpisodeShape, rng: np.random.Generator) -> Episode:
        """Support and query of one task: x `[n, width]`, y `[n]` ones. There are no classes, so ways do not count."""
        physics, layout, count = self.physics(rng), self.layout, shape.shots + shape.queries
        size = (count, layout.horizon, layout.draws)
        rows = layout.pack(
            Row(
                _tensor(np.broadcast_to(physics, (count, layout.physics))),
                _tensor(self.start(count, rng)),
                torch.zeros(count, layout.observation),
                _tensor(rng.random(size, dtype=np.float32) if self.uniform else rng.standard_normal(size)),
            )
        )
        k, y = shape.shots, torch.ones(count)
        return Episode(Batch(rows[:k], y[:k]), Batch(rows[k:], y[k:]), torch.zeros(0, dtype=torch.int64))


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


@dataclass(frozen=True)
class ControlData(ABC):
    """An environment with the estimator by which policies learn in it; subclasses say which, and what tasks there are.

    An example is a rollout to be played: the physics, and the random numbers of the actions, drawn beforehand. So the
    same parameters give the same rollouts, and every inner step of a task plays with the same numbers.
    """

    horizon: int = parameter(30, ge=1, doc="actions of a rollout", unit="actions")
    estimator: Estimator = parameter("loaded_dice", doc="surrogate whose derivatives estimate those of the return")
    decay: float = parameter(0.9, ge=0, le=1, doc="of loaded_dice: how far back products of scores are kept")
    baseline: Baseline = parameter(
        "time", doc="what is taken from returns: nothing, the others' mean at the same time, or a linear fit"
    )
    discount: float = parameter(0.99, gt=0, le=1, doc="of rewards, a step")
    normalise: bool = parameter(True, doc="divide advantages by their standard deviation over a batch of rollouts")

    @property
    @abstractmethod
    def environment(self) -> Environment:
        """Where policies act."""

    @property
    def task(self) -> Control:
        """How rollouts are judged."""
        return Control(self.estimator, self.baseline, self.discount, self.decay, self.normalise)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What a policy sees."""
        return (self.environment.observation,)

    @property
    def classes(self) -> int:
        """None: 0."""
        return 0

    @property
    def outputs(self) -> int:
        """What a policy gives: an action's mean, or logits of the choices."""
        return self.environment.actions

    def network(self, model: nn.Module) -> Rollout:
        """The model as a policy in this environment."""
        return Rollout(model, self.environment)

    def load(self) -> Self:
        """Nothing to load."""
        return self

    @abstractmethod
    def family(self, rng: np.random.Generator) -> Family:
        """One client's family of tasks."""

    @abstractmethod
    def everything(self) -> Family:
        """All tasks as one family."""

    def federate(self, partition: object, seed: int) -> FamilyFederation:
        """Clients with families of tasks, or all with all of them; see `federate_families`.

        Raises:
            ConfigurationError: a partition that divides examples.
        """
        return federate_families(self, partition, seed, type(self).__name__.lower())
