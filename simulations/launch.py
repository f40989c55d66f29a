"""`simulate`: an experiment on this machine or a Ray cluster, from Python."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

# Before Flower and Ray are imported: neither reports home from a simulation.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from fedmeta.data.class_dataset import ClassDataset
from fedmeta.data.delivered import data_key, delivered
from fedmeta.data.given import hand_over
from fedmeta.errors import ConfigurationError, FedmetaError, did_you_mean
from fedmeta.experiment import Experiment
from fedmeta.workload import workload_from_json
from server.callbacks import Callback
from server.configuration import load
from server.execute import execute
from server.files import folder_of
from server.finished import finished_result
from server.rounds import Observer, Prepare, RunResult
from server.rundir import RunDir
from server.words import counted
from simulations.engine.local_grid import LocalGrid
from simulations.fit import load_fitting
from simulations.omniscient_attack import attacked
from simulations.shipped import advise, where_to_start

Engine = Literal["ray", "inline"]

NOTHING_LEFT = "nothing is left to do, and its files stay as they are"

log = logging.getLogger("fedmeta.engine")


def simulate(
    source: str | Path | Mapping[str, Any] | Experiment | None = None,
    *,
    engine: Engine = "ray",
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    observers: Sequence[Observer] = (),
    callbacks: Sequence[Callback] = (),
    data: ClassDataset | None = None,
    report: bool = True,
) -> RunResult:
    """Simulate a federated meta-learning experiment: `simulate("file.toml", engine="ray")`.

    Args:
        source: an experiment file, nested mappings, or an Experiment; None only with `resume`.
        engine: `ray` (client actors) or `inline` (this process, for debugging); results are the same.
        overrides: dotted key -> value, such as `{"learner.name": "maml"}`.
        out: the run directory; None makes a fresh one under `runs/`.
        resume: a run directory to continue to the same numbers as an uninterrupted run. Its own experiment is used;
            overrides may change only the engine and tracking. A finished run is left as it is.
        observers: called after every round with its record.
        callbacks: told of rounds, evaluations and the end, and may end the run: see `server.callbacks.Callback`.
        data: your own data set, in place of the experiment's; see docs/your-own-data.md. A run with one is resumed
            with the same one.
        report: whether its pictures and page are drawn in the end, which takes most of a tiny run's time;
            `fedmeta report` draws them later.

    Returns:
        What the run leaves: its directory, model, history and evaluations.

    Raises:
        FedmetaError: a configuration, data set, resource or directory that does not fit, with the remedy.
    """
    if data is not None:
        given = hand_over(data)
        overrides = {**(overrides or {}), **given} if resume is None else overrides
    check_engine(engine)
    return play(open_run(source, overrides, out, resume), engine, observers, draw=report, callbacks=callbacks)


def check_engine(engine: str) -> None:
    """Refuse an engine that there is not, before a run directory is made and data are loaded.

    Raises:
        ConfigurationError: it is neither `ray` nor `inline`.
    """
    if engine not in get_args(Engine):
        raise ConfigurationError(f"unknown engine '{engine!s:.80}'{did_you_mean(str(engine), get_args(Engine))}")


@dataclass(frozen=True)
class Opened:
    """A run that is ready to be played.

    Attributes:
        experiment: checked.
        rundir: its directory.
        advice: what to do where the run turns out to be impossible; empty where nothing is known.
    """

    experiment: Experiment
    rundir: RunDir
    advice: str = ""


def open_run(
    source: str | Path | Mapping[str, Any] | Experiment | None,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
) -> Opened:
    """Check an experiment and make its run directory, or open one to continue; arguments as for `simulate`."""
    if resume is None:
        if source is None:
            raise ConfigurationError("no experiment: give a file, or a run directory to resume")
        experiment = load_fitting(source, overrides or {})
        rundir = RunDir.create(folder_of(out) if out is not None else None, experiment)
        return Opened(experiment, rundir, where_to_start(source, overrides or {}))
    if source is not None or out is not None:
        raise ConfigurationError(
            "a resumed run uses its own experiment and directory: give neither a file nor an output folder"
        )
    rundir = RunDir.open(folder_of(resume, "resume"))
    try:
        experiment = load(rundir.experiment, overrides)
    except FedmetaError as error:
        rundir.close()
        raise ConfigurationError(
            f"a resumed run goes on as it was, and only its engine and tracking may be set otherwise: {error}"
        ) from error
    except BaseException:
        rundir.close()
        raise
    if experiment.hash != rundir.experiment.hash:
        rundir.close()
        raise ConfigurationError(
            f"{_differences(rundir.experiment, experiment)} would change the results of the run in {resume}: start a "
            "new run for that"
        )
    return Opened(experiment, rundir)


def _differences(old: Experiment, new: Experiment, shown: int = 3) -> str:
    """Keys with the old and the new value, the first few."""

    def flat(value: Any, key: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{key}.{name}" if key else name).items()}

    was, would = (flat(experiment.model_dump(mode="json")) for experiment in (old, new))
    found = [f"{key}: {was.get(key)} -> {would.get(key)}" for key in {**was, **would} if was.get(key) != would.get(key)]
    return ", ".join(found[:shown]) + (f" and {len(found) - shown} more" if len(found) > shown else "")


def play(
    opened: Opened,
    engine: str,
    observers: Sequence[Observer] = (),
    prepare: Prepare | None = None,
    *,
    draw: bool = True,
    callbacks: Sequence[Callback] = (),
    judge: bool = True,
) -> RunResult:
    """Play an opened run to its end on an engine, `ray` or `inline`.

    `prepare` sees what privacy adds to it; without `draw` it leaves no report; without `judge` no test client is asked.
    A new run whose experiment turns out to be impossible before its first round leaves no directory. A finished one is
    left as it is, and its result is given again.
    """
    experiment, rundir = opened.experiment, opened.rundir
    try:
        finished = finished_result(rundir, experiment) if judge else None
        if finished is not None:
            log.info("the run in %s is finished (%s): %s", rundir.path, counted(finished.rounds, "round"), NOTHING_LEFT)
            return finished
        with make_grid(experiment, engine) as engine_grid:
            grid = attacked(engine_grid, experiment)
            return execute(
                grid,
                experiment,
                rundir,
                observers,
                simulated=True,
                prepare=prepare,
                draw=draw,
                callbacks=callbacks,
                judge=judge,
            )
    except FedmetaError as error:
        if rundir.unstarted:
            advise(error, opened.advice)
        rundir.discard(error)  # it cannot be as it is: nothing of it is worth keeping
        raise
    finally:
        rundir.close()


def make_grid(experiment: Experiment, engine: str) -> LocalGrid:
    """The grid of an experiment's clients on an engine, `ray` or `inline`."""
    check_engine(engine)
    workload = workload_from_json(experiment.to_json())
    num_clients = len(workload.federation.clients)
    # The strategy judges replies itself, and the round loop tells of failures: not twice.
    if engine == "inline":
        from simulations.engine.inline_grid import InlineGrid

        if experiment.engine.client_timeout is not None:
            warnings.warn("engine.client_timeout has no effect inline: nothing can interrupt a client", stacklevel=3)
        return InlineGrid("clients.app:app", num_clients, check=False, log_failures=False)
    from simulations.engine.ray_grid import RayGrid

    settings = experiment.engine
    return RayGrid(
        "clients.app:app",
        num_clients,
        cpus_per_client=settings.cpus_per_client,
        gpus_per_client=settings.gpus_per_client,
        actors=settings.actors,
        ray_address=settings.ray_address,
        start_timeout=settings.start_timeout,
        client_timeout=settings.client_timeout,
        datasets={data_key(experiment.data.name, experiment.data.parameters): workload.dataset},
        in_memory=delivered(experiment.data.name, experiment.data.parameters) is not None,
        check=False,
        log_failures=False,
    )
