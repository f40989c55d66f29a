"""Three hosts in network namespaces of one machine: a SuperLink and two SuperNodes that meet over a switch alone."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedmeta.data.cache import cache_dir
from server.configuration import load
from server.rundir import RunDir
from simulations import simulate
from simulations.benchmarks.deployed import Deployment, finished_rounds
from simulations.benchmarks.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.netns, pytest.mark.timeout(1500)]

RAW: dict[str, Any] = {
    "name": "three-hosts",
    "data": {"name": "hershey"},
    "partition": {"name": "iid", "clients": 1, "validation_clients": 0, "test_clients": 1, "pooled": False},
    "model": {"name": "conv4", "filters": 8},
    "client": {"tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 3, "sampling": {"name": "fixed", "clients": 1}, "timeout": 300.0},
    "evaluation": {"episodes": 2},
    "deployment": {"nodes": 2, "return_timeout": 180.0},
}

HOSTS = ("superlink", "node-0", "node-1")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Network:
    """Namespaces on one switch, which is a namespace of its own: nothing is left where they are deleted."""

    prefix: str

    def namespace(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def address(self, host: str) -> str:
        return f"10.213.7.{1 + HOSTS.index(host)}"

    def run_in(self, host: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace(host)]

    def cut(self, host: str) -> None:
        """Take the host's cable out of the switch."""
        ip("-n", self.namespace("switch"), "link", "set", f"to-{host}", "down")

    def heal(self, host: str) -> None:
        ip("-n", self.namespace("switch"), "link", "set", f"to-{host}", "up")

    def make(self) -> None:
        switch = self.namespace("switch")
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host in HOSTS:
            name = self.namespace(host)
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "add", "eth", "type", "veth", "peer", "name", f"to-{host}", "netns", switch)
            ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth")
            ip("-n", name, "link", "set", "eth", "up")
            ip("-n", switch, "link", "set", f"to-{host}", "master", "bridge", "up")

    def delete(self) -> None:
        for host in (*HOSTS, "switch"):
            subprocess.run(["ip", "netns", "del", self.namespace(host)], check=False, capture_output=True)


@contextmanager
def network() -> Iterator[Network]:
    made = Network(f"fm{os.getpid()}")
    try:
        made.make()
    except (OSError, subprocess.CalledProcessError) as error:
        made.delete()
        said = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"network namespaces are not permitted here: {said.strip()}")
    try:
        yield made
    finally:
        made.delete()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, Deployment]]:
    with network() as net:
        folder = tmp_path_factory.mktemp("hosts")
        # The pictures drawn once, for both nodes.
        options = {"FEDMETA_CACHE": str(cache_dir())}
        with Deployment(folder, options, address=net.address("superlink"), host=net.run_in) as deployment:
            for i in range(2):
                deployment.add_node(f"node-{i}", f"partition-id={i} num-partitions=2")
            deployment.wait_for_nodes()
            yield net, deployment


def test_a_cut_link_that_heals_costs_time_and_no_update(hosts: tuple[Network, Deployment], tmp_path: Path) -> None:
    """Cut within a round until the SuperLink takes the node for gone: the round waits, and asks again."""
    net, deployment = hosts
    chosen, out = load(RAW), tmp_path / "out"
    run_id = deployment.submit(chosen, out)
    wait_until(lambda: finished_rounds(out) >= 1, "the first round", 120)
    net.cut("node-0")
    wait_until(lambda: deployment.online() == 1, "the SuperLink misses the node", 240, pause=10.0)
    assert finished_rounds(out) <= 2
    net.heal("node-0")
    run = deployment.finish(run_id)
    assert run.status == "finished:completed", run.details
    simulated = simulate(chosen, engine="inline", out=tmp_path / "simulated", report=False)
    found = RunDir.open(out, exclusive=False)
    assert (found.results() or {})["model_hash"] == simulated.model_hash
    assert all(not record["failed"] for record in found.metrics())
