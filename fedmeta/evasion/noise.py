"""Random signs: no attack but the control, which a gradient must beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedmeta.evasion.ball import Ball
from fedmeta.evasion.base import Evasion, Logits, worst_of
from fedmeta.learners.draws import normal


@dataclass(frozen=True)
class Noise(Evasion):
    """x + eps sign(z), z standard normal; for L2 eps along z. One draw: a model that this fools needs no attacker."""

    black_box: ClassVar[bool] = True

    def __call__(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Tensor:
        """See `Evasion`."""
        direction = normal(seed, 0, torch.Size(x.shape).numel()).reshape(x.shape).to(x.dtype)
        return worst_of(logits_of, y, [x, ball.project(x + ball.eps * ball.steepest(direction), x)])
