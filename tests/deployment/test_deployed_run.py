"""A SuperLink and three SuperNodes as separate processes, with TLS and node keys: the run that was simulated."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedmeta.experiment import Experiment
from server.rundir import RunDir
from simulations import simulate
from simulations.benchmarks.deployed import Deployment
from simulations.deploy.status import look

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

Chosen = Callable[[Mapping[str, Any]], Experiment]


def results(path: Path) -> dict[str, Any]:
    found = RunDir.open(path, exclusive=False).results()
    assert found is not None, f"the run in {path} is not finished"
    return found


def test_a_deployed_run_equals_the_simulation_of_the_same_clients(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    chosen = experiment({"tracking.backends": ["prometheus"]})
    run = deployment.finish(deployment.submit(chosen, tmp_path / "out"))
    assert run.status == "finished:completed", run.details + deployment.superlink.said()[-3000:]
    simulated = simulate(experiment({}), engine="inline", out=tmp_path / "simulated", report=False)
    deployed = results(tmp_path / "out")
    assert deployed["model_hash"] == simulated.model_hash
    assert deployed["last"] == simulated.results["last"]
    assert 'fedmeta_round{experiment="deployed",run="out"} 2.0' in (tmp_path / "out" / "metrics.prom").read_text()


def test_a_private_run_keeps_each_clients_ledger_on_its_own_node(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    """Local noise is not of the seed, and what was spent stands on the node, not only with the server."""
    from fedmeta.privacy.ledger import Ledger

    privacy = {"unit": "client", "placement": "local", "noise_multiplier": 4.0, "delta": 1e-3}
    chosen = experiment({f"privacy.{key}": value for key, value in privacy.items()})
    run = deployment.finish(deployment.submit(chosen, tmp_path / "out"))
    assert run.status == "finished:completed", run.details
    simulated = simulate(chosen, engine="inline", out=tmp_path / "simulated", report=False)
    said = results(tmp_path / "out")
    assert (
        said["privacy"]["title"] == "Privacy" and said["privacy"]["epsilon"] == simulated.results["privacy"]["epsilon"]
    )
    assert said["model_hash"] != simulated.model_hash
    for client in range(2):
        [ledger] = (deployment.folder / f"node-{client}" / "ledgers").iterdir()
        assert [entry.client for entry in Ledger(ledger).entries] == [client, client]
    assert not list((deployment.folder / "node-2").glob("ledgers/*")), "a test client releases nothing"
    found = look([tmp_path / "out"], deployment.flower)
    assert found.directories[0].finished and found.directories[0].round == 2
    assert found.flower_runs is not None and run.run_id in {each.run_id for each in found.flower_runs}
    assert [node.status for node in found.flower_nodes or []].count("online") == 3
    assert json.loads(json.dumps(found.to_json()))["directories"][0]["train"]["epsilon-rdp"] > 0


def test_an_unregistered_key_is_refused_and_takes_no_part(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    from simulations.benchmarks.processes import wait_until

    stranger = deployment.add_node("stranger", "partition-id=0 num-partitions=3", register=False)
    try:
        wait_until(lambda: "No SuperNode" in stranger.said() or not stranger.alive, "the stranger is refused", 60)
        assert deployment.online() == 3
    finally:
        stranger.end()
        del deployment.nodes["stranger"]
    assert "SuperNode ID" not in stranger.said()


def test_a_run_directory_that_cannot_be_written_fails_the_run_by_name(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    run = deployment.finish(deployment.submit(experiment({}), tmp_path / "file" / "out"))
    assert run.status == "finished:failed" and not run.lost
    assert f"cannot write the run directory '{tmp_path / 'file' / 'out'}'" in run.details
