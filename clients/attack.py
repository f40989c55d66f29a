"""A malicious client: where an attack of the experiment enters the client pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from clients.request import Request
from fedmeta.attacks import ATTACKS
from fedmeta.attacks.base import AttackContext, AttackImpossible, UpdateAttack
from fedmeta.attacks.local import LocalAttack, Scene
from fedmeta.attacks.threat import first_malicious, is_active, is_omniscient, malicious_clients
from fedmeta.cohort import LocalPlan
from fedmeta.params import Params
from fedmeta.seeding import SERVER, numpy_generator, torch_generator
from fedmeta.tasks import Episode
from fedmeta.wire import ATTACKERS, MALICIOUS
from fedmeta.workload import Workload

Honest = Callable[[Sequence[int]], Tensor]
"""Client ids -> the honest updates `[k, D]` that they would send in this round."""


@dataclass(frozen=True)
class Attacker:
    """One malicious client in one round.

    Attributes:
        request: what it was asked.
        method: the attack.
        scene: what it knows.
    """

    request: Request
    method: LocalAttack | UpdateAttack
    scene: Scene

    def poison(self, episodes: list[Episode], step: int) -> list[Episode]:
        """The episodes that it trains on, from those that it drew."""
        if not isinstance(self.method, LocalAttack):
            return episodes
        seed, round, client = self.scene.experiment.seed, self.scene.round, self.scene.client
        rng = numpy_generator(seed, round, client, f"poison/{step}")
        return [self.method.poison(episode, self.scene, rng) for episode in episodes]

    def plan(self, plan: LocalPlan) -> LocalPlan:
        """How it trains."""
        return self.method.plan(plan, self.scene) if isinstance(self.method, LocalAttack) else plan

    def update(self, update: Tensor) -> tuple[Tensor, str | None]:
        """The update `[D]` that it sends, from the one that it trained; and why it is the honest one, where it is."""
        if isinstance(self.method, LocalAttack):
            return self.method.update(update, self.scene), None
        try:
            return self._crafted(update, self.method), None
        except AttackImpossible as error:
            return update, str(error)

    def _crafted(self, own: Tensor, method: UpdateAttack) -> Tensor:
        """Its row: made of its own update alone, or the one that falls to it of what all attackers work out alike."""
        scene, seed = self.scene, self.scene.experiment.seed
        if scene.attack.knowledge == "own":
            generator = torch_generator(seed, scene.round, scene.client, "attack")
            context = AttackContext(scene.round)
            return method(own.unsqueeze(0).cpu(), n_malicious=1, generator=generator, context=context)[0].to(own)
        generator = torch_generator(seed, scene.round, SERVER, "attack")
        count = len(scene.attackers)
        benign = scene.participants is not None and scene.participants > count
        context = AttackContext(scene.round, scene.participants if benign else None)
        rows = method(scene.honest().cpu(), n_malicious=count, generator=generator, context=context)
        return rows[scene.attackers.index(scene.client)].to(own)


def is_attacker(request: Request) -> bool:
    """Whether the client attacks in this round, itself and not by somebody who rewrites its reply."""
    experiment = request.workload.experiment
    return request.client in attackers_of(request) and not is_omniscient(experiment)


def attackers_of(request: Request) -> tuple[int, ...]:
    """The attackers of the round: as the strategy tells, else all malicious clients while the attack lasts."""
    told = request.config.get(ATTACKERS)
    if told is not None:
        return tuple(int(client) for client in told)
    experiment = request.workload.experiment
    return all_malicious(request.workload) if is_active(experiment, request.round) else ()


def malicious_of(request: Request) -> tuple[int, ...]:
    """All malicious clients, ascending: as the strategy tells, else by the federation."""
    told = request.config.get(MALICIOUS)
    return all_malicious(request.workload) if told is None else tuple(int(client) for client in told)


def all_malicious(workload: Workload) -> tuple[int, ...]:
    """All malicious clients of a federation, ascending."""
    if workload.experiment.attack.method.name == "none":
        return ()
    return tuple(sorted(malicious_clients(workload.experiment, training_clients(workload))))


def ringleader(workload: Workload) -> int:
    """The attacker that deploys what all have trained for; also where nobody was malicious, so as to compare."""
    return first_malicious(workload.experiment, training_clients(workload))


def training_clients(workload: Workload) -> list[int]:
    """The ids of the clients that train."""
    return [client.id for client in workload.federation.clients if client.role == "train"]


def make_attacker(request: Request, params: Params, honest: Honest) -> Attacker:
    """The malicious client of a request.

    Args:
        request: of one for whom `is_attacker` holds.
        params: the global model, with the client's own personal and the frozen entries.
        honest: trains clients without poison.
    """
    workload = request.workload
    method = workload.experiment.attack.method
    attackers = attackers_of(request)
    known = attackers if workload.experiment.attack.knowledge == "colluding" else (request.client,)
    participants = request.config.get("participants")
    scene = Scene(
        experiment=workload.experiment,
        learner=workload.learner,
        spec=workload.spec,
        input_shape=tuple(workload.spec_of_data.input_shape),
        round=request.round,
        client=request.client,
        malicious=malicious_of(request),
        attackers=attackers,
        participants=None if participants is None else int(participants),
        params=params,
        last_update=request.last_update,
        honest=cache(lambda: honest(known)),
        clean_episodes=lambda count: attackers_episodes(workload, count),
        data=workload.spec_of_data,
    )
    return Attacker(request, ATTACKS.make(method.name, where="attack.method", **method.parameters), scene)


def attackers_episodes(workload: Workload, count: int) -> list[Episode]:
    """Episodes of the first attacker's data, beside those that it trains on; the same for all attackers and rounds."""
    leader = ringleader(workload)
    rng = numpy_generator(workload.experiment.seed, 0, leader, "attack episodes")
    return [workload.source(leader).sample(workload.training_shape, rng) for _ in range(count)]
