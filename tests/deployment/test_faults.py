"""Nodes that die, hang or run other code, and a SuperLink that dies: the run goes on, and to the same numbers."""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedmeta.experiment import Experiment
from server.rundir import RunDir
from simulations import simulate
from simulations.benchmarks.deployed import Deployment, finished_rounds
from simulations.benchmarks.processes import wait_until
from simulations.deploy.flower import FlowerRun
from simulations.deploy.supervisor import Patience, supervise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

Chosen = Callable[[Mapping[str, Any]], Experiment]


def test_a_node_killed_within_a_round_and_restarted_costs_no_update(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    """Its message is sent again when it is back, so that the run ends with the numbers of an undisturbed one."""
    chosen, out = experiment({"server.rounds": 3}), tmp_path / "out"
    run_id = deployment.submit(chosen, out)
    wait_until(lambda: finished_rounds(out) >= 1, "the first round", 400)
    identities = {found.node_id for found in deployment.flower.nodes()}
    node = deployment.nodes["node-1"]
    seen = node.said().count("Receiving: train message")
    wait_until(lambda: node.said().count("Receiving: train message") > seen, "the next message", 200, pause=0.05)
    node.kill()
    deployment.restart_node("node-1")
    assert {found.node_id for found in deployment.flower.nodes()} == identities, "by its key it is who it was"
    run = deployment.finish(run_id)
    assert run.status == "finished:completed", run.details
    simulated = simulate(chosen, engine="inline", out=tmp_path / "simulated", report=False)
    found = RunDir.open(out, exclusive=False)
    assert (found.results() or {})["model_hash"] == simulated.model_hash
    assert all(not record["failed"] for record in found.metrics())


def test_a_node_that_never_answers_is_not_waited_for(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    """Stopped, it keeps its connection and says nothing; enough have answered, so the round closes without it."""
    chosen = experiment({"deployment.patience": 3.0, "server.timeout": 200.0, "server.rounds": 2})
    out = tmp_path / "out"
    run_id = deployment.submit(chosen, out)
    wait_until(lambda: finished_rounds(out) >= 1, "the first round", 400)
    deployment.nodes["node-1"].send(signal.SIGSTOP)
    try:
        wait_until(lambda: finished_rounds(out) >= 2, "the second round", 200)
    finally:
        deployment.nodes["node-1"].send(signal.SIGCONT)
    run = deployment.finish(run_id)
    assert run.status == "finished:completed", run.details
    records = RunDir.open(out, exclusive=False).metrics()
    assert records[1]["failed"] == {"1": "no reply within the time limit"} and not records[1]["failed_round"]
    assert records[1]["seconds"] < 90


def test_a_superlink_killed_within_a_run_costs_no_round(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    """Flower fails the run about a minute after; it is submitted again, and ends with the numbers of a whole one."""
    chosen, out, said = experiment({"server.rounds": 4}), tmp_path / "out", list[str]()
    found: list[FlowerRun] = []

    def see_through() -> None:
        patience = Patience(resubmissions=2, silence=400, pause=10)
        found.append(supervise(deployment.flower, lambda: deployment.submit(chosen, out), patience, said.append))

    watching = threading.Thread(target=see_through)
    watching.start()
    wait_until(lambda: finished_rounds(out) >= 2, "the second round", 400)
    deployment.superlink.kill()
    before = finished_rounds(out)
    time.sleep(2)
    deployment.start_superlink()
    watching.join(1000)
    assert found and found[0].status == "finished:completed", "\n".join(said)
    assert any("was lost with its server process" in line for line in said) and before >= 2
    simulated = simulate(chosen, engine="inline", out=tmp_path / "simulated", report=False)
    run = RunDir.open(out, exclusive=False)
    assert (run.results() or {})["model_hash"] == simulated.model_hash
    assert [record["round"] for record in run.metrics()] == [1, 2, 3, 4] and len(run.environment()) == 2


def test_a_node_with_other_code_is_refused_by_name_and_the_run_goes_on(
    deployment: Deployment, experiment: Chosen, tmp_path: Path
) -> None:
    """A bundle that was changed on the node: its answers would be of another program."""
    chosen = experiment({"server.rounds": 1, "server.sampling": {"name": "fixed", "clients": 1}})
    installed = max((deployment.folder / "node-1" / "apps").iterdir(), key=lambda path: path.stat().st_mtime)
    source = installed / "clients" / "personal.py"
    kept = source.read_text()
    source.write_text(kept + "\n# changed\n")
    try:
        run = deployment.finish(deployment.submit(chosen, tmp_path / "out"))
    finally:
        source.write_text(kept)
    log = deployment.flwr("log", run.run_id, "--show").stdout
    assert "runs other code" in log and str(installed) in log
    assert run.status == "finished:completed", run.details
    assert [record["sampled"] for record in RunDir.open(tmp_path / "out", exclusive=False).metrics()] == [[0]]


@pytest.mark.parametrize(
    ("shape", "classes", "said"),
    [((10, 10), 6, "10"), ((28, 28), 2, "classes")],
    ids=["another shape", "too few classes"],
)
def test_a_node_whose_data_do_not_fit_is_refused_by_name_and_the_run_goes_on(
    deployment: Deployment,
    experiment: Chosen,
    tmp_path: Path,
    shape: tuple[int, int],
    classes: int,
    said: str,
) -> None:
    for c in range(classes):
        (tmp_path / "data" / f"class-{c}").mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full(shape, 10 * c + i, np.uint8)).save(tmp_path / "data" / f"class-{c}" / f"{i}.png")
    name = f"misfit-{classes}"
    misfit = deployment.add_node(name, f'data-path="{tmp_path / "data"}" name="{name}"')
    try:
        deployment.wait_for_nodes()
        chosen = experiment({"server.rounds": 1, "deployment.nodes": 4})
        run = deployment.finish(deployment.submit(chosen, tmp_path / "out"))
    finally:
        misfit.end()
        del deployment.nodes[name]
    assert run.status == "finished:completed", run.details
    [line] = [line for line in deployment.flwr("log", run.run_id, "--show").stdout.splitlines() if "refused" in line]
    assert name in line and said in line
    assert [record["sampled"] for record in RunDir.open(tmp_path / "out", exclusive=False).metrics()] == [[0, 1]]
