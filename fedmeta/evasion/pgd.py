"""Projected gradient ascent (Madry et al., ICLR 2018, equation 2.1 and section 4)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.evasion.ball import Ball
from fedmeta.evasion.base import Evasion, Logits, per_unit, worst_of
from fedmeta.evasion.losses import cross_entropy, ranked_wrong, towards
from fedmeta.gradients import value_and_grad
from fedmeta.parameters import parameter

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits `[..., ways]` and labels `[...]` to values `[...]` that an attacker raises."""


@dataclass(frozen=True)
class PGD(Evasion):
    """x_{t+1} = project(x_t + step * eps * steepest(grad_x loss)), from random points of the ball.

    The steepest direction is the sign for Linf, the direction for L2. Of the last points of all runs, and the clean
    input, the worst for the model is given. With `targets = n` there is a run for each of the n most likely wrong
    classes, which raises log p(wrong class) (multi-targeted, Gowal et al. 2019) in place of the cross-entropy.
    """

    steps: int = parameter(20, doc="gradient steps of a run", unit="steps", ge=1)
    step: float = parameter(0.125, doc="length of a step, in units of eps", gt=0)
    restarts: int = parameter(1, doc="runs, each from another point", ge=1)
    random_start: bool = parameter(True, doc="start at a random point of the ball, else at the input itself")
    targets: int = parameter(0, doc="most likely wrong classes to run towards; 0: away from the label", ge=0)

    @property
    def least_ways(self) -> int:
        """One more than there are targets, and two at least."""
        return max(2, self.targets + 1)

    def __call__(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Tensor:
        """See `Evasion`."""
        return worst_of(logits_of, y, self._points(logits_of, x, y, ball, seed))

    def _points(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Iterator[Tensor]:
        yield x
        for restart in range(self.restarts):
            start = ball.random(x, seed, restart) if self.random_start else x
            for loss, labels in aims(logits_of, x, y, self.targets):
                yield ascend(logits_of, x, labels, ball, start=start, steps=self.steps, step=self.step, loss=loss)


def aims(logits_of: Logits, x: Tensor, y: Tensor, targets: int) -> list[tuple[Loss, Tensor]]:
    """What to raise: the cross-entropy at the label, or the log probability of each of the likeliest wrong classes."""
    if not targets:
        return [(cross_entropy, y)]
    with torch.no_grad():
        logits = logits_of(x)
    return [(towards, ranked_wrong(logits, y, rank)) for rank in range(targets)]


def ascend(
    logits_of: Logits,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    start: Tensor,
    steps: int,
    step: float,
    loss: Loss = cross_entropy,
) -> Tensor:
    """The point after `steps` steps of projected ascent, without a comparison: what adversarial training takes.

    Args:
        logits_of, x, y, ball: see `Evasion`; y are the labels that the loss takes (the wanted ones for `towards`).
        start: where to begin, in the ball around x.
        steps: at least 0.
        step: length, in units of eps.
        loss: of every output.

    Returns:
        Shaped as x, in the ball, detached.
    """
    point = start.detach()
    for _ in range(steps):
        slope = input_gradient(logits_of, point, y, loss)
        point = ball.project(point + step * ball.eps * ball.steepest(slope), x)
    return point.detach()


def input_gradient(logits_of: Logits, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """The gradient of each unit's mean loss with respect to its inputs, shaped as x, detached."""

    def total(point: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
        # Units do not touch each other (but for batch statistics): the sum's gradient is each one's own.
        return per_unit(loss(logits_of(point["x"]), y)).sum(), ()

    return value_and_grad(total, {"x": x})[0]["x"]
