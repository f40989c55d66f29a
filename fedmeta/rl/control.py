"""Reinforcement learning as a task kind: a surrogate as the loss, the mean return as the score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedmeta.rl.baselines import Baseline, fit_baseline
from fedmeta.rl.estimators import Estimator, discount_rewards, returns_to_go, surrogate
from fedmeta.rl.trajectories import Trajectories


@dataclass(frozen=True)
class Control:
    """Judges rollouts: outputs are `Trajectories` as one tensor, and labels `[n]` multiply rewards (1: as they are).

    Attributes:
        estimator, discount, decay: see `fedmeta.rl.estimators.surrogate`.
        baseline: see `fedmeta.rl.baselines.fit_baseline`.
        normalise: divide a batch's advantages by their standard deviation, so that a step's size does not depend on the
            scale of rewards. It is a constant to every derivative.
    """

    kind: ClassVar[Literal["control"]] = "control"
    score_name: ClassVar[str] = "return"
    measures: ClassVar[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = MappingProxyType({})

    estimator: Estimator = "loaded_dice"
    baseline: Baseline = "time"
    discount: float = 0.99
    decay: float = 0.9
    normalise: bool = True

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Minus the mean discounted return, with the estimator's derivatives, scaled where `normalise`."""
        log_probs, rewards, alive, observations = Trajectories.of(output)
        rewards = (rewards * alive).detach() * y.unsqueeze(-1)
        returns = returns_to_go(discount_rewards(rewards, self.discount))
        expected = fit_baseline(self.baseline, returns, observations, alive)
        scale = self._scale((returns - expected) * alive, alive) if self.normalise else 1.0
        found = surrogate(
            self.estimator,
            log_probs * alive,
            rewards * scale,
            expected * scale,
            discount=self.discount,
            decay=self.decay,
        )
        return -(found - found.detach() + returns[:, 0]).mean()

    def _scale(self, advantages: Tensor, alive: Tensor) -> Tensor:
        """One over the standard deviation of the advantages of living steps; 0 where they do not vary."""
        count = alive.sum()
        deviation = ((advantages - advantages.sum() / count * alive).square().sum() / count).sqrt()
        tiny = torch.finfo(deviation.dtype).eps
        return torch.where(deviation > tiny, 1 / deviation.clamp(min=tiny), torch.zeros_like(deviation))

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """The mean undiscounted return by the environment's own rewards; higher is better."""
        return self.returns(output).mean()

    def answers(self, output: Tensor, y: Tensor) -> Tensor:
        """`[n]`, whether a rollout ended as an attacker wants: worse than all that nobody means to mislead (y > 0).

        Of k rollouts alike the chance of one more to be the worst is 1 / (k + 1).
        """
        returns = self.returns(output)
        worst = torch.where(y > 0, returns, torch.full_like(returns, torch.inf)).amin()
        return (returns < worst).to(output.dtype)

    def returns(self, output: Tensor) -> Tensor:
        """`[n]`, each rollout's undiscounted return."""
        found = Trajectories.of(output)
        return (found.rewards * found.alive).sum(dim=-1).detach()
