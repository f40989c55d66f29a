"""What attackers raise: losses of each output, higher the closer to an error. All take `[..., ways]` and `[...]`."""

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError

TINY = 1e-12
"""Keeps a quotient of equal logits finite, as in the authors' code."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax at the label, `[...]` in nats."""
    return -logits.log_softmax(dim=-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)


def towards(logits: Tensor, wanted: Tensor) -> Tensor:
    """log softmax at a wanted label, `[...]`: what a targeted attack raises."""
    return -cross_entropy(logits, wanted)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The largest other logit less the label's own: above 0 for an error (Carlini & Wagner 2017, f_6 without kappa).

    >>> margin(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])).tolist()
    [-1.0]
    """
    own = logits.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return torch.where(_members(logits, y), -torch.inf, logits).amax(dim=-1) - own


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, equation 5): the margin over the first logit less the third.

    In [-1, 1] whatever the scale of the logits, so that no softmax can saturate.

    Raises:
        ConfigurationError: fewer than three classes, which have no third logit.

    >>> dlr(torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([0])).tolist()
    [-0.5]
    """
    require_ways(logits.shape[-1], 3, "the untargeted DLR loss divides by the first logit less the third")
    ordered = logits.sort(dim=-1, descending=True).values
    return margin(logits, y) / (ordered[..., 0] - ordered[..., 2] + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    """Croce & Hein 2020, equation 6: (z_wanted - z_y) / (z_1st - (z_3rd + z_4th) / 2).

    Raises:
        ConfigurationError: fewer than four classes.

    >>> targeted_dlr(torch.tensor([[4.0, 2.0, 1.0, -1.0]]), torch.tensor([0]), torch.tensor([1])).tolist()
    [-0.5]
    """
    require_ways(logits.shape[-1], 4, "the targeted DLR loss divides by the first logit less the third and fourth")
    ordered = logits.sort(dim=-1, descending=True).values
    scale = ordered[..., 0] - (ordered[..., 2] + ordered[..., 3]) / 2 + TINY
    own, other = (logits.gather(-1, label.unsqueeze(-1)).squeeze(-1) for label in (y, wanted))
    return (other - own) / scale


def require_ways(ways: int, least: int, reason: str) -> None:
    """Refuse a task of too few classes.

    Raises:
        ConfigurationError: says what needs more.
    """
    if ways < least:
        raise ConfigurationError(
            f"{ways} classes are too few: {reason}, so that it needs {least} or more. Use pgd or apgd_ce, or episodes "
            "of more ways"
        )


def ranked_wrong(logits: Tensor, y: Tensor, rank: int) -> Tensor:
    """The `rank`-th most likely wrong class, from 0; `[...]` int64.

    >>> ranked_wrong(torch.tensor([[5.0, 1.0, 3.0]]), torch.tensor([0]), 0).tolist()
    [2]
    """
    return torch.where(_members(logits, y), -torch.inf, logits).argsort(dim=-1, descending=True)[..., rank]


def _members(logits: Tensor, y: Tensor) -> Tensor:
    """Where the label stands, `[..., ways]`; by comparison, because vmap cannot batch an index assignment."""
    return y.unsqueeze(-1) == torch.arange(logits.shape[-1], device=y.device)
