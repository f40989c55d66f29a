"""Two-dimensional navigation (Finn et al. 2017, section 5.3): a point walks to a goal that it does not see."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.rl.environment import Step

STEP = 0.1
"""The largest step along each axis [units]."""


@dataclass(frozen=True)
class Navigation:
    """From the origin towards the goal; the reward is minus the distance to it after the step.

    A state is the place, and so is what is seen. An action is a step in units of `STEP`, cut to [-1, 1] on each axis.

    Attributes:
        horizon: steps of a rollout.
    """

    observation: ClassVar[int] = 2
    actions: ClassVar[int] = 2
    discrete: ClassVar[bool] = False
    physics: ClassVar[int] = 2
    start: ClassVar[int] = 0

    horizon: int = 30

    def reset(self, start: Tensor, physics: Tensor) -> Tensor:
        """The origin."""
        return torch.zeros_like(physics)

    def observe(self, state: Tensor, physics: Tensor) -> Tensor:
        """The place."""
        return state

    def step(self, state: Tensor, action: Tensor, physics: Tensor) -> Step:
        """Walk; a rollout never ends before its horizon.

        >>> world, goal = Navigation(), torch.tensor([[0.3, 0.4]])
        >>> world.step(torch.zeros(1, 2), torch.tensor([[0.0, 7.0]]), goal).state
        tensor([[0.0000, 0.1000]])
        """
        place = state + STEP * action.clamp(-1, 1)
        distance = (place - physics).square().sum(dim=-1).sqrt()
        return Step(place, -distance, torch.zeros_like(distance, dtype=torch.bool))
