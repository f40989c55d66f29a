"""A run that is over: what it left, read back from its directory."""

from fedmeta.experiment import Experiment
from fedmeta.workload import Workload
from server.rounds import RunResult
from server.rundir import RunDir

NO_RESULT = {"engine", "tracking"}
"""Sections that say how a run is played, and nothing of what comes of it."""


def finished_result(rundir: RunDir, experiment: Experiment) -> RunResult | None:
    """The result of a run to which nothing is left to do; None where something is.

    That is a run with rounds to play, one whose last judgement lacks a client or was never made, and one that is
    to be judged in another way than it was: under other defences at deployment, or against another clean model.

    Args:
        rundir: of the run.
        experiment: as it is to go on.

    Raises:
        CheckpointError: its results or its last checkpoint are damaged.
    """
    results = rundir.results()
    if results is None or not rundir.has("last") or results["last"].get("failed", True):
        return None
    asked, played = (one.model_dump(mode="json", exclude=NO_RESULT) for one in (experiment, rundir.experiment))
    if asked != played:
        return None
    checkpoint, workload = rundir.load("last"), Workload(experiment)
    checkpoint.check(experiment.hash, workload.spec.hash)
    history = tuple(rundir.metrics())
    return RunResult(
        path=rundir.path,
        rounds=checkpoint.round,
        vector=workload.spec.flatten(checkpoint.params),
        model_hash=results["model_hash"],
        history=history,
        results=results,
        failed_rounds=tuple(record["round"] for record in history if record["failed_round"]),
    )
