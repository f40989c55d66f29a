"""Metrics sent elsewhere beside the run directory: TensorBoard and Weights & Biases, both optional."""

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from server.rundir import RunDir


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
    kinds: dict[str, Callable[[Experiment, RunDir], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return [kinds[name](experiment, rundir) for name in experiment.tracking.backends]


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


def _missing(extra: str, error: ImportError) -> ConfigurationError:
    # Not always the package itself: one of those it needs may be what is missing.
    return ConfigurationError(
        f"tracking.backends has '{extra}', which cannot be imported ({error}): pip install 'fedmeta[{extra}]'"
    )
