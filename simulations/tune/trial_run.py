"""One trial: played, or played on, on training clients, reported and perhaps pruned on validation clients."""

import math
import shutil
import traceback
from pathlib import Path
from typing import Any

from fedmeta.errors import FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.statistics import Evaluation
from server.callbacks import Callback
from server.rundir import CONFIG, RunDir
from simulations.launch import Opened, play

FAILURE = "failure.txt"
"""Beside a trial's run directory: the traceback of its failure."""


PATIENT: dict[str, Any] = {"connect_args": {"timeout": 120}}
"""How long a trial waits for another to finish writing into the study [seconds]."""


class Pruned(Exception):
    """The trial is worse than others were by then."""


class Reporter(Callback):
    """Tells a study of every validation, and ends the run where the study wants it pruned."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial

    def on_evaluation(self, round: int, evaluation: Evaluation) -> None:
        """Report the score; a round that an earlier session reported stays as it was."""
        if evaluation.split != "validation":
            return
        score = evaluation.after.mean
        if math.isfinite(score):
            self.trial.report(score, step=round)
            if self.trial.should_prune():
                raise Pruned


def play_trial(place: str, text: str, storage: str, study: str, trial: int, warmup: int | None) -> dict[str, Any]:
    """Play a trial to its end, from its last checkpoint where it has one. No test client is asked.

    Args:
        place: its run directory.
        text: the experiment as JSON.
        storage: where the study lies, as optuna names it.
        study: its name.
        trial: its id in the storage.
        warmup: finished trials before any is pruned; None: none is.

    Returns:
        `state` (`complete`, `pruned` or `failed`), and of a complete one `value`, the best validation score, and its
        `round`; of a failed one the `reason`.
    """
    folder = Path(place)
    try:
        callbacks = [] if warmup is None else [Reporter(_trial(storage, study, trial, warmup))]
        result = play(
            _opened(folder, Experiment.model_validate_json(text)),
            "inline",
            callbacks=callbacks,
            draw=False,
            judge=False,
        )
    except Pruned:
        return {"state": "pruned"}
    except Exception as error:
        folder.parent.mkdir(parents=True, exist_ok=True)  # it may have failed before there was any
        folder.with_suffix(f".{FAILURE}").write_text(traceback.format_exc(), encoding="utf-8")
        words = " ".join(str(error).split())
        return {
            "state": "failed",
            "reason": words if isinstance(error, FedmetaError) else f"{type(error).__name__}: {words}",
        }
    best = result.results["best"]
    if best is None:
        return {"state": "failed", "reason": "no validation gave a finite score"}
    return {"state": "complete", "value": best["score"], "round": best["round"]}


def _trial(storage: str, study: str, trial: int, warmup: int) -> Any:
    import optuna

    pruner = optuna.pruners.MedianPruner(n_startup_trials=warmup, n_warmup_steps=0)
    # Its tables are there, and their version was checked by the process that drew the trial.
    place = optuna.storages.RDBStorage(
        storage, engine_kwargs=PATIENT, skip_compatibility_check=True, skip_table_creation=True
    )
    found = optuna.load_study(study_name=study, storage=place, pruner=pruner, sampler=optuna.samplers.RandomSampler())
    return optuna.trial.Trial(found, trial)


def _opened(folder: Path, experiment: Experiment) -> Opened:
    if (folder / CONFIG).exists():
        rundir = RunDir.open(folder)
        if rundir.experiment.hash != experiment.hash:
            rundir.close()
            raise FedmetaError(f"'{folder}' holds another run: delete it, and start again")
        return Opened(experiment, rundir)
    shutil.rmtree(folder, ignore_errors=True)  # a process that was killed while it made the directory
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Opened(experiment, RunDir.create(folder, experiment))
