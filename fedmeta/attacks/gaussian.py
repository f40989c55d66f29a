"""Gaussian noise in place of updates (Blanchard et al., NeurIPS 2017, section 6)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, UpdateAttack
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class Gaussian(UpdateAttack):
    """Send rows of independent N(0, std^2) coordinates, each attacker its own; the paper's std is 200.

    >>> Gaussian(std=0)(torch.ones(3, 2), n_malicious=1, generator=torch.Generator())
    tensor([[0., 0.]])
    """

    random: ClassVar[bool] = True

    std: float = parameter(ge=0, doc="standard deviation of every coordinate")

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """`[m, D]` draws."""
        return self.std * torch.randn((n_malicious, rows.shape[1]), generator=generator, dtype=rows.dtype)
