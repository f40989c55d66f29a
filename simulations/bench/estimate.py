"""How long a grid will take: from cells that are finished, else from a few rounds of one cell, timed here and now."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmeta.attacks.threat import success_steps
from fedmeta.device import device_of
from fedmeta.experiment import Experiment
from server.rundir import RunDir
from simulations.bench.cell_run import finished, play_cell
from simulations.bench.cells import Cell, Plan
from simulations.bench.schedule import Job, jobs_of

PROBED_ROUNDS, PROBED_EPISODES = 3, 10


@dataclass(frozen=True)
class Estimate:
    """What is left of a grid.

    Attributes:
        runs: different runs in all.
        finished: how many of them are done.
        seconds: of one core for the rest; None where nothing could be timed.
        why: where the figure comes from, or why there is none.
    """

    runs: int
    finished: int
    seconds: float | None
    why: str

    def wall(self, workers: int) -> float | None:
        """Seconds with so many cells at once."""
        return None if self.seconds is None else self.seconds / workers


def estimate(plan: Plan, out: Path) -> Estimate:
    """What is left of a plan in a directory; times three rounds of the undefended, unattacked cell of each set-up."""
    jobs = jobs_of(plan, out)
    done = [job for job in jobs if finished(job.place, job.experiment)]
    known = {job.cell.key for job in done}
    left = [job for job in jobs if job.cell.key not in known]
    if done:
        costs = _of_finished(done)
        mean = sum(costs.values()) / len(costs)
        total = sum(costs.get((job.cell.setup, job.cell.attack), mean) for job in left)
        return Estimate(len(jobs), len(done), total, "from the cells that are finished")
    total = 0.0
    for setup in plan.grid.setups:
        probe = next(c for c in plan.runs if c.setup == setup.label)
        found = _probe(probe)
        if isinstance(found, str):
            return Estimate(len(jobs), 0, None, found)
        total += sum(_scaled(found, job.experiment) for job in left if job.cell.setup == setup.label)
    why = (
        f"from {PROBED_ROUNDS} rounds of one cell a set-up, as if nothing else ran here; what attacks and defences "
        "cost themselves is not counted, and backdoors take up to twice as long"
    )
    return Estimate(len(jobs), 0, total, why)


@dataclass(frozen=True)
class _Probe:
    """Seconds of a round, and of one judged episode, on a machine that does nothing else."""

    round: float
    episode: float


def _of_finished(done: Sequence[Job]) -> Mapping[tuple[str, str], float]:
    """Mean seconds of a cell by set-up and attack."""
    found: dict[tuple[str, str], list[float]] = {}
    for job in done:
        rundir = RunDir.open(job.place, exclusive=False)
        # The results tell of the last session alone, the records of all rounds.
        rounds = sum(record["seconds"] for record in rundir.metrics())
        whole = max(rounds, (rundir.results() or {}).get("seconds", 0.0))
        found.setdefault((job.cell.setup, job.cell.attack), []).append(whole)
    return {labels: sum(seconds) / len(seconds) for labels, seconds in found.items()}


def _probe(cell: Cell) -> _Probe | str:
    """A short run of a cell, timed; or why it could not be."""
    assert cell.experiment is not None
    shorter = cell.experiment.model_copy(
        update={
            "server": cell.experiment.server.model_copy(update={"rounds": PROBED_ROUNDS}),
            "evaluation": cell.experiment.evaluation.model_copy(
                update={
                    "every": 10 * PROBED_ROUNDS,
                    "validation_episodes": 1,
                    "episodes": 1,
                    "pooled_episodes": PROBED_EPISODES,
                }
            ),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "probe"
        wall, cpu = time.monotonic(), time.process_time()
        failed = play_cell(str(place), shorter)
        own = (time.process_time() - cpu) / (time.monotonic() - wall) / shorter.engine.threads
        if failed is not None:
            return f"no estimate, since a short run of a cell failed: {failed}"
        rundir = RunDir.open(place, exclusive=False)
        seconds = [record["seconds"] for record in rundir.metrics()]
        results = rundir.results() or {}
    judging = max(0.0, results["seconds"] - sum(seconds))
    # Other work on the machine does not count; a GPU's work is waited for, and does.
    share = min(1.0, own) if device_of(shorter).type == "cpu" else 1.0
    # The first round loads, and the last one validates.
    return _Probe(share * seconds[1], share * judging / (PROBED_EPISODES + len(results["last"]["names"])))


def _scaled(probe: _Probe, experiment: Experiment) -> float:
    judged = experiment.evaluation
    episodes = (
        judged.pooled_episodes + judged.episodes + judged.validation_episodes * experiment.server.rounds // judged.every
    )
    trials = 2 if success_steps(experiment) else 0  # the attacked model and its clean twin, each with the trigger
    return probe.round * experiment.server.rounds + probe.episode * episodes * (1 + trials)
