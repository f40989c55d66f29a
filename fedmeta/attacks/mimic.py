"""Mimic (Karimireddy et al., ICLR 2022, appendix B)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, AttackImpossible, UpdateAttack
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class Mimic(UpdateAttack):
    """All attackers send the update of one benign client, which is thereby counted too often.

    The copied row is i* = argmax_i |<z, u_i>| (the first where equal), z being the leading direction of the benign
    updates about their mean, found by Oja's rule. An omniscient attacker remembers z from round to round (`remember`),
    so that the same kind of client is copied; else `warmup` passes over the rows at hand find it. What is sent is a
    benign update, which no distance tells from one.

    >>> Mimic()(torch.tensor([[0.0, 1.0], [0.0, -1.0], [5.0, 0.0]]), n_malicious=1)
    tensor([[5., 0.]])
    """

    known_rows: ClassVar[int] = 2

    target: int | None = parameter(None, ge=0, doc="row to copy; none: the one that stands out most")
    warmup: int = parameter(
        1, ge=0, doc="passes of Oja's rule over a round's updates; 0: copy the first row", unit="passes"
    )

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """A copy `[D]` of the chosen row.

        Raises:
            AttackImpossible: `target` is no row.
        """
        if self.target is not None:
            if self.target >= rows.shape[0]:
                raise AttackImpossible(f"mimic: target = {self.target}, and there are {rows.shape[0]} known updates")
            return rows[self.target]
        if self.warmup == 0:
            return rows[0]
        memory = context.memory or self.remember({}, rows)
        return rows[int((rows @ memory["direction"]).abs().argmax())]

    def remember(self, memory: Mapping[str, Tensor], known: Tensor) -> dict[str, Tensor]:
        """Oja's rule on a round's rows: `step` (rounds seen), `mean` and `direction` `[D]` in float64.

        mean_{t+1} = (t mean_t + mean(u)) / (t + 1); z_{t+1} ~ t z_t + g / ||g||, where
        g = sum_i <u_i - mean_{t+1}, z_t> (u_i - mean_{t+1}).
        """
        rows = known.to(torch.float64)
        if self.target is not None or self.warmup == 0:
            return dict(memory)
        seen = int(memory["step"]) if memory else 0
        mean = (seen * memory["mean"] + rows.mean(dim=0)) / (seen + 1) if memory else rows.mean(dim=0)
        centred = rows - mean
        # The longest row to start from: no draw, and never orthogonal to all that there is.
        direction = memory["direction"] if memory else _unit(centred[int(centred.norm(dim=1).argmax())])
        for _ in range(self.warmup):
            direction = _unit(seen * direction + _unit(centred.T @ (centred @ direction)))
        return {"step": torch.tensor(seen + 1), "mean": mean, "direction": direction}


def _unit(vector: Tensor) -> Tensor:
    norm = vector.norm()
    return vector / norm if norm > 0 else vector
