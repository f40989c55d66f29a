"""All that is said of a finished grid, worked out once for table, files and page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulations.bench.cells import Plan
from simulations.bench.outcome import Outcome, read_outcomes
from simulations.bench.statements import statements
from simulations.bench.summary import (
    Comparison,
    Row,
    Verdict,
    Worst,
    against_mean,
    answers,
    summarise,
    verdicts,
    worst_attacks,
)


@dataclass(frozen=True)
class BenchReport:
    """The results of a grid.

    Attributes:
        plan: that was played.
        outcomes: every cell, in the plan's order.
        rows: every combination over its seeds.
        comparisons: each defence against the plain mean, under each attack.
        answers: of the grid's own questions.
        worst: the worst attacks of each defence.
        verdicts: the attacks that break the plain mean, and who restores it.
        statements: what must stand beside the numbers.
        score_name: `accuracy` or `mse`.
    """

    plan: Plan
    outcomes: Sequence[Outcome]
    rows: Sequence[Row]
    comparisons: Sequence[Comparison]
    answers: Sequence[Comparison]
    worst: Sequence[Worst]
    verdicts: Sequence[Verdict]
    statements: Sequence[str]
    score_name: str

    def count(self, state: str) -> int:
        """How many cells are in a state."""
        return sum(outcome.state == state for outcome in self.outcomes)


def make_report(plan: Plan, out: Path, failed: dict[str, str]) -> BenchReport:
    """Read what the cells left, and work out what is said of it.

    Args:
        plan: of the grid.
        out: its directory.
        failed: key -> why a cell failed.
    """
    outcomes = read_outcomes(plan, out, failed)
    rows = summarise(plan, outcomes)
    score_name = next((outcome.score_name for outcome in outcomes if outcome.score_name), "accuracy")
    return BenchReport(
        plan=plan,
        outcomes=outcomes,
        rows=rows,
        comparisons=against_mean(plan, rows),
        answers=answers(plan, rows),
        worst=worst_attacks(plan, rows),
        verdicts=verdicts(plan, rows, score_name),
        statements=statements(plan, outcomes),
        score_name=score_name,
    )
