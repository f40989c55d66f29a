"""The questions of a grid: refused before the runs where nothing measures them, named in the end where unanswered."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedmeta.attacks.threat import success_steps
from fedmeta.errors import ConfigurationError
from simulations.bench.columns import COLUMNS, ROBUST, named
from simulations.bench.grid_file import Compare, Grid

if TYPE_CHECKING:
    from simulations.bench.cells import Plan
    from simulations.bench.report import BenchReport


def question_column(grid: Grid, question: Compare) -> str:
    """The name in files of what a question is about."""
    column = next((column for column in COLUMNS if column.name == question.column), None)
    return question.column if column is None else named(column, question_step(grid, question))


def question_step(grid: Grid, question: Compare) -> int:
    """Adaptation steps after which it is asked."""
    return grid.measure.step if question.step is None else question.step


def check_questions(plan: "Plan") -> None:
    """Refuse questions about what no cell of the plan will measure.

    Raises:
        ConfigurationError: names the column, the attack and the remedy.
    """
    by_step = {column.name for column in COLUMNS if column.by_step}
    for question in plan.grid.compare:
        if question.column == ROBUST and plan.grid.evasion is None:
            raise ConfigurationError(f"compare.column = '{ROBUST}' is not measured: add the table [evasion]")
        if question.column in by_step:
            for label in question.attacks:
                _check_steps(plan, question, label)


def _check_steps(plan: "Plan", question: Compare, label: str) -> None:
    """Success of an attack is measured after the steps of its own list, and of one with a trigger alone."""
    runs = [cell.experiment for cell in plan.runs if cell.attack == label and cell.experiment is not None]
    measured = sorted({step for experiment in runs for step in success_steps(experiment)})
    step = question_step(plan.grid, question)
    if not runs or step in measured:
        return
    if not measured:
        raise ConfigurationError(
            f"compare.column = '{question.column}' is not measured of attack '{label}', which has no trigger: compare "
            "attacks that have one, or ask for score or drop"
        )
    raise ConfigurationError(
        f"compare.column = '{question.column}' is not measured of attack '{label}' after {step} adaptation steps: set "
        f"compare.step to one of {', '.join(map(str, measured))}, or add {step} to attack.steps"
    )


def unanswered(report: "BenchReport") -> Iterator[str]:
    """Questions that the finished grid has no answer to, a line each; none while cells are still to run."""
    grid = report.plan.grid
    if report.count("pending"):
        return
    answered = {(found.setup, found.first, found.second, found.column) for found in report.answers}
    for question in grid.compare:
        name = question_column(grid, question)
        for setup in grid.setups:
            for defence in question.defences:
                first, second = (f"{attack} under {defence}" for attack in question.attacks)
                if (setup.label, first, second, name) not in answered:
                    where = f"{setup.label}: " if setup.label else ""
                    yield f"no answer: {where}{first} against {second}, {name}: no seed has a value of both"
