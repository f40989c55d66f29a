"""Surrogates whose derivatives estimate those of a policy's expected return, of the first order and of the second.

Notation: l_t = log pi(a_t | s_t); box(x) = exp(x - x without gradient), which is 1 and whose every derivative is that
of e^x at 0 (Foerster et al. 2018, the "magic box"); R_t = sum of discount^k r_k over k >= t; A_t = R_t - b_t for a
baseline b_t that does not depend on the action. All surrogates have the same, exact expected gradient,
E sum_t grad l_t A_t. They differ in the second derivative, which MAML's meta-gradient contains.
"""

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["plain", "lvc", "dice", "loaded_dice"]


def surrogate(
    estimator: Estimator, log_probs: Tensor, rewards: Tensor, baseline: Tensor, *, discount: float, decay: float
) -> Tensor:
    """One number per rollout, to be averaged and differentiated; its value is the rollout's discounted return.

    `plain`: sum_t l_t A_t (REINFORCE; Williams 1992). Its Hessian lacks all products of scores.
    `lvc`: sum_t box(l_t) A_t (Rothfuss et al. 2019, ProMP, equation 7). Lacks products across time: low variance.
    `dice`: sum_t box(l_0 + ... + l_t) discount^t r_t + sum_t (1 - box(l_t)) b_t (Foerster et al. 2018, equations 5 and
    9). Unbiased in every derivative, of high variance.
    `loaded_dice`: sum_t (box(w_t) - box(w_t - l_t)) A_t with w_t = decay w_{t-1} + l_t (Farquhar et al. 2019, algorithm
    1). Unbiased at decay 1; a smaller decay gives up bias for variance, and 0 is LVC.

    Args:
        estimator: which.
        log_probs: `[..., horizon]`, 0 after the end of a rollout.
        rewards: `[..., horizon]`, likewise.
        baseline: `[..., horizon]`, b_t of the discounted R_t above; taken as a constant.
        discount: in (0, 1].
        decay: of `loaded_dice`, in [0, 1].

    Returns:
        `[...]`.

    >>> l = torch.log(torch.tensor([0.5, 0.25]))
    >>> surrogate("dice", l, torch.tensor([1.0, 2.0]), torch.zeros(2), discount=0.5, decay=1.0)
    tensor(2.)
    """
    discounted = discount_rewards(rewards, discount)
    remaining, baseline = returns_to_go(discounted), baseline.detach()
    advantages = (remaining - baseline).detach()
    if estimator == "plain":
        found = (log_probs * advantages).sum(dim=-1)
    elif estimator == "lvc":
        found = (box(log_probs) * advantages).sum(dim=-1)
    elif estimator == "dice":
        found = (box(log_probs.cumsum(dim=-1)) * discounted + (1 - box(log_probs)) * baseline).sum(dim=-1)
    else:
        dependent = log_probs @ geometric(log_probs, decay)
        found = ((box(dependent) - box(dependent - log_probs)) * advantages).sum(dim=-1)
    return found - found.detach() + remaining[..., 0].detach()


def box(x: Tensor) -> Tensor:
    """The magic box of log-probabilities (Foerster et al. 2018, equation 4): 1, with derivatives of e^x at 0."""
    return torch.exp(x - x.detach())


def score_term(log_probs: Tensor, outcome: Tensor) -> Tensor:
    """What the expected-inner objective adds to MAML's query surrogate: the score of the data that were adapted to.

    The gradient of E_support[J(theta'(theta, support))] has, beside E[dJ/dtheta' dtheta'/dtheta], the term
    E[J grad log p(support)], since the support is drawn by the very policy that is trained (Al-Shedivat et al. 2018,
    equation 5; Stadie et al. 2018, E-MAML).

    Args:
        log_probs: `[..., n, horizon]`, of the support's actions under the parameters before adaptation.
        outcome: `[...]`, the query's return less anything that does not depend on the support; taken as a constant.

    Returns:
        `[...]`, whose value is the outcome and whose gradient is the term.
    """
    return outcome.detach() * box(log_probs.sum(dim=(-2, -1)))


def discount_rewards(rewards: Tensor, discount: float) -> Tensor:
    """`[..., horizon]`, discount^t r_t: seen from the start, so that gradients are those of the discounted return."""
    steps = torch.arange(rewards.shape[-1], device=rewards.device, dtype=rewards.dtype)
    return rewards * discount**steps


def returns_to_go(rewards: Tensor) -> Tensor:
    """`[..., horizon]`, the sum of rewards from each step on.

    >>> returns_to_go(torch.tensor([1.0, 2.0, 3.0]))
    tensor([6., 5., 3.])
    """
    return rewards.flip(-1).cumsum(dim=-1).flip(-1)


def geometric(like: Tensor, decay: float) -> Tensor:
    """`[horizon, horizon]`, decay^(t - k) from step k on, 0 before: `x @ geometric` is a decayed running sum."""
    steps = torch.arange(like.shape[-1], device=like.device, dtype=like.dtype)
    ahead = steps.unsqueeze(0) - steps.unsqueeze(1)
    return torch.where(ahead >= 0, decay ** ahead.clamp(min=0), torch.zeros_like(ahead))
