"""What a study leaves: a table, JSON, a plot of its history, and the best experiment as a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmeta.experiment import Experiment
from server.files import finite, store
from simulations.describe import describe
from simulations.tune.study import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULT, PLOT, BEST = "tuning.json", "tuning.svg", "best.toml"


@dataclass(frozen=True)
class TuneReport:
    """A study as it stands.

    Attributes:
        path: its folder.
        score_name: `accuracy` or `mse`, on validation clients.
        maximise: whether a higher score is better.
        search: what was searched, as given.
        wanted: number of trials.
        trials: by number.
        importances: share of each key; empty where it is not known.
        privacy: what tuning a private run has spent; None without privacy.
    """

    path: Path
    score_name: str
    maximise: bool
    search: tuple[str, ...]
    wanted: int
    trials: tuple[Trial, ...]
    importances: Mapping[str, float]
    privacy: Mapping[str, Any] | None

    @property
    def ranked(self) -> list[Trial]:
        """Complete trials, the best first, the earlier first where equal."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        return sorted(complete, key=lambda trial: (-1 if self.maximise else 1) * float(trial.value or 0))

    @property
    def best(self) -> Trial | None:
        """The best trial; None where none was completed."""
        return next(iter(self.ranked), None)

    def count(self, state: str) -> int:
        """How many trials are in a state."""
        return sum(trial.state == state for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        rows = [
            {
                "number": trial.number,
                "state": trial.state,
                "score": trial.value,
                "round": trial.round,
                "chosen": trial.chosen,
                "run": trial.place,
                **({"reason": trial.reason} if trial.reason else {}),
            }
            for trial in self.trials
        ]
        return {
            "score": self.score_name,
            "direction": "maximise" if self.maximise else "minimise",
            "judged_on": "validation clients, the best round of each trial",
            "search": list(self.search),
            "wanted": self.wanted,
            "best": None if self.best is None else rows[self.trials.index(self.best)],
            "importances": dict(self.importances),
            "privacy": self.privacy,
            "trials": rows,
        }


def write_files(report: TuneReport, best: Experiment | None) -> None:
    """Write `tuning.json` and `tuning.svg`, and `best.toml` where there is a best experiment."""
    store(report.path / RESULT, json.dumps(finite(report.to_json()), indent=2).encode())
    figure = history_figure(report)
    figure.savefig(report.path / PLOT)
    if best is not None and report.best is not None:
        said = f"{report.score_name} {report.best.value:.4g} on validation clients"
        head = f"# Trial {report.best.number} of `fedmeta tune`: {said}.\n"
        store(report.path / BEST, (head + describe(best) + "\n").encode())


def history_figure(report: TuneReport) -> "Figure":
    """The score of every trial by its number, and the best so far."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    scale = 100.0 if report.score_name == "accuracy" else 1.0
    marks = {"complete": ("o", "#2563eb", "complete"), "pruned": ("x", "#9aa1ab", "pruned (its last score)")}
    for state, (marker, colour, label) in marks.items():
        own = [trial for trial in report.trials if trial.state == state and trial.value is not None]
        if own:
            values = [scale * float(trial.value or 0) for trial in own]
            axes.scatter([trial.number for trial in own], values, marker=marker, color=colour, label=label, s=28)
    for index, trial in enumerate(trial for trial in report.trials if trial.state == "failed"):
        axes.axvline(trial.number, color="#dc2626", linestyle=":", label=None if index else "failed")
    numbers, bests = _best_so_far(report)
    axes.step(numbers, [scale * value for value in bests], where="post", color="#111827", label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy, %" if scale == 100 else f"validation {report.score_name}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _best_so_far(report: TuneReport) -> tuple[list[int], list[float]]:
    numbers: list[int] = []
    bests: list[float] = []
    better = max if report.maximise else min
    for trial in report.trials:
        if trial.state == "complete" and trial.value is not None:
            numbers.append(trial.number)
            bests.append(better([*bests[-1:], trial.value]))
    return numbers, bests


def in_words(chosen: Mapping[str, Any]) -> str:
    """`learner.inner_lr = 0.1, client.steps = 3`."""
    return ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in chosen.items()
    )


def failures(trials: Sequence[Trial]) -> list[str]:
    """One line a reason, with the trials that failed for it."""
    reasons: dict[str, list[str]] = {}
    for trial in trials:
        if trial.state == "failed":
            reasons.setdefault(str(trial.reason), []).append(str(trial.number))
    return [f"trial{'s' if len(who) > 1 else ''} {', '.join(who)} failed: {why}" for why, who in reasons.items()]
