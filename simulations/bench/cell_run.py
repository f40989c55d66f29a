"""One cell: played, or played on, into a run directory of its own. Runs in a worker process."""

import fcntl
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmeta.errors import CheckpointError, FedmetaError
from fedmeta.experiment import Experiment
from server.rundir import CONFIG, RunDir
from simulations.bench.grid_file import EvasionEntry
from simulations.bench.robust import measure
from simulations.launch import Opened, play

FAILURE = "failure.txt"
"""Beside a cell's run directory: the traceback of the last time it failed."""

PATIENCE = 120.0
"""Longest wait for a worker of a bench that was killed and is not gone yet [seconds]."""


@contextmanager
def held(place: Path) -> Iterator[None]:
    """Hold a cell against other workers; the operating system lets go when this process ends, however it ends."""
    deadline = time.monotonic() + PATIENCE
    with place.with_suffix(".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FedmetaError(f"another process works on {place.name}: end it, then start again") from None
                time.sleep(0.1)
        yield


def finished(place: Path, experiment: Experiment) -> bool:
    """Whether a directory holds the whole run of an experiment.

    Raises:
        CheckpointError: it holds one of another experiment, or damaged results.
    """
    if not (place / CONFIG).exists():
        return False
    return _open(place, experiment, exclusive=False).results() is not None


def play_cell(place: str, experiment: Experiment, evasion: EvasionEntry | None = None) -> str | None:
    """Play a cell to its end, from its last checkpoint where it has one.

    Args:
        place: its directory; what was begun there without a configuration is cleared away.
        experiment: as planned, `attack.clean` naming the twin's directory where the attack is measured against one.
        evasion: how its model is attacked in the end; None: not at all.

    Returns:
        None, or why it failed: an error that a user can mend by its text, any other by its type, text and line. The
        traceback lies in `failure.txt`.
    """
    folder = Path(place)
    folder.parent.mkdir(parents=True, exist_ok=True)
    trace = folder.with_suffix(f".{FAILURE}")
    try:
        with held(folder):
            if not finished(folder, experiment):
                _play(folder, experiment)
            if evasion is not None:
                measure(folder, evasion)
    except Exception as error:
        trace.write_text(traceback.format_exc(), encoding="utf-8")
        return _in_words(error, folder)
    trace.unlink(missing_ok=True)
    return None


def play_cell_from_json(place: str, text: str, evasion: str | None = None) -> str | None:
    """`play_cell` of an experiment, and a way to attack it, that travelled as JSON."""
    wanted = None if evasion is None else EvasionEntry.model_validate_json(evasion)
    return play_cell(place, Experiment.model_validate_json(text), wanted)


def _play(folder: Path, experiment: Experiment) -> None:
    if (folder / CONFIG).exists():
        rundir = _open(folder, experiment, exclusive=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # a process that was killed while it made the directory
        rundir = RunDir.create(folder, experiment)
    play(Opened(experiment, rundir), "inline", draw=False)


def _open(place: Path, experiment: Experiment, *, exclusive: bool) -> RunDir:
    """The directory, with the experiment as planned today: where the twin lies may have changed, and nothing else."""
    found = RunDir.open(place, exclusive=exclusive)
    if found.experiment.hash != experiment.hash:
        found.close()
        raise CheckpointError(f"'{place}' holds a run of another experiment: delete it")
    return found


def _in_words(error: Exception, folder: Path) -> str:
    """Without what differs from machine to machine, since it stands in the results."""
    text = (
        " ".join(str(error).split()).replace(str(folder.parent), "cells").replace(str(folder.parent.resolve()), "cells")
    )
    if isinstance(error, FedmetaError):
        return text
    last: Any = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, in {last.name})"
