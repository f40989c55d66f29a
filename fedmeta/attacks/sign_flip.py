"""Sign flipping (Li et al., AAAI 2019, RSA, section 5)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, UpdateAttack
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class SignFlip(UpdateAttack):
    """Send -scale * mu, mu the mean of the known updates: a lone attacker's own update, reversed.

    >>> SignFlip(scale=10)(torch.tensor([[1.0, -2.0], [3.0, 0.0]]), n_malicious=1)
    tensor([[-20.,  10.]])
    """

    scale: float = parameter(1.0, ge=0, doc="length of the reversed update, in lengths of the honest one")

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """The same row `[D]` for all attackers."""
        return -self.scale * rows.mean(dim=0)
