"""Inner product manipulation (Xie et al., UAI 2019, section 4)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, UpdateAttack
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class IPM(UpdateAttack):
    """Send -tau * mu, mu the mean of the benign updates.

    The mean over n clients, m of them attackers, is reversed if and only if tau * m > n - m. Below that it is only
    shortened; tau = 0.5 is stealthy, 3 and 10 are not.

    >>> IPM(tau=2)(torch.tensor([[1.0], [3.0]]), n_malicious=2)
    tensor([[-4.],
            [-4.]])
    """

    tau: float = parameter(0.5, ge=0, doc="length of the reversed mean, in lengths of the mean")

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """The same row `[D]` for all attackers."""
        return -self.tau * rows.mean(dim=0)
