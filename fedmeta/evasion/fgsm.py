"""The fast gradient sign method (Goodfellow et al., ICLR 2015, section 4)."""

from dataclasses import dataclass

from torch import Tensor

from fedmeta.evasion.ball import Ball
from fedmeta.evasion.base import Evasion, Logits, worst_of
from fedmeta.evasion.pgd import ascend


@dataclass(frozen=True)
class FGSM(Evasion):
    """x + eps sign(grad_x loss), cut to the range; for L2 eps along the gradient.

    >>> import torch
    >>> line = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    >>> x, y = torch.tensor([[0.75, 0.5]]), torch.tensor([0])
    >>> FGSM()(lambda x: x @ line, x, y, Ball(eps=0.25), torch.tensor(0)).tolist()
    [[0.5, 0.75]]
    """

    def __call__(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Tensor:
        """See `Evasion`; the seed is not used."""
        return worst_of(logits_of, y, [x, ascend(logits_of, x, y, ball, start=x, steps=1, step=1.0)])
