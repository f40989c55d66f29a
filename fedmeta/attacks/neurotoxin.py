"""Neurotoxin (Zhang et al., ICML 2022, algorithm 1)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.attacks.local import Backdoor, Scene
from fedmeta.cohort import LocalPlan
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class Neurotoxin(Backdoor):
    """Train the backdoor only into coordinates that honest clients hardly move, so that they do not undo it.

    Every gradient of the attacker is projected onto the `keep_fraction` of coordinates with the smallest |g|, g being
    what the last round did to the model; the mask is taken over the whole vector, not layer by layer. In the first
    round, where there is no g, the attacker's own honest update stands for it.
    """

    needs_last_update: ClassVar[bool] = True

    keep_fraction: float = parameter(
        0.95, gt=0, le=1, doc="share of the coordinates that it trains, smallest |g| first"
    )

    def plan(self, plan: LocalPlan, scene: Scene) -> LocalPlan:
        """With gradients masked; personal entries stay free."""
        reference = scene.honest().mean(dim=0) if scene.last_update is None else scene.last_update
        mask = quiet_coordinates(reference, self.keep_fraction)

        def reduce(rows: Tensor, client: int, step: int) -> Tensor:
            direction = plan.reduce(rows, client, step)
            size = len(mask)
            return torch.cat([direction[:size] * mask.to(direction), direction[size:]])

        return replace(plan, reduce=reduce)


def quiet_coordinates(update: Tensor, keep_fraction: float) -> Tensor:
    """`[D]` bool: the round(keep_fraction * D) coordinates of smallest magnitude, at least one; ties: lowest index.

    >>> quiet_coordinates(torch.tensor([-5.0, 0.1, 2.0, -0.2]), 0.5).tolist()
    [False, True, False, True]
    """
    count = max(1, round(keep_fraction * len(update)))
    mask = torch.zeros(len(update), dtype=torch.bool, device=update.device)
    mask[update.abs().argsort(stable=True)[:count]] = True
    return mask
