"""What a client does for privacy: a pool of tasks, clipping and noise before anything leaves it, and its ledger."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import Context
from torch import Tensor

from clients.node import simulated
from clients.request import Request
from fedmeta.cohort import Gradient, LocalPlan
from fedmeta.errors import FedmetaError
from fedmeta.experiment import Experiment
from fedmeta.params import Params, ParamSpec
from fedmeta.privacy.clipping import clip_rows, clipped_sum
from fedmeta.privacy.example_level import NoisyExamples
from fedmeta.privacy.ledger import Budget, Entry, Ledger
from fedmeta.privacy.noise import Noise, seeded_noise, system_generator, system_noise
from fedmeta.privacy.plan import local_plan
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import Episode
from fedmeta.wire import WEIGHT
from fedmeta.workload import Workload


class BudgetSpent(FedmetaError):
    """A client that takes no further part, since its own ledger does not allow it."""


@dataclass(frozen=True)
class Protection:
    """Privacy of a cohort of clients in one round.

    Attributes:
        requests: what each client was asked.
        contexts: of the same clients.
    """

    requests: Sequence[Request]
    contexts: Sequence[Context]

    @property
    def experiment(self) -> Experiment:
        """The experiment that all of them were sent."""
        return self.requests[0].workload.experiment

    @property
    def local(self) -> bool:
        """Whether clients add noise."""
        privacy = self.experiment.privacy
        return privacy.unit != "none" and privacy.placement == "local"

    def plan(self, plan: LocalPlan) -> LocalPlan:
        """The local plan with the clipping, and where noise is local the noise, of the unit."""
        privacy, spec = self.experiment.privacy, self.requests[0].workload.spec
        if privacy.unit == "task":
            z = self._noise_multiplier() if self.local else 0.0
            layers = _layers(spec) if privacy.per_layer else ()

            def reduce(rows: Tensor, client: int, step: int) -> Tensor:
                total = clipped_sum(rows, privacy.clip_norm, layers)
                if z:
                    draws = self.noise(client, f"step/{step}")(len(total)).to(total.device)
                    total.add_(draws, alpha=z * privacy.clip_norm)
                return (total / plan.tasks_per_step).to(rows.dtype)

            return replace(plan, reduce=reduce, may_be_empty=privacy.task_pool is not None)
        if privacy.unit == "example":
            return replace(plan, gradient=self._example_gradient)
        return plan

    def update(self, vector: Tensor, client: int) -> Tensor:
        """An update `[D]` as it may leave the client: clipped and noised where unit is the client and noise local."""
        privacy, spec = self.experiment.privacy, self.requests[client].workload.spec
        if not (self.local and privacy.unit == "client"):
            return vector
        layers = [entry.size for entry in spec.select("shared")] if privacy.per_layer else []
        clipped, _ = clip_rows(vector.unsqueeze(0), privacy.clip_norm, layers)
        noised = self.noise(client, "update")(len(vector)).to(vector.device)
        return noised.mul_(self._noise_multiplier() * privacy.clip_norm).add_(clipped[0]).to(vector.dtype)

    def metrics(self, found: dict[str, float], client: int) -> dict[str, float]:
        """What may be said beside an update. Under privacy a weight that the data do not decide, and no more."""
        workload = self.requests[client].workload
        privacy, plan = self.experiment.privacy, self.experiment.client
        if privacy.unit == "none":
            return {**found, WEIGHT: workload.weight(self.requests[client].client)}
        shared = {name: value for name, value in found.items() if math.isfinite(value)} if privacy.share_metrics else {}
        return {**shared, WEIGHT: plan.steps * plan.tasks_per_step}

    def noise(self, client: int, purpose: str) -> Noise:
        """Draws for one client: from the seed in a simulation, else from the operating system."""
        request = self.requests[client]
        if not simulated(self.contexts[client]):
            return system_noise()
        return seeded_noise(self.experiment.seed, request.round, request.client, purpose)

    def _noise_multiplier(self) -> float:
        return local_plan(self.experiment).noise_multiplier

    def _example_gradient(self, client: int, step: int) -> Gradient:
        learner = self.requests[client].workload.learner
        noisy = NoisyExamples(
            self.experiment.privacy.clip_norm, self._noise_multiplier(), self.noise(client, f"step/{step}")
        )

        def gradient(params: Params, episode: Episode) -> tuple[Params, dict[str, Tensor]]:
            found: tuple[Params, dict[str, Tensor]] = learner.private_meta_gradient(params, episode, noisy)  # type: ignore[attr-defined]
            return found

        return gradient


@dataclass(frozen=True)
class Reservation:
    """A release that a client's own ledger counts already."""

    ledger: Ledger
    numbers: list[int]

    def confirm(self) -> None:
        """Note that it was released."""
        self.ledger.release(self.numbers)


def reserve(request: Request, context: Context) -> Reservation | None:
    """Write a release down in the client's own ledger before it trains; None where others keep the account.

    In a simulation the run directory holds the ledger of all clients. A deployed client trusts nobody with it: its
    file is `privacy-ledger` of the node's configuration, else `client-<id>.jsonl` in `$FEDMETA_LEDGERS` or
    `~/.local/state/fedmeta/ledgers`. It holds what all runs on this client's data have spent, under whatever id: all of
    the file counts against the budget.

    Raises:
        BudgetSpent: the experiment's budget would be exceeded.
        ConfigurationError: the ledger holds releases for another unit, which have no common epsilon with this one's.
        LedgerError: the ledger is damaged or cannot be written.
    """
    experiment = request.workload.experiment
    privacy = experiment.privacy
    if privacy.unit == "none" or privacy.placement == "central" or simulated(context):
        return None
    ledger = Ledger(_ledger_path(request, context))
    plan = local_plan(experiment)
    budget = None if privacy.budget is None else Budget(privacy.budget, plan.delta, plan.accountant)
    numbers = ledger.reserve_within(Entry(request.round, plan.unit, plan.event, request.client), budget)
    if numbers is None:
        raise BudgetSpent(f"the privacy budget of client {request.client}, epsilon {privacy.budget:g}, is spent")
    return Reservation(ledger, numbers)


def pool_tasks(request: Request, context: Context, step: int, count: int) -> list[Episode]:
    """The tasks of a step from the client's fixed pool, each by a coin of probability count / pool; perhaps none."""
    experiment, workload = request.workload.experiment, request.workload
    pool = experiment.privacy.task_pool
    assert pool is not None
    if simulated(context):
        rng = numpy_generator(experiment.seed, request.round, request.client, f"task coins/{step}")
    else:
        rng = system_generator()
    chosen = (rng.random(pool) < count / pool).nonzero()[0]
    return [_pool_task(workload, request.client, int(index)) for index in chosen]


def _pool_task(workload: Workload, client: int, index: int) -> Episode:
    rng = numpy_generator(workload.experiment.seed, 0, client, f"pool/{index}")
    return workload.training_source(client).sample(workload.training_shape, rng)


def _layers(spec: ParamSpec) -> list[int]:
    return [entry.size for entry in (*spec.select("shared"), *spec.select("personal"))]


def _ledger_path(request: Request, context: Context) -> Path:
    given = context.node_config.get("privacy-ledger")
    if given is not None:
        return Path(str(given))
    folder = os.environ.get("FEDMETA_LEDGERS")
    place = Path(folder) if folder else Path.home() / ".local" / "state" / "fedmeta" / "ledgers"
    place.mkdir(parents=True, exist_ok=True)
    return place / f"client-{request.client}.jsonl"
