"""What a finished cell left, as columns and curves read it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedmeta.attacks.success import AttackSuccess
from fedmeta.experiment import Experiment
from fedmeta.statistics import Evaluation


@dataclass(frozen=True)
class Facts:
    """A finished cell as columns read it.

    Attributes:
        experiment: resolved.
        results: as in results.json of its run directory.
        metrics: its records, one a round.
        checkpoint: `last` or `best`, the model that counts.
        split: `pooled` or `test`.
        reference: the cell without attack under the plain mean, of the same set-up and seed; None where it failed.
        robust: accuracy under evasion; None where it is not measured.
    """

    experiment: Experiment
    results: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    checkpoint: str
    split: str
    reference: "Facts | None" = None
    robust: float | None = None

    @cached_property
    def judged(self) -> Mapping[str, Any]:
        """What was found of the model that counts; the last one where validation chose none."""
        found: Mapping[str, Any] = self.results.get(self.checkpoint) or self.results["last"]
        return found

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """Its scores on test clients; None where none answered."""
        found = self.judged.get(self.split)
        return Evaluation.from_json(found) if found else None

    @cached_property
    def success(self) -> AttackSuccess | None:
        """The attack's success; None without a trigger, or where no episode holds the target."""
        found = (self.judged.get("attack") or {}).get(self.split)
        return AttackSuccess.from_json(found) if found else None

    @cached_property
    def score(self) -> float | None:
        """Accuracy (a fraction) or error after the learner's test steps."""
        return None if self.evaluation is None else self.evaluation.after.mean

    @cached_property
    def assumed(self) -> int | None:
        """The f of the defence; None where it has none."""
        server = self.experiment.server
        found = [c.parameters.get("f") for c in (*server.preaggregators, server.aggregator)]
        return max((int(f) for f in found if f is not None), default=None)

    @cached_property
    def attackers(self) -> list[int]:
        """Malicious clients of every round."""
        return [len(record.get("attackers") or ()) for record in self.metrics]


def at_step(estimates: Iterable[Any], steps: Sequence[int], step: int) -> float | None:
    """The mean after so many steps; None where it was not measured there."""
    found: dict[int, float] = {k: item.mean for k, item in zip(steps, estimates, strict=False)}
    return found.get(step)


def success_by_round(facts: Facts, step: int) -> dict[int, float]:
    """Attack success on validation clients after `step` steps, by round."""
    found: dict[int, float] = {}
    for record in facts.metrics:
        success = record.get("attack_success")
        if success:
            rate = at_step(AttackSuccess.from_json(success).rate, success["steps"], step)
            if rate is not None and math.isfinite(rate):
                found[record["round"]] = rate
    return found


def score_by_round(facts: Facts) -> dict[int, float]:
    """The main task's score on validation clients, by round; rounds in which it diverged are left out."""
    found = {
        record["round"]: Evaluation.from_json(record["validation"]).after.mean
        for record in facts.metrics
        if record.get("validation")
    }
    return {round: score for round, score in found.items() if math.isfinite(score)}
