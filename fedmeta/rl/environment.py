"""Environments as tensors: pure functions of a batch, so that they run under `vmap` and on any device."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Step(NamedTuple):
    """What an action leads to: the next state, the reward `[n]`, and whether the rollout is over `[n]` bool."""

    state: Tensor
    reward: Tensor
    over: Tensor


class Environment(Protocol):
    """The sizes of a Markov decision process whose physics are data: one row of numbers per rollout."""

    @property
    def horizon(self) -> int:
        """Actions of a rollout."""
        ...

    @property
    def observation(self) -> int:
        """Numbers that a policy sees."""
        ...

    @property
    def actions(self) -> int:
        """Numbers of an action, or the number of choices where `discrete`."""
        ...

    @property
    def discrete(self) -> bool:
        """Whether an action is one of several choices."""
        ...

    @property
    def physics(self) -> int:
        """Numbers that tell one task from another, such as a goal or masses."""
        ...

    @property
    def start(self) -> int:
        """Numbers that a rollout starts from."""
        ...


class TensorEnvironment(Environment, Protocol):
    """One that is a function of tensors."""

    def reset(self, start: Tensor, physics: Tensor) -> Tensor:
        """The first state `[n, state]` from `[n, start]` and `[n, physics]`."""
        ...

    def observe(self, state: Tensor, physics: Tensor) -> Tensor:
        """`[n, observation]`."""
        ...

    def step(self, state: Tensor, action: Tensor, physics: Tensor) -> Step:
        """One action: `[n, actions]` floats, or `[n]` int64 where discrete."""
        ...


class Row(NamedTuple):
    """One rollout's data: what an example is here.

    Attributes:
        physics: `[n, physics]`.
        start: `[n, start]`.
        shift: `[n, observation]`, added to every observation: 0 but for an attacker's trigger.
        draws: `[n, horizon, d]`, the randomness of the actions: standard normal of d = actions numbers, or uniform in
            [0, 1) of d = 1 where actions are discrete.
    """

    physics: Tensor
    start: Tensor
    shift: Tensor
    draws: Tensor


@dataclass(frozen=True)
class Layout:
    """Where the parts of a `Row` lie in an example of the batch, `[n, width]`."""

    horizon: int
    physics: int
    start: int
    observation: int
    draws: int

    @classmethod
    def of(cls, environment: Environment) -> "Layout":
        """The layout of an environment's rollouts."""
        draws = 1 if environment.discrete else environment.actions
        return cls(environment.horizon, environment.physics, environment.start, environment.observation, draws)

    @property
    def shift(self) -> slice:
        """The columns of `Row.shift`."""
        begin = self.physics + self.start
        return slice(begin, begin + self.observation)

    def pack(self, row: Row) -> Tensor:
        """`[n, width]`."""
        return torch.cat([row.physics, row.start, row.shift, row.draws.flatten(-2)], dim=-1)

    def unpack(self, x: Tensor) -> Row:
        """The inverse of `pack`."""
        sizes = (self.physics, self.start, self.observation, self.horizon * self.draws)
        physics, start, shift, draws = x.split(sizes, dim=-1)
        return Row(physics, start, shift, draws.unflatten(-1, (self.horizon, self.draws)))
