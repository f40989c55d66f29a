"""Metrics sent elsewhere beside the run directory: TensorBoard, W&B, MLflow and Prometheus, all optional."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.statistics import Evaluation
from server.files import writing
from server.rundir import RunDir

MLFLOW_LONGEST = 500
"""Characters of a parameter that every MLflow server takes."""


class Tracker(Protocol):
    """Somewhere to send scalars."""

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars of one round."""
        ...

    def close(self) -> None:
        """Flush and end."""
        ...


def make_trackers(experiment: Experiment, rundir: RunDir) -> list[Tracker]:
    """The trackers that an experiment asks for.

    Raises:
        ConfigurationError: a package is missing; names the extra to install.
    """
    kinds: dict[str, Callable[[Experiment, RunDir], Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": WeightsAndBiases,
        "mlflow": MLflow,
        "prometheus": Prometheus,
    }
    return [kinds[name](experiment, rundir) for name in experiment.tracking.backends]


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What trackers are sent of a round, by name, from its record in metrics.jsonl."""
    scalars = {f"train/{key}": value for key, value in record["train"].items()}
    scalars |= {
        "round/seconds": record["seconds"],
        "clients/sampled": len(record["sampled"]),
        "clients/failed": len(record["failed"]) + len(record["refused"]),
    }
    if record["validation"]:
        validation = Evaluation.from_json(record["validation"])
        scalars |= {
            f"validation/{validation.score_name}": validation.after.mean,
            "validation/loss": validation.loss_after.mean,
        }
    return scalars


class TensorBoard:
    """Event files in the run directory's `tensorboard/`."""

    def __init__(self, experiment: Experiment, rundir: RunDir) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard", error) from error
        self._writer: Any = SummaryWriter(str(rundir.path / "tensorboard"))

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars of one round."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, round)

    def close(self) -> None:
        """Flush and end."""
        self._writer.close()


class WeightsAndBiases:
    """A W&B run, kept in the run directory; offline unless WANDB_MODE says otherwise."""

    def __init__(self, experiment: Experiment, rundir: RunDir) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb", error) from error
        self._run: Any = wandb.init(
            project=experiment.tracking.project,
            name=rundir.path.name,
            dir=str(rundir.path),
            config=experiment.model_dump(mode="json"),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars of one round."""
        self._run.log(dict(scalars), step=round)

    def close(self) -> None:
        """Flush and end."""
        self._run.finish()


class MLflow:
    """A run of MLflow, of the experiment `tracking.project`.

    It goes to `$MLFLOW_TRACKING_URI`; without one to `mlflow.db` in the run directory, which
    `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db` shows. A session of a resumed run is a run of MLflow's own.
    """

    def __init__(self, experiment: Experiment, rundir: RunDir) -> None:
        try:
            from mlflow.entities import Metric
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _missing("mlflow", error) from error
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(rundir.path / 'mlflow.db').resolve()}"
        self._client, self._metric = MlflowClient(tracking_uri=place), Metric
        known = self._client.get_experiment_by_name(experiment.tracking.project)
        project = known.experiment_id if known else self._client.create_experiment(experiment.tracking.project)
        self._run = self._client.create_run(project, run_name=rundir.path.name).info.run_id
        for key, value in flat(experiment.model_dump(mode="json")).items():
            self._client.log_param(self._run, key, str(value)[:MLFLOW_LONGEST])

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars of one round."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [self._metric(name, value, now, round) for name, value in scalars.items()])

    def close(self) -> None:
        """Mark the run as over."""
        self._client.set_terminated(self._run)


def flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted key -> value.

    >>> flat({"learner": {"name": "maml"}, "seed": 0})
    {'learner.name': 'maml', 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return found


class Prometheus:
    """A text file for the textfile collector of Prometheus' node exporter, written anew after every round.

    It is `<run directory>.prom` in the folder `$FEDMETA_PROMETHEUS`, else `metrics.prom` in the run directory. A file
    opens no port, and the last figures stay when the run is over.
    """

    def __init__(self, experiment: Experiment, rundir: RunDir) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise _missing("prometheus", error) from error
        folder = os.environ.get("FEDMETA_PROMETHEUS")
        self._path = Path(folder) / f"{rundir.path.name}.prom" if folder else rundir.path / "metrics.prom"
        self._write = prometheus.write_to_textfile
        self._registry = prometheus.CollectorRegistry()
        self._labels = (experiment.name, rundir.path.name)

        def gauge(name: str, text: str, *labels: str) -> Any:
            return prometheus.Gauge(name, text, ["experiment", "run", *labels], registry=self._registry)

        self._round = gauge("fedmeta_round", "finished rounds")
        self._rounds = gauge("fedmeta_rounds", "rounds to play")
        self._time = gauge("fedmeta_round_timestamp_seconds", "when the last round ended")
        self._scalar = gauge("fedmeta_scalar", "scalars of the last round that had them", "name")
        self._rounds.labels(*self._labels).set(experiment.server.rounds)

    def log(self, round: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of one round.

        Raises:
            FedmetaError: the file cannot be written.
        """
        self._round.labels(*self._labels).set(round)
        self._time.labels(*self._labels).set_to_current_time()
        for name, value in scalars.items():
            self._scalar.labels(*self._labels, name).set(value)
        with writing(self._path):
            self._write(str(self._path), self._registry)

    def close(self) -> None:
        """All is written."""


def _missing(extra: str, error: ImportError) -> ConfigurationError:
    # Not always the package itself: one of those it needs may be what is missing.
    return ConfigurationError(
        f"tracking.backends has '{extra}', which cannot be imported ({error}): pip install 'fedmeta[{extra}]'"
    )
