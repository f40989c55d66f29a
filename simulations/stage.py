"""Rounds of an experiment played outside its run directory: one replayed to be explained, or a whole shadow run.

The same clients, grids, strategy and draws as in a run, with the matrix of updates kept. Nothing is written: a
private experiment has its ledger in a folder that ends with the stage.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord
from flwr.serverapp import Grid
from torch import Tensor

from fedmeta.code_hash import code_hash, code_path
from fedmeta.experiment import Experiment
from fedmeta.optimisers import schedule
from fedmeta.params import ParamSpec
from fedmeta.privacy.ledger import Ledger
from fedmeta.privacy.schemes import Scheme
from fedmeta.wire import read_vector, vector_record
from fedmeta.workload import Workload, workload_from_json
from server.checkpoint import Checkpoint
from server.configuration import load
from server.secure_aggregation import secured
from server.standing import restore
from simulations.engine.inline_grid import InlineGrid
from simulations.engine.local_grid import LocalGrid
from simulations.launch import make_grid
from simulations.omniscient_attack import attacked
from strategies import SAMPLERS
from strategies.aggregation import Aggregate, RoundContext
from strategies.directory import Directory, learn_directory
from strategies.meta import MetaStrategy
from strategies.private_rounds import PrivateRounds
from strategies.replies import Sorted, Update
from strategies.round_report import RoundReport


@dataclass(frozen=True)
class Present:
    """A sampler of whose draws the absent clients are taken away: as if they were not there, and nobody came instead.

    Rates, cohorts and denominators stay those of the whole population, so that nothing but the updates differs.
    """

    sampler: Any
    absent: frozenset[int]

    def check(self, available: int) -> None:
        """As the sampler does."""
        self.sampler.check(available)

    def scheme(self, population: int) -> Scheme:
        """As the sampler's."""
        found: Scheme = self.sampler.scheme(population)
        return found

    def marginal(self, population: int) -> float:
        """Of a client that is present."""
        return float(self.sampler.marginal(population))

    def expected(self, population: int) -> float:
        """As the sampler's: absent clients are not known to be absent."""
        return float(self.sampler.expected(population))

    def draw(self, population: Sequence[int], rng: np.random.Generator) -> list[int]:
        """The drawn clients that are present, perhaps none."""
        return [client for client in self.sampler.draw(population, rng) if client not in self.absent]


class WatchedStrategy(MetaStrategy):
    """The strategy of a run, whose last round can be looked at."""

    def __init__(
        self,
        experiment: Experiment,
        spec: ParamSpec,
        directory: Directory,
        private: PrivateRounds | None,
        told: Experiment,
        absent: frozenset[int],
    ) -> None:
        super().__init__(experiment, spec, directory, private, told)
        self.sampler = Present(self.sampler, absent)
        self._told_hash = told.hash
        self.aggregation.sums = False  # whole updates, whatever engine.reduce says
        self.came: Sorted | None = None

    def base_config(self, server_round: int) -> dict[str, Any]:
        """As in a run; the hash is that of the experiment which clients are told."""
        return {**super().base_config(server_round), "experiment-hash": self._told_hash}

    def _aggregate(self, server_round: int, found: Sorted) -> Aggregate:
        self.came = found
        return super()._aggregate(server_round, found)


@dataclass(frozen=True)
class Played:
    """One round.

    Attributes:
        round: counted from 1.
        before, after: `[D]`, the model; the same where nothing was aggregated.
        matrix: `[n, D]`, the updates that came before the aggregator, by ascending client id.
        clients: `[n]` their ids.
        weights: `[n]`, of the updates.
        report: what the strategy told of it.
        context: what the aggregator was told; None where there was none to ask.
        optimiser: the server optimiser's state before.
    """

    round: int
    before: Tensor
    after: Tensor
    matrix: Tensor
    clients: tuple[int, ...]
    weights: Tensor
    report: RoundReport
    context: RoundContext | None
    optimiser: dict[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """Where rounds are played.

    Attributes:
        workload: as clients build it.
        strategy: the server's side.
        grid: that carries the messages.
    """

    workload: Workload
    strategy: WatchedStrategy
    grid: Grid

    def restore(self, checkpoint: Checkpoint) -> Tensor:
        """Go on from a checkpoint of the run; its model, `[D]`."""
        checkpoint.check(self.workload.experiment.hash, self.workload.spec.hash)
        restore(checkpoint.optimiser, self.strategy, self.grid)
        return self.workload.spec.flatten(checkpoint.params)

    def play(self, round: int, vector: Tensor) -> Played:
        """Train and aggregate one round from the model `[D]`."""
        strategy, size = self.strategy, self.workload.spec.size()
        memory, optimiser = dict(strategy.aggregation.memory), dict(strategy.optimiser_state)
        strategy.came = None
        messages = strategy.configure_train(round, vector_record(vector), ConfigRecord(), self.grid)
        replies = self.grid.send_and_receive(messages, timeout=strategy.experiment.server.timeout)
        aggregated, _ = strategy.aggregate_train(round, replies)
        assert strategy.report is not None
        came, context = strategy.came, None
        updates: list[Update] = came.updates if came is not None else []
        matrix = torch.zeros(0, size) if came is None else came.matrix.clone()
        if updates and (strategy.private is None or strategy.private.central is None):
            context = replace(strategy.aggregation.context(round, updates, vector), state=memory)
        return Played(
            round,
            vector,
            vector if aggregated is None else read_vector(aggregated, size),
            matrix,
            tuple(update.client for update in updates),
            strategy.aggregation.weights(updates),
            strategy.report,
            context,
            optimiser,
        )

    def moved(self, played: Played, aggregate: Tensor) -> Tensor:
        """`[D]`, the model that the server's optimiser would have made of another aggregate in a played round."""
        server = self.strategy.experiment.server
        scale = schedule(server.schedule, server.progress(played.round))
        _, change = self.strategy.optimiser.step(played.optimiser, -aggregate, scale=scale)
        return played.before + change


def _grid(workload: Workload, engine: str) -> LocalGrid:
    if engine != "inline":
        return make_grid(workload.experiment, engine)
    return InlineGrid("clients.app:app", len(workload.federation.clients), check=False, log_failures=False)


@contextmanager
def open_stage(
    experiment: Experiment, engine: str = "inline", *, seed: int | None = None, absent: frozenset[int] = frozenset()
) -> Iterator[Stage]:
    """A stage for rounds of an experiment.

    Args:
        experiment: validated; clients are told it as it is, so that their data are the run's.
        engine: `ray` or `inline`.
        seed: of what the server draws (sampling, its noise, ties); None: the experiment's. The episodes that a client
            draws in a round are the run's in any case, since the same seed divides the data.
        absent: ids of training clients that never take part.
    """
    serving = experiment if seed is None else load(experiment, {"seed": seed})
    # The object that clients in this process use, too: data are loaded once for all stages.
    workload = workload_from_json(experiment.to_json())
    torch.set_num_threads(experiment.engine.threads)
    with tempfile.TemporaryDirectory() as folder, _grid(workload, engine) as local:
        grid = secured(attacked(local, experiment), experiment, True)
        directory, _ = learn_directory(grid, experiment.to_json(), code_hash(), code_path(), experiment.server.timeout)
        private = None
        if experiment.privacy.unit != "none":
            sampler = SAMPLERS.make(serving.server.sampling.name, **serving.server.sampling.parameters)
            ledger = Ledger(Path(folder) / "privacy.jsonl")
            population = len(directory.role("train"))
            private = PrivateRounds(serving, workload.spec, sampler, population, ledger, True)
        strategy = WatchedStrategy(serving, workload.spec, directory, private, experiment, absent)
        yield Stage(workload, strategy, grid)
