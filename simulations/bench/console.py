"""`fedmeta bench` on a terminal: the plan, the progress, the tables."""

import os
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from server.words import counted, duration
from simulations.bench.cells import Cell, Plan, make_plan
from simulations.bench.estimate import estimate
from simulations.bench.files import PAGE
from simulations.bench.grid_file import read_grid
from simulations.bench.run import bench, default_place
from simulations.bench.schedule import jobs_of
from simulations.bench.table import print_report
from simulations.console import INTERRUPTED, log_to

FAILED_CELLS = 1


def plan_bench(file: Path, out: Path | None, workers: int | None) -> int:
    """Print the cells of a grid, what was refused and warned of, and how long it would take.

    Returns:
        The exit code, 0.
    """
    console = Console()
    log_to(console)
    plan = make_plan(read_grid(file))
    place = default_place(plan) if out is None else out
    console.print(_cells_table(plan))
    for line in (*_refused(plan.cells), *_notes(plan)):
        console.print(line)
    found = estimate(plan, place.resolve())
    console.print(f"{found.runs} different runs, {found.finished} of them finished in {place}")
    if found.seconds is None:
        console.print(found.why)
        return 0
    at_once = workers if workers is not None else _places(plan)
    wall = found.wall(at_once)
    assert wall is not None
    console.print(
        f"about {duration(wall)} with {counted(at_once, 'cell')} at once, {duration(found.seconds)} "
        "of one "
        f"core ({found.why})"
    )
    return 0


def run_bench(file: Path, out: Path | None, engine: str, workers: int | None) -> int:
    """Play a grid behind a progress bar and print its results.

    Returns:
        The exit code: 0; 1 when a cell failed; 130 when interrupted.
    """
    console = Console()
    log_to(console)
    plan = make_plan(read_grid(file))
    place = default_place(plan) if out is None else out
    runs = len(jobs_of(plan, place))
    size = f"{counted(len(plan.cells), 'cell')}, {counted(runs, 'different run')}"
    console.print(f"[bold]{plan.grid.name}[/]: {size}, into {place}")
    try:
        with _progress(console) as progress:
            task = progress.add_task("starting", total=runs)

            def watch(cell: Cell, reason: str | None) -> None:
                if reason is not None:
                    progress.console.print(f"[red]failed[/]: {cell.words}: {reason}")
                progress.update(task, advance=1, description=cell.words)

            report = bench(plan, place, engine=engine, workers=workers, watch=watch)
    except KeyboardInterrupt:
        console.print(f"interrupted; the same command goes on. What there is: {place / PAGE}")
        return INTERRUPTED
    print_report(report, console)
    console.print(f"page: {place / PAGE}")
    return FAILED_CELLS if report.count("failed") else 0


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("cell"),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
    )


def _cells_table(plan: Plan) -> Table:
    """How many cells of every defence are run: a line each, since a matrix of many is wider than a terminal."""
    grid = plan.grid
    attacks = counted(len(grid.attacks), "attack")
    title = f"{grid.name}: {attacks}, seeds {', '.join(map(str, grid.seeds))}"
    table = Table(title=title, title_justify="left")
    table.add_column("set-up")
    table.add_column("defence")
    table.add_column("cells", justify="right")
    table.add_column("refused", justify="right")
    for setup in grid.setups:
        for defence in grid.defences:
            own = [cell for cell in plan.cells if (cell.setup, cell.defence) == (setup.label, defence.label)]
            refused = sum(cell.refused is not None for cell in own)
            table.add_row(setup.label, defence.label, str(len(own) - refused), str(refused) if refused else "")
    return table


def _refused(cells: Iterable[Cell], shown: int = 4) -> list[str]:
    """One line a reason, with the first few combinations that it holds for."""
    reasons: dict[str, list[str]] = {}
    for cell in cells:
        if cell.refused is not None:
            words = ", ".join(filter(None, (cell.setup, cell.attack, cell.defence)))
            reasons.setdefault(cell.refused, []).append(words)
    lines = []
    for reason, where in reasons.items():
        found = list(dict.fromkeys(where))
        more = f" and {len(found) - shown} more" if len(found) > shown else ""
        lines.append(f"refused: {'; '.join(found[:shown])}{more}: {reason}")
    return lines


def _notes(plan: Plan) -> list[str]:
    return [f"warning: {text} ({counted(len(where), 'combination')})" for text, where in plan.notes.items()]


def _places(plan: Plan) -> int:
    """Cells at once on this machine's cores."""
    threads = max(cell.experiment.engine.threads for cell in plan.runs if cell.experiment is not None)
    return max(1, (os.cpu_count() or 1) // threads)
