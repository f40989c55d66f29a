"""Environments that are objects with a state, such as gymnasium's: rolled out row by row of a vector environment.

What cannot be batched: the simulator is stepped outside of torch, so it runs neither under `vmap` nor on a GPU. The
rollouts of one batch are one vector environment; tasks and clients follow one another.
"""

import atexit
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.rl.environment import Row
from fedmeta.rl.rollout import Rollout


@dataclass(frozen=True)
class Simulator:
    """The sizes of a gymnasium environment; see `fedmeta.rl.environment.Environment`.

    Attributes:
        env: its id.
        usual: the values of `vary` in a fresh one.
        vary: attributes that are set before a rollout.
        low, high: bounds of each number of an action, where actions are a Box.
        first: number of the first choice, where actions are choices.
    """

    env: str
    horizon: int
    observation: int
    actions: int
    discrete: bool
    vary: tuple[str, ...]
    usual: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    first: int = 0
    start: int = 1

    @property
    def physics(self) -> int:
        """The attributes that are set."""
        return len(self.vary)

    @classmethod
    def of(cls, env: str, horizon: int, vary: tuple[str, ...]) -> "Simulator":
        """Read the sizes from an environment made for it.

        Raises:
            ConfigurationError: gymnasium or the environment is not there, its spaces are not flat numbers and choices
                or a Box, or it has no such numeric attribute.
        """
        made, spaces = _gymnasium_environment(env), _gymnasium().spaces
        try:
            seen, acted = made.observation_space, made.action_space
            # By their types: other spaces have an `n` or a flat shape as well, and mean something else by it.
            discrete = isinstance(acted, spaces.Discrete)
            boxed = isinstance(acted, spaces.Box) and len(acted.shape) == 1
            if len(getattr(seen, "shape", None) or ()) != 1 or not (discrete or boxed):
                raise ConfigurationError(
                    f"data.env = '{env}' observes {seen} and acts by {acted}: a policy here sees a flat vector, and "
                    "answers with one choice or a flat vector. Wrap the environment (gymnasium.wrappers)"
                )
            usual = tuple(_attribute(made.unwrapped, name, env) for name in vary)
            actions = int(acted.n) if discrete else int(acted.shape[0])
            sizes = (env, horizon, int(seen.shape[0]), actions, discrete, vary, usual)
            if discrete:
                return cls(*sizes, first=int(acted.start))
            return cls(*sizes, tuple(map(float, acted.low)), tuple(map(float, acted.high)))
        finally:
            made.close()


class SimulatorRollout(Rollout):
    """A policy played in a gymnasium vector environment of as many copies as there are rows."""

    batchable = False

    def _play(self, row: Row) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        world: Any = self.environment
        copies = _vector(world.env, world.vary, len(row.start))
        # A task's physics are attributes of all its rollouts, set anew since another task may have played before.
        for name, values in zip(world.vary, row.physics.T.tolist(), strict=True):
            copies.set_attr(name, values)
        now, _ = copies.reset(seed=[int(seed) for seed in row.start[:, 0].tolist()])
        alive = torch.ones_like(row.draws[:, 0, 0])
        columns: tuple[list[Tensor], ...] = ([], [], [], [])
        for draw in row.draws.unbind(dim=1):
            observation = torch.as_tensor(now).to(row.draws) + row.shift
            action = self._act(observation, draw)
            now, rewards, over, cut, _ = copies.step(self._applied(action))
            earned = torch.as_tensor(rewards).to(row.draws)
            for column, value in zip(columns, (observation, action, earned, alive), strict=True):
                column.append(value)
            # What a finished copy does next is of the rollout after it, and does not count.
            alive = alive * torch.as_tensor(~(over | cut)).to(alive)
        seen, taken, earned_all, lived = (torch.stack(column, dim=1) for column in columns)
        return seen, taken, earned_all, lived

    def _applied(self, action: Tensor) -> np.ndarray:
        """As the environment takes it: choices `[n]`, or numbers `[n, actions]` within its bounds."""
        world: Any = self.environment
        chosen = action.cpu().numpy()
        return chosen + world.first if world.discrete else np.clip(chosen, world.low, world.high).astype(np.float32)


_KEPT: dict[tuple[str, tuple[str, ...], int], Any] = {}
"""Vector environments of this process by id, the attributes that are set, and copies; the last used stands last."""

MOST_KEPT = 32
"""Of so many sizes: support and query in training, in evaluation and under an attack are a dozen at most."""


def _vector(env: str, vary: tuple[str, ...], copies: int) -> Any:
    """A vector environment, made once a process: support and query are played in turn for hours.

    One whose attributes are set serves no other experiment, which would find them as the last task left them.
    """
    key = (env, vary, copies)
    if key not in _KEPT:
        if len(_KEPT) >= MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT))).close()
        _KEPT[key] = _gymnasium().make_vec(env, num_envs=copies, vectorization_mode="sync")
    _KEPT[key] = _KEPT.pop(key)
    return _KEPT[key]


@atexit.register
def close_environments() -> None:
    """Close what is kept; at the end of the process this happens by itself."""
    while _KEPT:
        _KEPT.popitem()[1].close()


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise ConfigurationError("data 'gymnasium' needs an extra: pip install 'fedmeta[gymnasium]'") from error
    return gymnasium


def _gymnasium_environment(env: str) -> Any:
    gymnasium = _gymnasium()
    try:
        return gymnasium.make(env)
    except gymnasium.error.Error as error:
        raise ConfigurationError(f"data.env = '{env}' cannot be made: {error}") from error


def _attribute(environment: Any, name: str, env: str) -> float:
    value = getattr(environment, name, None)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(f"data.vary names '{name}', and data.env = '{env}' has no such number: {value!r}")
    return float(value)
