"""The server's side of FedEx: what clients are told of configurations, and what is learnt from what they answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fedmeta.experiment import Experiment
from fedmeta.fedex import FedEx, draw
from fedmeta.wire import CONFIGURATION, CONFIGURATION_LOSS, PROBABILITIES
from fedmeta.workload import Workload
from strategies.replies import Sorted

STATE = "fedex/state"
"""Its name in a checkpoint."""


class Configurations:
    """The configurations of an experiment, as a strategy deals with them; without any it says and does nothing.

    Args:
        experiment: validated.

    State that lasts: `known`, their probabilities and what the step size depends on.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._choices = experiment.fedex.configurations
        self.known = FedEx.uniform(len(self._choices)) if self._choices else None

    def told(self) -> dict[str, Any]:
        """What a message to train says beside the model: what to draw from."""
        return {} if self.known is None else {PROBABILITIES: self.known.probabilities.tolist()}

    def settled(self) -> dict[str, Any]:
        """What a message to judge says: the most probable configuration."""
        return {} if self.known is None else {CONFIGURATION: self.known.best}

    def settled_in(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """As `settled`, at the time of a checkpoint's state."""
        return {CONFIGURATION: FedEx.from_tensor(state[STATE]).best} if STATE in state else {}

    def learn(self, round: int, found: Sorted) -> dict[str, float]:
        """Learn from a round's replies; returns the probabilities after it, for its record.

        Who drew what is worked out here, and not believed. An update that was refused, as one that diverged is, counts
        as the largest loss.
        """
        if self.known is None:
            return {}
        probabilities, seed = self.known.probabilities.tolist(), self._experiment.seed
        losses = {update.client: update.metrics.get(CONFIGURATION_LOSS, float("nan")) for update in found.updates}
        losses |= dict.fromkeys(found.refused, float("inf"))
        clients: Sequence[int] = sorted(losses)
        drawn = [draw(probabilities, seed, round, client) for client in clients]
        self.known = self.known.learn(drawn, [losses[client] for client in clients])
        return {f"configuration-{index}": p for index, p in enumerate(self.known.probabilities.tolist())}

    def in_results(self) -> list[dict[str, Any]]:
        """Each configuration with its probability, for results.json; empty where there is none."""
        if self.known is None:
            return []
        pairs = zip(self._choices, self.known.probabilities.tolist(), strict=True)
        return [{"configuration": dict(choice), "probability": p} for choice, p in pairs]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {} if self.known is None else {STATE: self.known.to_tensor()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state()`."""
        if self.known is not None and STATE in state:
            self.known = FedEx.from_tensor(state[STATE])


def settled_workload(workload: Workload, state: Mapping[str, Tensor]) -> Workload:
    """The workload in the configuration that a checkpoint's state has settled on, as its model is judged in.

    Whatever looks at the model of a run afterwards adapts it so; without configurations the workload is as it is.
    """
    if not workload.experiment.fedex.configurations:
        return workload
    known = Configurations(workload.experiment)
    known.load_state(state)
    return workload.configured(int(known.settled()[CONFIGURATION]))
