"""A policy played in an environment: the network that a meta-learner is given."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from fedmeta.rl.environment import Environment, Layout, Row, TensorEnvironment
from fedmeta.rl.trajectories import Trajectories


class Rollout(nn.Module):
    """Rows of `fedmeta.rl.environment.Row` `[n, width]` to `Trajectories` `[n, horizon, 3 + observation]`.

    The same parameters and rows give the same rollouts, since a row holds the draws of its actions. Actions are drawn
    without gradient; then one pass over all observations gives the log-probabilities, through which gradients pass. All
    rollouts, tasks and clients are one batch; the loop is over time alone.

    Args:
        policy: `[n, observation]` to means `[n, actions]` of a Gaussian, or logits `[n, actions]` where discrete.
        environment: in which it acts.
        std: of a fresh Gaussian policy, learnt from there (`log_std`); not used where actions are discrete.
    """

    def __init__(self, policy: nn.Module, environment: Environment, std: float = 1.0) -> None:
        super().__init__()
        self.policy = policy
        self.environment = environment
        self.layout = Layout.of(environment)
        self.transductive = bool(getattr(policy, "transductive", False))
        self._first = math.log(std)
        if not environment.discrete:
            self.log_std = nn.Parameter(torch.full((environment.actions,), self._first))

    def reset_parameters(self) -> None:
        """The first standard deviation; the policy's layers have their own."""
        if not self.environment.discrete:
            nn.init.constant_(self.log_std, self._first)

    def forward(self, x: Tensor) -> Tensor:
        """Play every row."""
        row = self.layout.unpack(x)
        with torch.no_grad():
            observations, actions, rewards, alive = self._play(row)
        log_probs = self._log_probs(observations, actions)
        return Trajectories(log_probs, rewards, alive, observations).packed()

    def _play(self, row: Row) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Observations `[n, horizon, size]`, actions, rewards and life `[n, horizon]`."""
        world = cast(TensorEnvironment, self.environment)
        state, alive = world.reset(row.start, row.physics), torch.ones_like(row.physics[:, 0])
        columns: tuple[list[Tensor], ...] = ([], [], [], [])
        for draw in row.draws.unbind(dim=1):
            observation = world.observe(state, row.physics) + row.shift
            action = self._act(observation, draw)
            found = world.step(state, action, row.physics)
            for column, value in zip(columns, (observation, action, found.reward, alive), strict=True):
                column.append(value)
            state, alive = found.state, alive * (~found.over).to(alive)
        seen, taken, earned, lived = (torch.stack(column, dim=1) for column in columns)
        return seen, taken, earned, lived

    def _act(self, observation: Tensor, draw: Tensor) -> Tensor:
        output = self.policy(observation)
        if not self.environment.discrete:
            return output + self.log_std.exp() * draw
        below = output.softmax(dim=-1).cumsum(dim=-1)[:, :-1] <= draw
        return below.sum(dim=-1)

    def _log_probs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """`[n, horizon]`."""
        output = self.policy(observations.flatten(0, 1)).unflatten(0, observations.shape[:2])
        if self.environment.discrete:
            return output.log_softmax(dim=-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        standard = (actions - output) * (-self.log_std).exp()
        return (-0.5 * standard**2 - self.log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)
