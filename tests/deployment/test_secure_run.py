"""Secure aggregation in a deployment: three SuperNodes, four exchanges a round, and the sum that was simulated."""

from pathlib import Path
from typing import Any

import pytest

from fedmeta.workload import Workload
from server.configuration import load
from server.rundir import RunDir
from simulations import simulate
from simulations.benchmarks.deployed import Deployment
from simulations.deploy.export import export_clients, node_config

pytest.importorskip("server.secure_aggregation", reason="secure aggregation is not here yet")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

RAW: dict[str, Any] = {
    "name": "secure",
    "data": {"name": "hershey", "writers": 2, "examples_per_writer": 6},
    "partition": {"name": "iid", "clients": 3, "validation_clients": 0, "test_clients": 1, "pooled": False},
    "task": {"queries": 2},
    "model": {"name": "conv4", "filters": 8},
    "client": {"tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 3}, "timeout": 900.0},
    "evaluation": {"episodes": 1},
    "deployment": {"nodes": 3},
    "secagg": {
        "enabled": True,
        "allow_unsafe_groups": True,
        "corrupt": 0.0,
        "dropouts": 0.0,
        "adversary": "semi-honest",
    },
}


def test_a_secure_deployed_run_equals_its_simulation(tmp_path: Path) -> None:
    """Masks come from each node's own system and cancel; the three training clients are all there is."""
    chosen = load(RAW)
    data = export_clients(Workload(chosen), tmp_path / "data", [0, 1, 2])
    with Deployment(tmp_path / "deployment") as deployment:
        for info, path in data.items():
            deployment.add_node(f"node-{info.id}", node_config(info, path) + " secagg='required'")
        deployment.wait_for_nodes()
        run = deployment.finish(deployment.submit(chosen, tmp_path / "out"), timeout=1200)
    assert run.status == "finished:completed", run.details
    found = RunDir.open(tmp_path / "out", exclusive=False)
    simulated = simulate(chosen, engine="inline", out=tmp_path / "simulated", report=False)
    assert (found.results() or {})["model_hash"] == simulated.model_hash
    assert all(len(record["groups"]) == 1 for record in found.metrics())
