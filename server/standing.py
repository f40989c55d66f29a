"""Where a run stands between two rounds: what a checkpoint is made from, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from fedmeta.errors import CheckpointError
from fedmeta.workload import Workload
from server.checkpoint import Checkpoint
from server.rundir import RunDir
from strategies.decorator import Remembering
from strategies.meta import MetaStrategy

GRID = "grid/"
"""What names of the grid's state begin with in a checkpoint."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands between two rounds.

    Attributes:
        round: finished rounds.
        vector: `[D]`, the model.
        best: round and score of the best validation so far; None before there is one.
    """

    round: int
    vector: Tensor
    best: dict[str, Any] | None


def standing_of(rundir: RunDir, workload: Workload, strategy: MetaStrategy, grid: Grid) -> Standing:
    """The start, or what the last checkpoint says, from which strategy and grid go on.

    Raises:
        CheckpointError: the checkpoint is damaged or of another experiment, or clients held parameters with it.
    """
    if not rundir.has("last"):
        rundir.truncate(0)  # a crash within the first round may have left its record
        return Standing(0, workload.initial_vector(), None)
    checkpoint = rundir.load("last")
    checkpoint.check(workload.experiment.hash, workload.spec.hash)
    if checkpoint.round and workload.spec.select("personal"):
        raise CheckpointError(
            f"the run in '{rundir.path}' has personal parameters, which its clients held and which ended with it: "
            "start a new run"
        )
    rundir.truncate(checkpoint.round)
    restore(checkpoint.optimiser, strategy, grid)
    return Standing(checkpoint.round, workload.spec.flatten(checkpoint.params), checkpoint.facts["best"])


def restore(state: Mapping[str, Tensor], strategy: MetaStrategy, grid: Grid) -> None:
    """Give strategy and grid back what a checkpoint holds of them; `state` is its `optimiser`."""
    strategy.load_state({key: value for key, value in state.items() if not key.startswith(GRID)})
    if isinstance(grid, Remembering):
        grid.load_state({key.removeprefix(GRID): value for key, value in state.items() if key.startswith(GRID)})


def checkpoint_of(standing: Standing, strategy: MetaStrategy, grid: Grid) -> Checkpoint:
    """What `standing_of` goes on from."""
    remembered = grid.state() if isinstance(grid, Remembering) else {}
    return Checkpoint(
        round=standing.round,
        experiment_hash=strategy.experiment.hash,
        spec_hash=strategy.spec.hash,
        params=strategy.spec.unflatten(standing.vector),
        optimiser={**strategy.state(), **{f"{GRID}{key}": value for key, value in remembered.items()}},
        facts={"best": standing.best},
    )
