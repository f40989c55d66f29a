"""MetaStrategy as a Flower strategy of its own: `start` on a grid, and judging that does not depend on client ids."""

from pathlib import Path

import pytest
import torch

from fedmeta.code_hash import code_hash, code_path
from fedmeta.wire import read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from simulations import InlineGrid, simulate
from strategies.directory import learn_directory
from strategies.meta import MetaStrategy

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 2, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 2, "schedule": "cosine", "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"every": 1, "episodes": 2, "validation_episodes": 2, "pooled_episodes": 2},
}


def test_start_plays_the_same_rounds_as_our_own_loop(tmp_path: Path) -> None:
    experiment = load(RAW)
    workload = Workload(experiment)
    with InlineGrid("clients.app:app", len(workload.federation.clients)) as grid:
        directory, _ = learn_directory(grid, experiment.to_json(), code_hash(), code_path(), 60)
        strategy = MetaStrategy(experiment, workload.spec, directory)
        arrays = vector_record(workload.initial_vector())
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=2)
        found = read_vector(result.arrays, workload.spec.size())
        assert "mse" in result.evaluate_metrics_clientapp[2]
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=4)  # more than the schedule knows: its end is kept
    ours = simulate(RAW, engine="inline", out=tmp_path / "run", report=False)
    assert torch.equal(found, ours.vector)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path))


@pytest.mark.parametrize("partition", ["centralised", "alphabet"])
def test_test_episodes_do_not_depend_on_client_ids(partition: str, own_cache: None) -> None:
    """A federated run and its centralised twin are judged on the same episodes, though ids differ."""
    data = {"name": "hershey", "writers": 2, "examples_per_writer": 2}
    task = {"ways": 5, "shots": 1, "queries": 2}
    reference = Workload(load({"data": data, "task": task, "partition": {"name": "alphabet", "validation_clients": 0}}))
    other = Workload(load({"data": data, "task": task, "partition": {"name": partition}}))
    for role in ("test", "pooled"):
        ours = [client for client in other.federation.clients if client.role == role]
        theirs = [client for client in reference.federation.clients if client.role == role]
        assert [client.name for client in ours] == [client.name for client in theirs]
        for a, b in zip(ours, theirs, strict=True):
            one, two = other.frozen_episodes(a.id, 2)[1], reference.frozen_episodes(b.id, 2)[1]
            assert torch.equal(one.query.x, two.query.x) and torch.equal(one.classes, two.classes)


def test_sums_that_cannot_be_taken_are_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"engine.reduce = 'auto' has no effect.*'median'"):
        simulate(
            {**RAW, "server": {**RAW["server"], "aggregator": {"name": "median"}}, "engine": {"reduce": "auto"}},
            engine="inline",
            out=tmp_path / "run",
            report=False,
        )
    with pytest.warns(UserWarning, match="engine.client_timeout has no effect inline"):
        simulate({**RAW, "engine": {"client_timeout": 5.0}}, engine="inline", out=tmp_path / "inline", report=False)
