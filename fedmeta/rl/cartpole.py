"""Cart and pole (Barto, Sutton & Anderson 1983), with the equations and bounds of gymnasium's `CartPole-v1`."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.rl.environment import Step

GRAVITY, FORCE, INTERVAL = 9.8, 10.0, 0.02
"""Gravity [m/s^2], the force of a push [N], the time between two actions [s]."""

FURTHEST, STEEPEST = 2.4, math.radians(12)
"""Beyond this place [m] or angle [rad] the rollout is over."""


@dataclass(frozen=True)
class CartPole:
    """Keep a pole upright by pushing its cart left or right; every step that begins upright earns 1.

    A state, and what is seen, is place, speed, angle and angular speed. The physics are the mass of the cart [kg], the
    mass of the pole [kg], and half the pole's length [m].

    Attributes:
        horizon: pushes of a rollout.
    """

    observation: ClassVar[int] = 4
    actions: ClassVar[int] = 2
    discrete: ClassVar[bool] = True
    physics: ClassVar[int] = 3
    start: ClassVar[int] = 4

    horizon: int = 100

    def reset(self, start: Tensor, physics: Tensor) -> Tensor:
        """As given."""
        return start

    def observe(self, state: Tensor, physics: Tensor) -> Tensor:
        """All of the state."""
        return state

    def step(self, state: Tensor, action: Tensor, physics: Tensor) -> Step:
        """One push, `[n]` of 0 (left) or 1 (right), by Euler's method."""
        place, speed, angle, turning = state.unbind(dim=-1)
        cart, pole, length = physics.unbind(dim=-1)
        force = torch.where(action == 1, FORCE, -FORCE).to(state)
        total, sine, cosine = cart + pole, angle.sin(), angle.cos()
        push = (force + pole * length * turning**2 * sine) / total
        angular = (GRAVITY * sine - cosine * push) / (length * (4 / 3 - pole * cosine**2 / total))
        linear = push - pole * length * angular * cosine / total
        rates = torch.stack([speed, linear, turning, angular], dim=-1)
        after = state + INTERVAL * rates
        over = (after[..., 0].abs() > FURTHEST) | (after[..., 2].abs() > STEEPEST)
        return Step(after, torch.ones_like(place), over)
