"""Apple's pfl-research on trivial clients, where it is installed: `FederatedAveraging` on its simulated backend.

It adds updates up where they are made, in one process, so that no update of a client ever reaches a strategy: what our
partial sums compare with. In one measurement clients take a step of SGD, pfl's own; in the other they only add one.
"""

import asyncio
import importlib.util
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def is_installed() -> bool:
    """Whether `import pfl` would find it."""
    return importlib.util.find_spec("pfl") is not None


def measure(floats: Sequence[int], clients: int, rounds: int, repeats: int) -> dict[str, list[list[float]]]:
    """Seconds of so many rounds over all clients, for each number of floats `repeats` times, after one to warm up.

    Returns:
        `averaging` with pfl's own local SGD, and `idle`, whose clients only add one.
    """
    asyncio.set_event_loop(asyncio.new_event_loop())  # which pfl asks for
    found: dict[str, list[list[float]]] = {"averaging": [], "idle": []}
    for size in floats:
        for name, seconds in found.items():
            seconds.append([])
            for _ in range(repeats):
                _play(size, clients, 1, idle=name == "idle")
                seconds[-1].append(_play(size, clients, rounds, idle=name == "idle"))
    return found


def _play(floats: int, clients: int, rounds: int, *, idle: bool) -> float:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    users = iter(lambda: 0, 1)
    data = FederatedDataset(lambda user: Dataset((np.zeros(1),), user_id=str(user)), lambda: next(users))
    backend = SimulatedBackend(training_data=data, val_data=data)
    params = NNAlgorithmParams(
        central_num_iterations=rounds, evaluation_frequency=rounds + 1, train_cohort_size=clients, val_cohort_size=0
    )
    training = NNTrainHyperParams(local_num_epochs=1, local_learning_rate=1.0, local_batch_size=1)
    vector = _Vector(floats)
    model = PyTorchModel(vector, torch.optim.SGD, torch.optim.SGD(vector.parameters(), lr=1.0))
    started = time.perf_counter()
    _averaging(idle).run(params, backend, model, training, send_metrics_to_platform=False)
    return time.perf_counter() - started


class _Vector(torch.nn.Module):
    """A model that is one vector, and whose SGD step of size one adds one to it."""

    def __init__(self, floats: int) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(floats))

    def loss(self, _: torch.Tensor) -> torch.Tensor:
        """Minus the sum."""
        return -self.w.sum()

    def metrics(self, _: torch.Tensor) -> dict[str, Any]:
        """None."""
        return {}


def _averaging(idle: bool) -> Any:
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.metrics import Metrics

    class AddOne(FederatedAveraging):  # type: ignore[misc, unused-ignore]
        """FederatedAveraging whose clients add one instead of training."""

        def train_one_user(self, initial_model_state: Any, model: Any, user_dataset: Any, central_context: Any) -> Any:
            with torch.no_grad():
                model.pytorch_model.w.add_(1)
            return model.get_model_difference(initial_model_state), Metrics()

    return AddOne() if idle else FederatedAveraging()
