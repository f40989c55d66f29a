"""`fedmeta privacy-sweep`: what privacy costs: the score of one experiment over epsilon, with a plot."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmeta.errors import CheckpointError, ConfigurationError, FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.statistics import Evaluation
from server.configuration import load
from server.rundir import RunDir
from simulations.launch import open_run, play

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEEP, PLOT = "sweep.json", "sweep.svg"


@dataclass(frozen=True)
class Point:
    """One setting, over its seeds.

    Attributes:
        epsilon: the target; None without privacy.
        spent: epsilon by the ledger, the largest over seeds; None without privacy.
        noise_multiplier: z; None without privacy.
        score_name: `accuracy` or `mse`.
        scores: one a seed, the last model after adaptation, on the test clients' own tasks (else the pooled ones).
        baseline: the best baseline on the same, where the task has one.
    """

    epsilon: float | None
    spent: float | None
    noise_multiplier: float | None
    score_name: str
    scores: tuple[float, ...]
    baseline: float | None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.scores) / len(self.scores)


def sweep(
    source: str | Path | Mapping[str, Any] | Experiment,
    epsilons: Sequence[float],
    seeds: Sequence[int],
    out: str | Path,
    *,
    engine: str = "ray",
    overrides: Mapping[str, Any] | None = None,
) -> list[Point]:
    """Play an experiment at every epsilon and once without privacy, for every seed.

    Runs that are finished in `out` are not played again, so that an interrupted sweep goes on.

    Args:
        source: an experiment with `privacy.unit` set.
        epsilons: targets, > 0.
        seeds: one run each.
        out: directory of the runs, of `sweep.json` and of the plot.
        engine: `ray` or `inline`.
        overrides: dotted key -> value.

    Raises:
        ConfigurationError: no unit, no epsilon or no seed, or a target that cannot be reached.
    """
    base = dict(overrides or {})
    if not epsilons or not seeds:
        raise ConfigurationError("a sweep needs at least one epsilon and one seed")
    some = load(source, {**base, "privacy.target_epsilon": float(epsilons[0]), "privacy.noise_multiplier": None})
    if some.privacy.unit == "none":
        raise ConfigurationError("set privacy.unit to client, task or example: a sweep needs privacy to take away")
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FedmetaError(
            f"cannot make the sweep's directory '{folder}': {error.strerror or error}. Choose another with --out"
        ) from error
    points = []
    for epsilon in [*sorted(set(epsilons)), None]:
        found = []
        for seed in seeds:
            chosen = {**base, **_setting(epsilon), "seed": int(seed)}
            place = folder / (f"epsilon-{epsilon:g}" if epsilon is not None else "no-privacy") / f"seed-{seed}"
            found.append(_results(load(source, chosen), place, engine))
        points.append(_point(epsilon, found))
    (folder / SWEEP).write_text(json.dumps([asdict(point) for point in points], indent=2) + "\n", encoding="utf-8")
    sweep_figure(points).savefig(folder / PLOT)
    return points


def _setting(epsilon: float | None) -> dict[str, Any]:
    if epsilon is None:
        return {"privacy": {"unit": "none"}}
    return {"privacy.target_epsilon": float(epsilon), "privacy.noise_multiplier": None}


def _results(experiment: Experiment, place: Path, engine: str) -> dict[str, Any]:
    """Results of a finished run; else it is played, or played on."""
    if not (place / "config.json").exists():
        return play(open_run(experiment, out=place), engine, draw=False).results
    rundir = RunDir.open(place, exclusive=False)
    if rundir.experiment.hash != experiment.hash:
        raise CheckpointError(f"'{place}' holds a run of another experiment: choose another folder with --out")
    return rundir.results() or play(open_run(None, resume=place), engine, draw=False).results


def _point(epsilon: float | None, runs: Iterable[Mapping[str, Any]]) -> Point:
    found = list(runs)
    judged = [Evaluation.from_json(run["last"]["test"] or run["last"]["pooled"]) for run in found]
    said = [run["privacy"] for run in found if epsilon is not None]
    baselines = [evaluation.baseline.mean for evaluation in judged if evaluation.baseline is not None]
    return Point(
        epsilon,
        max((run["epsilon"] for run in said), default=None),
        said[0]["noise_multiplier"] if said else None,
        judged[0].score_name,
        tuple(evaluation.after.mean for evaluation in judged),
        sum(baselines) / len(baselines) if baselines else None,
    )


def sweep_figure(points: Sequence[Point]) -> "Figure":
    """Mean score over epsilon, with the range over seeds; without privacy as a line, and the baseline dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    private = [point for point in points if point.epsilon is not None]
    free = next((point for point in points if point.epsilon is None), None)
    scale = 100.0 if points[0].score_name == "accuracy" else 1.0
    x = [float(point.epsilon or 0) for point in private]
    y = [scale * point.mean for point in private]
    axes.plot(x, y, "o-", color="#2563eb", label="private")
    if all(len(point.scores) > 1 for point in private):
        axes.fill_between(
            x,
            [scale * min(point.scores) for point in private],
            [scale * max(point.scores) for point in private],
            color="#2563eb",
            alpha=0.15,
            linewidth=0,
        )
    if free is not None:
        axes.axhline(scale * free.mean, color="#666d77", label="without privacy")
        if free.baseline is not None:
            axes.axhline(scale * free.baseline, color="#666d77", linestyle=":", label="the best baseline")
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_xlabel("epsilon")
    axes.set_ylabel("accuracy after adaptation, %" if scale == 100 else f"{points[0].score_name} after adaptation")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
