"""A run from start to report: what every engine calls with its grid."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedmeta.errors import FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.workload import Workload
from server.callbacks import Callback
from server.report import draw_episode, write_report
from server.rounds import Observer, Prepare, RunResult, run_experiment
from server.rundir import RunDir
from server.secure_aggregation import secured
from server.tracking import make_trackers, scalars_of
from strategies.configurations import settled_workload

log = logging.getLogger("fedmeta.server")


def execute(
    grid: Grid,
    experiment: Experiment,
    rundir: RunDir,
    observers: Sequence[Observer] = (),
    *,
    simulated: bool = False,
    prepare: Prepare | None = None,
    draw: bool = True,
    callbacks: Sequence[Callback] = (),
    judge: bool = True,
) -> RunResult:
    """Run an experiment into its directory, with tracking, and draw the report.

    The report is drawn also when the run ends early, so that an interrupted run can be looked at.

    Args:
        grid: any Flower grid whose nodes run our ClientApp.
        experiment: validated.
        rundir: new, or one to continue.
        observers: called after every round with its record.
        simulated: an engine of ours runs it on data that are no one's: what protects in a deployment may be seeded.
        prepare: of a private run, see `run_experiment`.
        draw: whether there shall be a report; `fedmeta report` draws one later.
        callbacks: told of rounds, evaluations and the end.
        judge: whether models are judged on test clients in the end.
    """
    grid = secured(grid, experiment, simulated)
    trackers = make_trackers(experiment, rundir)

    def track(record: dict[str, Any]) -> None:
        scalars = scalars_of(record)
        for tracker in trackers:
            tracker.log(record["round"], scalars)

    rundir.write_environment()
    try:
        result = run_experiment(
            grid,
            experiment,
            rundir,
            [*observers, track],
            simulated=simulated,
            prepare=prepare,
            callbacks=callbacks,
            judge=judge,
        )
    except BaseException as error:
        if draw and not (isinstance(error, FedmetaError) and rundir.unstarted):  # such a directory is taken away
            _report_unfinished(rundir)
        raise
    finally:
        for tracker in trackers:
            tracker.close()
    if draw:
        state = rundir.load("last").optimiser if rundir.has("last") else {}
        write_report(rundir, draw_episode(settled_workload(Workload(experiment), state), result.vector))
    return result


def _report_unfinished(rundir: RunDir) -> Path | None:
    """A report of what there is; its failure must not hide why the run ended."""
    try:
        return write_report(rundir, None)
    except Exception:
        log.exception("the report of the unfinished run could not be drawn")
        return None
