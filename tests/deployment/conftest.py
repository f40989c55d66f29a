"""One deployment for all tests of this folder: real processes are slow to start."""

from collections.abc import Iterator

import pytest

from simulations.benchmarks.deployed import Deployment

NODES = 3


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A SuperLink with TLS and node keys, and three SuperNodes that each take a share of the experiment's data."""
    with Deployment(tmp_path_factory.mktemp("deployment")) as found:
        for i in range(NODES):
            found.add_node(f"node-{i}", f"partition-id={i} num-partitions={NODES}")
        found.wait_for_nodes(NODES)
        yield found
