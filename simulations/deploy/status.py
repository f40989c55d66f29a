"""What is known of runs: from their directories on this machine, and from a SuperLink where one is named."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmeta.errors import FedmetaError
from fedmeta.statistics import Evaluation
from server.rundir import CONFIG, METRICS, RunDir
from simulations.deploy.flower import Flower, FlowerNode, FlowerRun


@dataclass(frozen=True)
class RunStatus:
    """A run directory as it stands.

    Attributes:
        path, name: where it lies, and the experiment's name.
        round, rounds: finished, and to play.
        finished: whether the final evaluations are written.
        age: since the last round was written down; None before the first [seconds].
        seconds: of the last round.
        train: the last round's metrics.
        validation: the last validation as (round, score's name, mean over clients).
        failed: client id -> reason, of those that failed or were refused in the last round.
        failed_rounds: that wanted valid updates, or whose step diverged.
        problem: why the directory cannot be read; then nothing else is known.
    """

    path: str
    name: str = ""
    round: int = 0
    rounds: int = 0
    finished: bool = False
    age: float | None = None
    seconds: float | None = None
    train: dict[str, float] = field(default_factory=dict)
    validation: tuple[int, str, float] | None = None
    failed: dict[str, str] = field(default_factory=dict)
    failed_rounds: tuple[int, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Status:
    """All that is known.

    Attributes:
        directories: of runs, on this machine.
        flower_runs, flower_nodes: of the SuperLink; None where none was named, or where it does not answer.
        problem: why it does not.
    """

    directories: list[RunStatus]
    flower_runs: list[FlowerRun] | None = None
    flower_nodes: list[FlowerNode] | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `fedmeta status --json` prints it."""
        return asdict(self)


def look(places: Iterable[Path], flower: Flower | None) -> Status:
    """Look at run directories, and folders of such, and ask a SuperLink where one is given.

    Raises:
        FedmetaError: a place that is not there.
    """
    directories = [run_status(path) for place in places for path in run_directories(place)]
    if flower is None:
        return Status(directories)
    try:
        return Status(directories, flower.runs(), flower.nodes())
    except FedmetaError as error:  # what is on this disk is known all the same
        return Status(directories, problem=str(error))


def run_directories(place: Path) -> list[Path]:
    """The place itself where it is a run directory, else the run directories within it, the latest written first.

    Raises:
        FedmetaError: there is no such folder.
    """
    if not place.is_dir():
        raise FedmetaError(f"there is no folder '{place}': name a run directory, or a folder of run directories")
    if (place / CONFIG).exists():
        return [place]
    found = [path.parent for path in place.glob(f"*/{CONFIG}")]
    return sorted(found, key=lambda path: _written(path) or 0.0, reverse=True)


def run_status(path: Path) -> RunStatus:
    """One run directory; also of a run that is under way, which it does not disturb."""
    try:
        rundir = RunDir.open(path, exclusive=False)
        history, results = rundir.metrics(), rundir.results()
    except FedmetaError as error:
        return RunStatus(str(path), problem=str(error))
    written = _written(path)
    judged = next((record for record in reversed(history) if record["validation"]), None)
    last = history[-1] if history else {}
    return RunStatus(
        path=str(path),
        name=rundir.experiment.name,
        round=last.get("round", 0),
        rounds=rundir.experiment.server.rounds,
        finished=results is not None,
        age=None if written is None or not history else time.time() - written,
        seconds=last.get("seconds"),
        train=dict(last.get("train", {})),
        validation=None if judged is None else _validation(judged),
        failed={**last.get("failed", {}), **last.get("refused", {})},
        failed_rounds=tuple(record["round"] for record in history if record["failed_round"]),
    )


def _validation(record: dict[str, Any]) -> tuple[int, str, float]:
    found = Evaluation.from_json(record["validation"])
    return record["round"], found.score_name, found.after.mean


def _written(path: Path) -> float | None:
    try:
        return (path / METRICS).stat().st_mtime
    except OSError:
        return None
