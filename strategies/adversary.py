"""The server's side of a staged attack: who attacks in a round, and what attackers are told."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import RecordDict
from torch import Tensor

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.threat import is_active, is_attacked, malicious_clients
from fedmeta.experiment import Experiment
from fedmeta.wire import ATTACKERS, LAST_UPDATE, MALICIOUS, vector_record


class Adversary:
    """The malicious clients of an experiment, as a strategy deals with them.

    Args:
        experiment: with its threat model.
        training_clients: ids of all clients that may train.

    State that lasts: `last_update`, what the last round did to the model, where the attack needs it.
    """

    def __init__(self, experiment: Experiment, training_clients: Iterable[int]) -> None:
        self.experiment = experiment
        self.malicious = malicious_clients(experiment, training_clients)
        self.last_update: Tensor | None = None
        self._needs_it = getattr(ATTACKS.get(experiment.attack.method.name), "needs_last_update", False)

    def attackers(self, round: int, sampled: Sequence[int]) -> tuple[int, ...] | None:
        """The sampled clients that attack in a round; None where the experiment has no attack."""
        if not is_attacked(self.experiment):
            return None
        active = is_active(self.experiment, round)
        return tuple(client for client in sampled if active and client in self.malicious)

    def told(self, round: int, sampled: Sequence[int]) -> dict[str, Any]:
        """What a train message says of the attack: who is malicious, who attacks now, how many take part in the round.

        Clients and grids act by this, and never by a draw of their own: they may know of other clients.
        """
        attackers = self.attackers(round, sampled)
        if attackers is None:
            return {}
        return {MALICIOUS: sorted(self.malicious), ATTACKERS: list(attackers), "participants": len(sampled)}

    def contents(self, content: RecordDict, round: int, sampled: Sequence[int]) -> dict[int, RecordDict]:
        """The content of each client's train message: one for all, but that attackers may be sent the last update."""
        found = dict.fromkeys(sampled, content)
        if self.last_update is not None:
            more = RecordDict({**content, LAST_UPDATE: vector_record(self.last_update)})
            found |= dict.fromkeys(self.attackers(round, sampled) or (), more)
        return found

    def saw(self, before: Tensor, after: Tensor) -> None:
        """Note what a round made of the model."""
        if self._needs_it:
            self.last_update = after - before

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {} if self.last_update is None else {LAST_UPDATE: self.last_update}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        self.last_update = state.get(LAST_UPDATE)
