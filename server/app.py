"""The ServerApp of `flwr run`: in Flower's simulation runtime and in a deployment."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmeta.statistics import Evaluation

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment
    from server.rundir import RunDir

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run configuration names; its directory is logged.

    Raises:
        FedmetaError: a configuration, data set or client that does not fit.
        RuntimeError: a round wanted valid updates, or its step diverged, so that the run counts as failed.
    """
    from fedmeta.attacks.threat import is_omniscient
    from fedmeta.errors import ConfigurationError, FedmetaError
    from server.configuration import from_run_config
    from server.execute import execute
    from server.nodes_there import wait_for_nodes
    from server.polling_grid import PollingGrid, Waiting
    from server.privacy import in_one_line
    from server.secure_aggregation import in_words as learned_in_words
    from server.structured_logs import FACTS, log_as_asked

    log = log_as_asked()
    experiment = from_run_config(context.run_config, Path(__file__).resolve().parent.parent)
    if is_omniscient(experiment):
        raise ConfigurationError(
            "attack.knowledge = 'omniscient' needs our own engines, where all replies pass through one hand: use "
            "`fedmeta simulate`, or own or colluding"
        )
    if experiment.data.parameters.get("path") is not None:
        log.warning("data.path stays here: a node reads its own, from its data-path or as its environment says")
    rundir = _run_directory(experiment, str(context.run_config.get("out", "")), context.run_id)
    waits, privacy = experiment.deployment, experiment.privacy
    waiting = Waiting(
        experiment.server.min_success_fraction,
        waits.patience,
        waits.return_timeout,
        repeat_training=privacy.unit == "none" or privacy.placement != "local",
    )
    polling = PollingGrid(grid, waiting)

    def tell(record: dict[str, Any]) -> None:
        log.info("%s", _line(record), extra={FACTS: _facts(record)})

    try:
        # A run that goes on waits for those it had, and goes on without those that are gone for good.
        wanted = max(1, rundir.clients()) if waits.nodes is None else waits.nodes
        wait_for_nodes(polling, wanted, waits.node_timeout, least=1 if waits.nodes is None else wanted)
        result = execute(polling, experiment, rundir, [tell])
    except FedmetaError as error:
        rundir.discard(error)
        raise
    finally:
        rundir.close()
    if result.results.get("privacy"):
        log.info("%s", in_one_line(result.results["privacy"]))
    if result.results.get("secagg"):
        log.info("%s", learned_in_words(result.results["secagg"]))
    log.info("run directory: %s", result.path)
    if result.failed_rounds:
        raise RuntimeError(f"rounds {list(result.failed_rounds)} did not go well; see {result.path / 'report.html'}")


def _run_directory(experiment: "Experiment", out: str, run_id: int) -> "RunDir":
    """A new run directory, or the one of the same experiment that is to go on.

    Raises:
        FedmetaError: it holds another experiment, another process writes it, or it cannot be written.
    """
    from fedmeta.errors import ConfigurationError
    from server.rundir import RunDir

    place = _place(out)
    if place is None or not (place / "config.json").exists():
        return RunDir.create(place if place is not None else _fresh(experiment.name, run_id), experiment)
    rundir = RunDir.open(place)
    if rundir.experiment.hash != experiment.hash:
        rundir.close()
        raise ConfigurationError(
            f"out = '{out}' holds the run of another experiment: choose another folder, or its own configuration"
        )
    logging.getLogger("fedmeta.server").info("continuing the run in %s", rundir.path)
    return rundir


def _place(out: str) -> Path | None:
    """The `out` key; it must be absolute, since the working directory is the SuperLink's, not the user's."""
    from fedmeta.errors import ConfigurationError

    if not out:
        return None
    path = Path(out)
    if not path.is_absolute():
        raise ConfigurationError(
            f"out = '{out}' must be an absolute path: `flwr run` works in the SuperLink's directory"
        )
    return path


def _fresh(name: str, run_id: int) -> Path:
    runs = os.environ.get("FEDMETA_RUNS")
    root = Path(runs) if runs else Path.home() / ".cache" / "fedmeta" / "runs"
    return root / f"{name}-{run_id}"


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    """What a round's line in a structured log holds beside its text."""
    facts = {key: record[key] for key in ("round", "seconds", "sampled", "failed", "refused", "event", "train")}
    if record["validation"]:
        validation = Evaluation.from_json(record["validation"])
        facts["validation"] = {validation.score_name: validation.after.mean}
    return facts


def _line(record: dict[str, Any]) -> str:
    figures = ", ".join(f"{key} {value:.4g}" for key, value in record["train"].items())
    judged = ""
    if record["validation"]:
        validation = Evaluation.from_json(record["validation"])
        judged = f"; validation {validation.score_name} {validation.after.mean:.4g}"
    return f"round {record['round']}: {figures}{judged}"
