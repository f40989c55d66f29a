"""`bench`: a grid from its file to its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.files import folder_of
from simulations.bench.cells import Plan, make_plan
from simulations.bench.files import write_files
from simulations.bench.grid_file import read_grid
from simulations.bench.page import write_page
from simulations.bench.report import BenchReport, make_report
from simulations.bench.schedule import Settled, check_workers, jobs_of, make_workers, play_all
from simulations.folder_lock import held


def bench(
    source: str | Path | Mapping[str, Any] | Plan,
    out: str | Path | None = None,
    *,
    engine: str = "ray",
    workers: int | None = None,
    watch: Settled = lambda cell, reason: None,
) -> BenchReport:
    """Play a grid, or what is left of it, and write its results.

    Args:
        source: a grid file, the same as nested mappings, or a plan.
        out: its directory; None: `runs/NAME`, so that the same command goes on where the last one ended.
        engine: `ray`, as many cells at once as the cores hold, or `inline`, one after the other in this process.
        workers: no more cells at once.
        watch: called as cells are settled.

    Raises:
        FedmetaError: a grid that cannot be, or a directory that another bench works in or that cannot be written.
    """
    check_workers(engine, workers)
    plan = source if isinstance(source, Plan) else make_plan(read_grid(source))
    place = default_place(plan) if out is None else folder_of(out)
    place = place.resolve()
    engines = [cell.experiment.engine for cell in plan.runs if cell.experiment is not None]
    threads, gpus = max(e.threads for e in engines), max(e.gpus_per_client for e in engines)
    with held(place, "bench"):
        try:
            with make_workers(engine, threads, gpus, workers) as crew:
                failed = play_all(jobs_of(plan, place), crew, watch)
        except KeyboardInterrupt:
            write_report(plan, place, {})
            raise
        return write_report(plan, place, failed)


def write_report(plan: Plan, place: Path, failed: dict[str, str]) -> BenchReport:
    """Write files and page of what there is."""
    report = make_report(plan, place, failed)
    write_files(report, place)
    write_page(report, place)
    return report


def default_place(plan: Plan) -> Path:
    """The directory of a grid that is given none."""
    return Path("runs") / plan.grid.name
