"""Which cell is played when: twins first, then seed by seed; on Ray workers, or one after the other in this process."""

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.experiment import Experiment
from fedmeta.parameters import require_number
from simulations.bench.cell_run import finished, play_cell
from simulations.bench.cells import Cell, Plan
from simulations.bench.grid_file import EvasionEntry
from simulations.bench.robust import measured

Settled = Callable[[Cell, str | None], None]
"""Called when a cell is settled: with None, or why it failed."""


class Workers(Protocol):
    """Where cells are played."""

    room: int
    """How many at once, at least 1."""

    def submit(self, place: str, experiment: Experiment, evasion: EvasionEntry | None = None) -> Any:
        """Begin a cell; returns what `first` knows it by."""

    def begin(self, target: str, arguments: tuple[Any, ...]) -> Any:
        """Begin `"module:function"`, which must return anything but a text; returns what `first` knows it by."""

    def first(self, tickets: Iterable[Any]) -> tuple[Any, Any]:
        """Wait for the next of some: its ticket, and what it returned, or in words why its worker could not."""


@dataclass(frozen=True)
class Job:
    """A cell to play, with all cells that are the same run under other labels."""

    cell: Cell
    place: Path
    experiment: Experiment
    needs: str | None
    evasion: EvasionEntry | None = None


def cell_place(out: Path, key: str) -> Path:
    """The directory of a cell."""
    return out / "cells" / key


def jobs_of(plan: Plan, out: Path) -> list[Job]:
    """One job for each different run, in the order of playing: attack-free runs first, then seed by seed.

    What a job needs is among them.
    """
    chosen: dict[str, Job] = {}
    order = {seed: i for i, seed in enumerate(plan.grid.seeds)}
    for cell in sorted(plan.runs, key=lambda cell: (cell.attack != plan.unattacked, order[cell.seed])):
        assert cell.experiment is not None
        experiment = cell.experiment
        if cell.clean is not None:
            attack = experiment.attack.model_copy(update={"clean": str(cell_place(out, cell.clean))})
            experiment = experiment.model_copy(update={"attack": attack})
        chosen.setdefault(cell.key, Job(cell, cell_place(out, cell.key), experiment, cell.clean, plan.grid.evasion))
    return list(chosen.values())


def play_all(jobs: Iterable[Job], workers: Workers, settled: Settled) -> dict[str, str]:
    """Play all jobs, each after the twin that it is measured against; a finished one is not played again.

    Returns:
        Key -> why it failed, of those that did. A cell whose twin failed is not played.
    """
    failed: dict[str, str] = {}
    done: set[str] = set()
    waiting, running = list(jobs), dict[Any, Job]()

    def settle(job: Job, reason: str | None) -> None:
        if reason is None:
            done.add(job.cell.key)
        else:
            failed[job.cell.key] = reason
        settled(job.cell, reason)

    while waiting or running:
        for job in list(waiting):
            if len(running) >= workers.room:
                break
            if job.needs in failed:
                waiting.remove(job)
                settle(job, f"its twin without attack failed, so that there is no lift: {failed[job.needs]}")
            elif job.needs is None or job.needs in done:
                waiting.remove(job)
                if _is_finished(job):
                    settle(job, None)
                else:
                    running[workers.submit(str(job.place), job.experiment, job.evasion)] = job
        if running:
            ticket, reason = workers.first(running)
            settle(running.pop(ticket), reason)
    return failed


def _is_finished(job: Job) -> bool:
    try:
        attacked = job.evasion is None or measured(job.place, job.evasion) is not None
        return attacked and finished(job.place, job.experiment)
    except ValueError:  # damaged: the worker says how
        return False


def check_workers(engine: str, limit: int | None) -> None:
    """Refuse, before anything is written, workers that there cannot be; arguments as for `make_workers`.

    Raises:
        ConfigurationError: an unknown engine, or a limit below 1.
    """
    if limit is not None:
        require_number("workers", limit, whole=True)
        if limit < 1:
            raise ConfigurationError(f"workers = {limit} must be at least 1")
    if engine not in ("ray", "inline"):
        raise ConfigurationError(f"unknown engine '{engine!s:.80}'{did_you_mean(str(engine), ['ray', 'inline'])}")


@contextmanager
def make_workers(engine: str, threads: int, gpus: float, limit: int | None) -> Iterator[Workers]:
    """Workers of an engine: `ray`, as many as the cores hold, or `inline`.

    Args:
        engine: where cells are played.
        threads: torch threads of each; workers times threads never exceeds the cores that Ray has.
        gpus: GPU share of each.
        limit: no more at once; None for as many as fit.

    Raises:
        ConfigurationError: an unknown engine, or not one worker fits.
    """
    check_workers(engine, limit)
    if engine == "inline":
        yield InThisProcess()
        return
    from simulations.engine import ray_session

    ray_session.join(None)
    try:
        yield OnRay(threads, gpus, limit)
    finally:
        ray_session.leave()


class InThisProcess:
    """One cell after the other, here: for debugging and tests."""

    room = 1

    def __init__(self) -> None:
        self._found: dict[int, Any] = {}

    def submit(self, place: str, experiment: Experiment, evasion: EvasionEntry | None = None) -> int:
        """Play a cell."""
        return self._keep(play_cell(place, experiment, evasion))

    def begin(self, target: str, arguments: tuple[Any, ...]) -> int:
        """Call it."""
        module, _, function = target.partition(":")
        return self._keep(getattr(importlib.import_module(module), function)(*arguments))

    def _keep(self, found: Any) -> int:
        ticket = len(self._found)
        self._found[ticket] = found
        return ticket

    def first(self, tickets: Iterable[int]) -> tuple[int, Any]:
        """The one that was played."""
        ticket = next(iter(tickets))
        return ticket, self._found[ticket]


class OnRay:
    """Cells as tasks on this machine's Ray, since they write into a directory here.

    Args:
        threads: CPU share of a cell.
        gpus: GPU share of a cell.
        limit: most cells at once; None for as many as fit.

    Raises:
        ConfigurationError: not one cell fits.
    """

    def __init__(self, threads: int, gpus: float, limit: int | None) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from simulations.engine import bootstrap
        from simulations.engine.plan import Machine, fitting

        here = ray.get_runtime_context().get_node_id()
        node: Mapping[str, Any] = next(node for node in ray.nodes() if node["NodeID"] == here)
        machine = Machine(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        fit = fitting([machine], threads, gpus)
        if fit < 1:
            raise ConfigurationError(
                f"not one cell fits: engine.threads = {threads} and engine.gpus_per_client = {gpus:g} are asked, and "
                f"Ray has {machine.cpus:g} CPUs and {machine.gpus:g} GPUs here. Lower them"
            )
        self.room = fit if limit is None else min(fit, limit)
        ray.cloudpickle.register_pickle_by_value(bootstrap)
        self._path = [os.path.abspath(folder) for folder in sys.path]
        task: Any = ray.remote(bootstrap.call)
        self._task = task.options(
            num_cpus=threads,
            num_gpus=gpus,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
        )

    def submit(self, place: str, experiment: Experiment, evasion: EvasionEntry | None = None) -> Any:
        """Begin a cell in a worker."""
        target = "simulations.bench.cell_run:play_cell_from_json"
        attack = None if evasion is None else evasion.model_dump_json()
        return self.begin(target, (os.path.abspath(place), experiment.model_dump_json(), attack))

    def begin(self, target: str, arguments: tuple[Any, ...]) -> Any:
        """Begin a function in a worker."""
        from simulations.engine.ray_pool import PACKAGES

        return self._task.remote(self._path, PACKAGES, target, arguments)

    def first(self, tickets: Iterable[Any]) -> tuple[Any, Any]:
        """Wait for one; a worker that died is why its cell failed."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        [ticket], _ = ray.wait(list(tickets), num_returns=1)
        try:
            return ticket, ray.get(ticket)
        except RayTaskError as error:
            return ticket, f"{type(error.cause).__name__}: {error.cause}"
        except RayError as error:
            return ticket, f"its worker died ({type(error).__name__}): start again, and it goes on"
