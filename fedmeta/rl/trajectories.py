"""What a rolled-out policy gives back, as one tensor: so that it passes wherever a network's output does."""

from typing import NamedTuple

import torch
from torch import Tensor


class Trajectories(NamedTuple):
    """Rollouts of one policy.

    Attributes:
        log_probs: `[n, horizon]`, of the actions taken; the only part that a gradient passes.
        rewards: `[n, horizon]`.
        alive: `[n, horizon]`, 1 until the rollout ends and 0 afterwards, where nothing else counts.
        observations: `[n, horizon, size]`, what the policy saw before each action.
    """

    log_probs: Tensor
    rewards: Tensor
    alive: Tensor
    observations: Tensor

    def packed(self) -> Tensor:
        """`[n, horizon, 3 + size]`; `Trajectories.of` reads it back."""
        scalars = torch.stack([self.log_probs, self.rewards, self.alive], dim=-1)
        return torch.cat([scalars, self.observations], dim=-1)

    @classmethod
    def of(cls, output: Tensor) -> "Trajectories":
        """The parts of `[n, horizon, 3 + size]`."""
        return cls(output[..., 0], output[..., 1], output[..., 2], output[..., 3:])
