"""What came of a grid: the values of every cell, read from the run directories."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fedmeta.errors import CheckpointError
from server.rundir import RunDir
from simulations.bench.cells import Cell, Plan
from simulations.bench.columns import column_names
from simulations.bench.facts import Facts, score_by_round, success_by_round
from simulations.bench.robust import measured
from simulations.bench.schedule import cell_place

State = Literal["done", "failed", "refused", "pending"]


@dataclass(frozen=True)
class Outcome:
    """One cell after the runs.

    Attributes:
        cell: as planned.
        state: done; failed, while it ran; refused, since the combination cannot be; pending, not run yet.
        reason: why it failed or was refused.
        values: column name -> value; empty where it is not done.
        curves: `score` and `asr` on validation clients by round.
        score_name: `accuracy` or `mse`; empty where it is not done.
    """

    cell: Cell
    state: State
    reason: str | None
    values: Mapping[str, float]
    curves: Mapping[str, Mapping[int, float]]
    score_name: str = ""


def read_outcomes(plan: Plan, out: Path, failed: Mapping[str, str]) -> list[Outcome]:
    """Every cell of a plan, in its order.

    Args:
        plan: of the grid.
        out: its directory.
        failed: key -> why it failed.
    """
    measure = plan.grid.measure
    runs = [cell.experiment for cell in plan.runs if cell.experiment is not None]
    names = column_names(runs, measure.step, robust=plan.grid.evasion is not None)
    references: dict[tuple[str, int], Facts] = {}
    outcomes = []
    for cell in plan.cells:
        facts, reason = None, failed.get(cell.key)
        if cell.refused is None and reason is None:
            try:
                facts = _facts(plan, cell, out, references.get((cell.setup, cell.seed)))
            except CheckpointError as error:
                reason = str(error).replace(str(out), ".")
        if facts is None:
            outcomes.append(_without_values(cell, reason))
            continue
        if (cell.attack, cell.defence) == (plan.unattacked, plan.undefended):
            references[(cell.setup, cell.seed)] = facts
            facts = replace(facts, reference=facts)  # a drop of 0
        read = {name: column.read(facts, step) for name, column, step in names}
        values = {name: float(value) for name, value in read.items() if value is not None and math.isfinite(value)}
        curves = {"score": score_by_round(facts), "asr": success_by_round(facts, measure.step)}
        score_name = facts.evaluation.score_name if facts.evaluation is not None else ""
        outcomes.append(Outcome(cell, "done", None, values, curves, score_name))
    return outcomes


def _facts(plan: Plan, cell: Cell, out: Path, reference: Facts | None) -> Facts | None:
    """A finished cell as columns read it; None for one that is not finished."""
    place = cell_place(out, cell.key)
    assert cell.experiment is not None
    if not (place / "results.json").exists():
        return None
    rundir = RunDir.open(place, exclusive=False)
    results = rundir.results()
    if results is None:
        return None
    measure, evasion = plan.grid.measure, plan.grid.evasion
    robust = None if evasion is None else measured(place, evasion)
    return Facts(cell.experiment, results, rundir.metrics(), measure.checkpoint, measure.split, reference, robust)


def _without_values(cell: Cell, reason: str | None) -> Outcome:
    if cell.refused is not None:
        return Outcome(cell, "refused", cell.refused, {}, {})
    return Outcome(cell, "pending" if reason is None else "failed", reason, {}, {})
