"""A private run as its strategy sees it: reserve before messages go out, draw in secret, release with noise."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedmeta.experiment import Experiment
from fedmeta.optimisers import OPTIMISERS, schedule
from fedmeta.params import ParamSpec
from fedmeta.privacy.account import Account
from fedmeta.privacy.accounting import check_delta
from fedmeta.privacy.central import CentralGaussian
from fedmeta.privacy.clipping import AdaptiveClip
from fedmeta.privacy.ledger import Ledger
from fedmeta.privacy.noise import Noise, seeded_noise, system_generator, system_noise
from fedmeta.privacy.plan import Plan, PrivateSampler, central_plan, local_plan
from fedmeta.privacy.units import Unit
from fedmeta.seeding import SERVER, numpy_generator

CLIP_NORM = "privacy/clip_norm"
"""The name under which an adaptive clip norm is checkpointed."""


class PrivateRounds:
    """What privacy adds to the rounds of a run.

    Args:
        experiment: one with `privacy.unit` other than none.
        spec: of the model.
        sampler: of clients, which tells the accountant how it draws.
        population: number of training clients.
        ledger: of the run.
        simulated: whether noise and draws come from the seed; only where no one's data are real.

    State that lasts: the clip norm where it adapts (`state`), and the ledger.

    Raises:
        ConfigurationError: a sampler or target that cannot be accounted.
    """

    def __init__(
        self,
        experiment: Experiment,
        spec: ParamSpec,
        sampler: PrivateSampler,
        population: int,
        ledger: Ledger,
        simulated: bool,
    ) -> None:
        privacy = experiment.privacy
        self.size = spec.size()
        self.experiment, self.sampler, self.population, self.simulated = experiment, sampler, population, simulated
        self.plan = make_plan(experiment, sampler, population)
        self.account = Account(self.plan, ledger, privacy.budget)
        self.central = None if self.plan.local else self._central(spec)
        self._numbers: list[int] = []
        if self.plan.unit is Unit.CLIENT and not self.plan.local:
            check_delta(privacy.delta, population)

    def generator(self, round: int) -> np.random.Generator:
        """What clients are drawn from: a draw that anybody can repeat amplifies nothing."""
        if self.simulated or self.plan.local:
            return numpy_generator(self.experiment.seed, round, SERVER, "sampling")
        return system_generator()

    def available(self, clients: Sequence[int]) -> list[int]:
        """The clients whose budget allows another round."""
        return self.account.available(clients)

    def reserve(self, round: int, clients: Sequence[int]) -> None:
        """Write the round into the ledger; before any message of it is sent."""
        self._numbers = self.account.reserve(round, clients)

    def confirm(self) -> None:
        """Note that the round was released."""
        self.account.ledger.release(self._numbers)

    def release(self, rows: Tensor, round: int, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """The noised mean `[D]` over the fixed cohort of updates `[n, D]`, and facts that the noise protects or fixes.

        Only where noise is central. `share`, `[D]`, is that of the clients who hold each element, where some hold
        parts: the cohort is as much smaller there. It is public, as who holds what is: dividing costs no privacy.
        """
        assert self.central is not None
        found = self.central.release(rows * self._unscale(round), round)
        facts = {"clip-norm": found.clip_norm}
        if self.experiment.privacy.share_metrics:
            facts["clipped-share"] = found.clipped
        vector = found.vector if share is None else found.vector / share
        return vector.to(rows.dtype) / self._unscale(round), facts

    def state(self) -> dict[str, Tensor]:
        """To checkpoint beside the model."""
        adaptive = self.central is not None and self.central.adaptive is not None
        return {CLIP_NORM: torch.tensor(self.central.clip_norm, dtype=torch.float64)} if adaptive else {}  # type: ignore[union-attr]

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state()`."""
        if CLIP_NORM in state and self.central is not None:
            self.central.clip_norm = float(state[CLIP_NORM])

    def _central(self, spec: ParamSpec) -> CentralGaussian:
        privacy, z = self.experiment.privacy, self.plan.noise_multiplier
        expected = self.sampler.expected(self.population)
        adaptive = None
        if privacy.clipping == "adaptive":
            adaptive = AdaptiveClip.of(privacy.quantile, privacy.clip_rate, expected, z, privacy.count_noise)
        return CentralGaussian(
            privacy.clip_norm,
            z,
            expected,
            self._noise,
            [entry.size for entry in spec.select("shared")] if privacy.per_layer else [],
            adaptive,
            unclipped=self.plan.unit is Unit.TASK,
        )

    def _noise(self, round: int) -> Noise:
        return seeded_noise(self.experiment.seed, round, SERVER, "release") if self.simulated else system_noise()

    def _unscale(self, round: int) -> float:
        """What turns an update back into the sum of a client's clipped task gradients, for the task as unit; else 1.

        A client descended once: update = -lr scale(round) (sum of clipped gradients) / tasks_per_step.
        """
        if self.plan.unit is not Unit.TASK:
            return 1.0
        client = self.experiment.client
        scale = schedule(client.schedule, self.experiment.server.progress(round))
        lr = OPTIMISERS.make(client.optimiser.name, where="client.optimiser", **client.optimiser.parameters).lr
        return -client.tasks_per_step / (lr * scale)


def make_plan(experiment: Experiment, sampler: PrivateSampler, population: int) -> Plan:
    """What a run of an experiment releases, on `population` training clients."""
    if experiment.privacy.placement != "central":
        return local_plan(experiment)
    return central_plan(experiment, sampler, population)
