"""What attackers raise: losses of each output, higher the closer to an error. All take `[..., ways]` and `[...]`."""

import torch
from torch import Tensor


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


def ranked_wrong(logits: Tensor, y: Tensor, rank: int) -> Tensor:
    """The `rank`-th most likely wrong class, from 0; `[...]` int64.

    >>> ranked_wrong(torch.tensor([[5.0, 1.0, 3.0]]), torch.tensor([0]), 0).tolist()
    [2]
    """
    return torch.where(_members(logits, y), -torch.inf, logits).argsort(dim=-1, descending=True)[..., rank]


def _members(logits: Tensor, y: Tensor) -> Tensor:
    """Where the label stands, `[..., ways]`; by comparison, because vmap cannot batch an index assignment."""
    return y.unsqueeze(-1) == torch.arange(logits.shape[-1], device=y.device)
