"""A little is enough (Baruch et al., NeurIPS 2019, algorithm 3)."""

import warnings
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, AttackImpossible, UpdateAttack
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class ALIE(UpdateAttack):
    """Send mu - z * s: the benign mean less z benign standard deviations (ddof = 1) in every coordinate.

    By default z is the largest at which enough benign clients lie further out than the attackers, so that a median
    passes over to them: with n = k + m clients and q = floor(n / 2 + 1) - m, z = Phi^-1((n - m - q) / (n - m)). Few
    attackers have no such z above 0: n = 10, m = 2 gives 0, which is the mean itself and no attack, with a warning.

    >>> ALIE(z=1)(torch.tensor([[0.0], [2.0]]), n_malicious=1)
    tensor([[-0.4142]])
    """

    known_rows: ClassVar[int] = 2

    z: float | None = parameter(None, doc="deviations below the mean; none: the paper's largest for n and m")

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """The same row `[D]` for all attackers.

        Raises:
            AttackImpossible: z is not given, and the attackers are so many that the formula has no value.
        """
        n = rows.shape[0] + n_malicious if context.participants is None else context.participants
        z = largest_z(n - n_malicious, n_malicious) if self.z is None else self.z
        if z <= 0:
            why = "0: the malicious rows are the benign mean" if z == 0 else f"{z:.3g}, below 0: they lie above it"
            warnings.warn(
                f"ALIE with {n_malicious} attackers of {n} clients has z = {why}, which is "
                "no attack. Set z, such as 1.5, or take more attackers",
                stacklevel=3,
            )
        return rows.mean(dim=0) - z * rows.std(dim=0, correction=1)


def largest_z(benign: int, n_malicious: int) -> float:
    """The paper's z for k benign and m malicious clients.

    Raises:
        AttackImpossible: the formula gives an infinite z, as where attackers are a majority.

    >>> round(largest_z(40, 10), 4), largest_z(8, 2)
    (0.2533, 0.0)
    """
    supporters = (benign + n_malicious) // 2 + 1 - n_malicious
    share = (benign - supporters) / benign if benign > 0 else 0.0
    if not 0 < share < 1:
        raise AttackImpossible(
            f"ALIE has no finite z for {n_malicious} attackers of {benign + n_malicious} clients: set z, such as 1.5"
        )
    return NormalDist().inv_cdf(share)
