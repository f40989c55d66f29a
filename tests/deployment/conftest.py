"""One deployment for all tests of this folder: real processes are slow to start."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from fedmeta.experiment import Experiment
from fedmeta.workload import Workload
from server.configuration import load
from simulations.benchmarks.deployed import Deployment
from simulations.deploy.export import export_clients, node_config

RAW: dict[str, Any] = {
    "name": "deployed",
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 4},
    "partition": {"name": "iid", "clients": 2, "validation_clients": 0, "test_clients": 1, "pooled": False},
    "task": {"queries": 2},
    "model": {"name": "conv4", "filters": 8},
    "learner": {"name": "protonet"},
    "client": {"tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 2}, "timeout": 400.0},
    "evaluation": {"episodes": 3},
    "deployment": {"nodes": 3, "return_timeout": 120.0},
}
"""Two training clients and one test client, all of them in every round."""

Chosen = Callable[[Mapping[str, Any]], Experiment]


@pytest.fixture(scope="session")
def experiment() -> Chosen:
    """The experiment of all tests here, with other values for dotted keys."""
    return lambda overrides: load(RAW, overrides)


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A SuperLink with TLS and node keys, and three SuperNodes, each with a folder of images of its own."""
    data = export_clients(Workload(load(RAW)), tmp_path_factory.mktemp("data"))
    with Deployment(tmp_path_factory.mktemp("deployment")) as found:
        for info, path in data.items():
            found.add_node(f"node-{info.id}", node_config(info, path))
        found.wait_for_nodes()
        yield found
