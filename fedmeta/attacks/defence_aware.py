"""An attacker that tries its update out on the server's pipeline (Optimal_ALIE and Optimal_IPM of ByzFL, 2025)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedmeta.attacks.base import AttackContext, AttackImpossible, UpdateAttack, Verdict
from fedmeta.errors import FedmetaError
from fedmeta.parameters import parameter


@dataclass(frozen=True)
class DefenceAware(UpdateAttack):
    """Choose the strength of a base attack by a line search through pre-aggregation, rule and detector.

    `ipm` sends -x mu, `alie` mu - x s; the search maximises what the attacker wants of the aggregate, its distance from
    the benign mean unless `context.objective` says otherwise, among strengths at which no malicious row is flagged.
    Three levels of knowledge: without `knows_rule` the mean stands for the rule; with it, `context.pipeline` does, on
    benign updates that are the true ones for an omniscient attacker, or the colluders' own honest ones. The search is
    local: a rule that jumps, such as Krum, may hide a narrow range of good strengths, for which `delta` must be small.

    >>> mean = lambda rows: Verdict(rows.mean(dim=0))
    >>> attack = DefenceAware(base="ipm", evaluations=1)
    >>> attack(torch.tensor([[1.0], [3.0]]), n_malicious=1, context=AttackContext(pipeline=mean)).abs()
    tensor([[0.]])
    """

    known_rows: ClassVar[int] = 2

    base: Literal["ipm", "alie"] = parameter("alie", doc="the attack whose strength is searched")
    knows_rule: bool = parameter(True, doc="whether it knows the server's pipeline, or takes it for the mean")
    evaluations: int = parameter(20, ge=1, doc="trials of the pipeline")
    start: float = parameter(0.0, ge=0, doc="strength to begin with")
    delta: float = parameter(10.0, gt=0, doc="first step of the search")
    ratio: float = parameter(0.8, gt=0.5, lt=1, doc="what a step shrinks by")

    def craft(
        self, rows: Tensor, n_malicious: int, generator: torch.Generator | None, context: AttackContext
    ) -> Tensor:
        """The same row `[D]` for all attackers.

        Raises:
            AttackImpossible: it is to know the pipeline, and none is given or the pipeline refuses the round.
        """
        if self.knows_rule and context.pipeline is None:
            raise AttackImpossible(
                "defence_aware knows the rule, and none was given: pass AttackContext(pipeline=...), or set "
                "knows_rule = false"
            )
        mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=1)

        def row(strength: float) -> Tensor:
            return -strength * mean if self.base == "ipm" else mean - strength * deviation

        def score(strength: float) -> float:
            whole = torch.cat([rows, row(strength).repeat(n_malicious, 1)])
            verdict = self._verdict(whole, context)
            if verdict.flagged is not None and bool(verdict.flagged[rows.shape[0] :].any()):
                return -math.inf
            vector = verdict.vector.to(mean)
            return context.objective(vector) if context.objective is not None else float((vector - mean).norm())

        return row(line_maximum(score, self.evaluations, self.start, self.delta, self.ratio))

    def _verdict(self, rows: Tensor, context: AttackContext) -> Verdict:
        if not self.knows_rule or context.pipeline is None:
            return Verdict(rows.mean(dim=0))
        try:
            return context.pipeline(rows)
        except FedmetaError as error:
            raise AttackImpossible(f"defence_aware cannot try the pipeline out: {error}") from error


def line_maximum(
    function: Callable[[float], float], evaluations: int, start: float = 0.0, delta: float = 10.0, ratio: float = 0.8
) -> float:
    """The best point that a line search from `start` upwards finds (El-Mhamdi's Garfield, ByzFL `LineMaximize`).

    Steps of doubling size while the value rises; then steps that shrink by `ratio`, upwards from below the best point
    and downwards from above it, never below `start`.

    >>> abs(line_maximum(lambda x: -((x - 3.0) ** 2), 40) - 3.0) < 0.05
    True
    """
    best, best_value, at, left = start, function(start), start, evaluations - 1
    while left > 0:
        at = best + delta
        value, left = function(at), left - 1
        if value <= best_value:
            delta *= ratio
            break
        best, best_value, delta = at, value, delta * 2
    while left > 0:
        if at < best:
            at = at + delta
        else:
            down = at - delta
            while down < start:
                down = (down + at) / 2
            at = down
        value, left = function(at), left - 1
        if value > best_value:
            best, best_value = at, value
        delta *= ratio
    return best
