"""Flower's own robust strategies on our engine, with our clients answering whole models."""

import numpy as np
import pytest
from flwr.app import ConfigRecord
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum

from fedmeta.wire import FLAT, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from simulations import InlineGrid
from strategies import make_aggregator

EXPERIMENT = load(
    {
        "data": {"name": "sinusoid"},
        "partition": {"name": "iid", "clients": 6, "validation_clients": 0, "test_clients": 1},
        "task": {"ways": 1, "shots": 3, "queries": 3},
        "model": {"name": "sinusoid"},
        "learner": {"name": "maml", "inner_lr": 0.01},
        "client": {"execution": "loop"},
        "server": {"sampling": {"name": "fixed", "clients": 6}},
    }
)


class Recording(FedMedian):
    """Keeps the models, so that our rule can be asked about the same ones."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)  # whose arrays Flower's median takes out
        self.models = [next(iter(reply.content.array_records.values()))[FLAT].numpy() for reply in replies]
        return super().aggregate_train(server_round, replies)


def play(strategy: FedAvg) -> np.ndarray:
    workload = Workload(EXPERIMENT)
    with InlineGrid("clients.app:app", len(workload.federation.clients)) as grid:
        result = strategy.start(
            grid=grid,
            initial_arrays=vector_record(workload.initial_vector()),
            num_rounds=2,
            train_config=ConfigRecord({"experiment": EXPERIMENT.to_json()}),
        )
    return result.arrays[FLAT].numpy()


def test_flowers_median_is_ours_on_the_same_replies() -> None:
    strategy = Recording(fraction_evaluate=0.0)
    found = play(strategy)
    models = np.stack(strategy.models)
    assert len(models) == 8
    assert np.allclose(found, make_aggregator("median")(models).vector, atol=1e-7)


@pytest.mark.parametrize(
    "strategy",
    [
        FedTrimmedAvg(fraction_evaluate=0.0, beta=0.2),
        Krum(fraction_evaluate=0.0, num_malicious_nodes=1),
        MultiKrum(fraction_evaluate=0.0, num_malicious_nodes=1, num_nodes_to_select=3),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_flowers_other_robust_strategies_play_rounds(strategy: FedAvg) -> None:
    found = play(strategy)
    assert np.isfinite(found).all() and not np.array_equal(found, Workload(EXPERIMENT).initial_vector().numpy())
