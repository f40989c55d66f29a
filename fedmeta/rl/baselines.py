"""Baselines: what of a return was to be expected whatever the policy did, so that estimates vary less."""

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["none", "time", "linear"]

RIDGE = 1e-5
"""Share of the ridge penalty of `linear` in a feature's mean square."""


def fit_baseline(kind: Baseline, returns: Tensor, observations: Tensor, alive: Tensor) -> Tensor:
    """Expected returns, without gradient.

    `none`: 0. `time`: the mean over the *other* rollouts at the same step, which leaves estimates unbiased; 0 for a
    single rollout. `linear`: ridge regression on o, o^2, t, t^2, t^3 and 1 over all rollouts (Duan et al. 2016), which
    knows the state, but has seen the return that it is taken from: a bias that shrinks with the number of rollouts.

    Args:
        kind: which.
        returns: `[n, horizon]`, discounted returns from each step on.
        observations: `[n, horizon, size]`.
        alive: `[n, horizon]`; steps after the end of a rollout are not fitted.

    Returns:
        `[n, horizon]`.

    >>> fit_baseline("time", torch.tensor([[1.0], [3.0], [5.0]]), torch.zeros(3, 1, 1), torch.ones(3, 1)).flatten()
    tensor([4., 3., 2.])
    """
    returns = returns.detach()
    if kind == "none" or (kind == "time" and len(returns) == 1):
        return torch.zeros_like(returns)
    if kind == "time":
        return (returns.sum(dim=0) - returns) / (len(returns) - 1)
    features = _features(observations.detach())
    seen = features * alive.detach().unsqueeze(-1)
    rows, targets = seen.flatten(0, 1), (returns * alive.detach()).flatten()
    gram = rows.T @ rows
    penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + penalty, (rows.T @ targets).unsqueeze(-1)).squeeze(-1)
    return features @ weights


def _features(observations: Tensor) -> Tensor:
    """`[n, horizon, size]` to `[n, horizon, 2 size + 4]`."""
    count, horizon, _ = observations.shape
    time = torch.linspace(0, 1, horizon, dtype=observations.dtype, device=observations.device)
    powers = torch.stack([time**0, time, time**2, time**3], dim=-1).expand(count, -1, -1)
    return torch.cat([observations, observations**2, powers], dim=-1)
