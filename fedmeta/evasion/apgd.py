"""Auto-PGD (Croce & Hein, ICML 2020, algorithm 1), on the cross-entropy and on the difference of logits ratio."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fedmeta.evasion.ball import Ball
from fedmeta.evasion.base import Evasion, Logits, along, per_unit, worst_of, wrong
from fedmeta.evasion.losses import cross_entropy, dlr, ranked_wrong, targeted_dlr
from fedmeta.evasion.pgd import Loss
from fedmeta.gradients import value_and_grad
from fedmeta.parameters import parameter

Look = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""A point to its slope, its loss `[u]` and its share of wrong answers `[u]`."""
MOMENTUM = 0.75
"""alpha: weight of the gradient step against the last change."""
RISES = 0.75
"""rho: a share of rising steps below this halves the step size."""


@dataclass(frozen=True)
class APGDCE(Evasion):
    """Projected ascent with momentum on the cross-entropy, whose step size halves itself.

    z = project(x_k + eta steepest(grad)), x_{k+1} = project(x_k + alpha (z - x_k) + (1 - alpha) (x_k - x_{k-1})),
    eta = 2 eps at first. At each checkpoint a unit whose loss rose in fewer than rho of the steps, or whose best loss
    and step size stood still, halves eta and goes back to its best point.
    """

    steps: int = parameter(50, doc="gradient steps of a run; the paper takes 100", unit="steps", ge=2)
    restarts: int = parameter(1, doc="runs, each from another random point of the ball", ge=1)

    def __call__(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Tensor:
        """See `Evasion`."""
        return worst_of(logits_of, y, self._points(logits_of, x, y, ball, seed))

    def _points(self, logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, seed: Tensor) -> Iterator[Tensor]:
        yield x
        for stream, loss in enumerate(self._losses(logits_of, x, y) * self.restarts):
            yield from climb(logits_of, x, y, ball, ball.random(x, seed, stream), loss, self.steps)

    def _losses(self, logits_of: Logits, x: Tensor, y: Tensor) -> list[Loss]:
        return [cross_entropy]


@dataclass(frozen=True)
class APGDDLR(APGDCE):
    """As `APGDCE`, on the difference of logits ratio, which does not saturate where a softmax does.

    `targets = 0` is the untargeted loss, for three classes or more. `targets = n` runs towards each of the n most
    likely wrong classes with the targeted loss, for four classes or more (APGD-T).
    """

    targets: int = parameter(0, doc="most likely wrong classes to run towards; 0: the untargeted loss", ge=0)

    @property
    def least_ways(self) -> int:
        """Three without targets; with n of them n + 1, and four at least."""
        return max(4, self.targets + 1) if self.targets else 3

    def _losses(self, logits_of: Logits, x: Tensor, y: Tensor) -> list[Loss]:
        if not self.targets:
            return [dlr]
        with torch.no_grad():
            logits = logits_of(x)
        wanted = [ranked_wrong(logits, y, rank) for rank in range(self.targets)]
        return [partial(_dlr_towards, wanted=label) for label in wanted]


def _dlr_towards(logits: Tensor, y: Tensor, *, wanted: Tensor) -> Tensor:
    return targeted_dlr(logits, y, wanted)


class _State(NamedTuple):
    """Of all units at once, `[u]` but for the points, their slopes and `eta`, which is shaped to meet inputs."""

    point: Tensor
    before: Tensor
    slope: Tensor
    loss: Tensor
    eta: Tensor
    best: Tensor
    best_slope: Tensor
    highest: Tensor
    rises: Tensor


def climb(
    logits_of: Logits, x: Tensor, y: Tensor, ball: Ball, start: Tensor, loss: Loss, steps: int
) -> tuple[Tensor, Tensor]:
    """One run: the points of the highest loss, and those of the most wrong answers on the way; in the ball, detached.

    Args:
        logits_of, x, y, ball: see `Evasion`.
        start: where to begin, in the ball around x.
        loss: of every output.
        steps: gradient steps.
    """

    def look(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def total(at: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            logits = logits_of(at["x"])
            each = per_unit(loss(logits, y))
            return each.sum(), (each, wrong(logits, y))

        slopes, _, (each, errors) = value_and_grad(total, {"x": point})
        return slopes["x"], each, errors

    slope, first, most = look(start)
    eta = along(torch.full_like(first, 2 * ball.eps), x)
    state = _State(start, start, slope, first, eta, start, slope, first, torch.zeros_like(first))
    fooled, last_eta, last_highest, reached = start, eta, first, 0
    stops = checkpoints(steps)
    for step in range(1, steps + 1):
        state, errors = _step(state, look, ball, x, MOMENTUM if step > 1 else 1.0)
        fooled = torch.where(along(errors > most, x), state.point, fooled)
        most = torch.maximum(errors, most)
        if step in stops:
            few = state.rises < RISES * (step - reached)
            still = (state.eta == last_eta).flatten(1)[:, 0] & (state.highest == last_highest)
            last_eta, last_highest, reached = state.eta, state.highest, step
            state = _halved(state, along(few | still, x))
    return state.best, fooled


def _step(state: _State, look: Look, ball: Ball, x: Tensor, alpha: float) -> tuple[_State, Tensor]:
    ahead = ball.project(state.point + state.eta * ball.steepest(state.slope), x)
    moved = state.point + alpha * (ahead - state.point) + (1 - alpha) * (state.point - state.before)
    point = ball.project(moved, x)
    slope, loss, errors = look(point)
    better = loss > state.highest
    wide = along(better, x)
    return _State(
        point=point,
        before=state.point,
        slope=slope,
        loss=loss,
        eta=state.eta,
        best=torch.where(wide, point, state.best),
        best_slope=torch.where(wide, slope, state.best_slope),
        highest=torch.where(better, loss, state.highest),
        rises=state.rises + (loss > state.loss).to(loss.dtype),
    ), errors


def _halved(state: _State, chosen: Tensor) -> _State:
    """Half the step size and back to the best point for the chosen units; all count their rises anew."""
    return state._replace(
        point=torch.where(chosen, state.best, state.point),
        slope=torch.where(chosen, state.best_slope, state.slope),
        loss=torch.where(chosen.flatten(), state.highest, state.loss),
        eta=torch.where(chosen, state.eta / 2, state.eta),
        rises=torch.zeros_like(state.rises),
    )


def checkpoints(steps: int) -> frozenset[int]:
    """The steps at which step sizes may halve (section 3.1): p_0 = 0, p_1 = 0.22, then by shrinking periods.

    >>> sorted(checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    places, period = [0.0, 0.22], 0.22
    while places[-1] < 1:
        period = max(period - 0.03, 0.06)
        places.append(places[-1] + period)
    return frozenset(math.ceil(round(place * steps, 9)) for place in places[1:] if place < 1)
