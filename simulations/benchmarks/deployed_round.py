"""Seconds and bytes of a deployed round: ours, beside Flower's FedAvg on the same model and nodes, and the simulation.

`python -m simulations.benchmarks.deployed_round` prints JSON. SuperLink and SuperNodes are processes of this machine
with TLS and node keys, so network time is not in the figures; what is, is what every deployment pays.
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from fedmeta.code_hash import code_path
from fedmeta.data.cache import cache_dir
from fedmeta.experiment import Experiment
from server.configuration import load
from server.rundir import RunDir
from simulations import simulate
from simulations.benchmarks.deployed import Deployment

TRAINING_CLIENTS = 2

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "fedavg"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "fedmeta"
[tool.flwr.app.components]
serverapp = "fedavg_server:app"
clientapp = "fedavg_client:app"
[tool.flwr.app.config]
experiment = ""
rounds = 1
clients = 2
out = ""
"""

CLIENT = '''
"""Flower's tutorial client, on our model and data: a state dict comes, is trained, and goes back."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from fedmeta.models import make_model
from fedmeta.seeding import numpy_generator
from fedmeta.workload import workload_from_json

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    workload = workload_from_json(context.run_config["experiment"])
    experiment, shape = workload.experiment, workload.training_shape
    model = make_model("conv4", input_shape=workload.spec_of_data.input_shape, ways=shape.ways,
                       **experiment.model.parameters)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    source, rng = workload.source(int(context.node_config["partition-id"]) % 2), numpy_generator(0, 0, 0, "fedavg")
    for _ in range(experiment.client.tasks_per_step):
        episode = source.sample(shape, rng)
        for batch in (episode.support, episode.query):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(batch.x), batch.y).backward()
            optimiser.step()
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)
'''

SERVER = """
import json, time
from pathlib import Path
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from fedmeta.models import make_model
from fedmeta.workload import workload_from_json

app = ServerApp()


class Timed(FedAvg):
    times = []

    def configure_train(self, *args):
        self.started = time.monotonic()
        return super().configure_train(*args)

    def aggregate_train(self, *args):
        found = super().aggregate_train(*args)
        self.times.append(time.monotonic() - self.started)
        return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    workload = workload_from_json(context.run_config["experiment"])
    model = make_model("conv4", input_shape=workload.spec_of_data.input_shape, ways=workload.training_shape.ways,
                       **workload.experiment.model.parameters)
    clients = context.run_config["clients"]
    nodes = len(list(grid.get_node_ids()))
    strategy = Timed(fraction_train=clients / nodes, min_train_nodes=clients, min_available_nodes=clients,
                     fraction_evaluate=0.0)
    strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()),
                   num_rounds=context.run_config["rounds"])
    Path(context.run_config["out"]).write_text(json.dumps(strategy.times))
"""


def experiment(rounds: int, filters: int) -> Experiment:
    """ProtoNet on conv4, two training clients and one test client, every client in every round."""
    return load(
        {
            "name": "deployed-round",
            "data": {"name": "hershey"},
            "partition": {
                "name": "iid",
                "clients": TRAINING_CLIENTS,
                "validation_clients": 0,
                "test_clients": 1,
                "pooled": False,
            },
            "model": {"name": "conv4", "filters": filters},
            "client": {"tasks_per_step": 4, "execution": "loop"},
            "server": {"rounds": rounds, "sampling": {"name": "fixed", "clients": TRAINING_CLIENTS}},
            "evaluation": {"episodes": 1},
            "deployment": {"nodes": TRAINING_CLIENTS + 1},
        }
    )


def measure(rounds: int, filters: int, poll: float | None) -> dict[str, Any]:
    """Medians over rounds of one deployment, ours and Flower's FedAvg one after the other.

    Args:
        rounds: >= 2, of which the first warms up.
        filters: of conv4.
        poll: of Flower's SuperExec, in `FLWR_SUPEREXEC_TASK_POLL_INTERVAL`; None leaves Flower's second [seconds].

    Returns:
        `ours` and `fedavg`: `seconds` of a round, the median of `all` but the first, and `bytes`; and `ratio` of our
        seconds to Flower's.
    """
    # The FedAvg app is a bundle of its own and takes model and data from this checkout.
    options = {"PYTHONPATH": code_path(), "FEDMETA_CACHE": str(cache_dir())}
    if poll is not None:
        options["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = str(poll)
    with tempfile.TemporaryDirectory(prefix="fedmeta-") as name, Deployment(Path(name), options) as deployment:
        for i in range(TRAINING_CLIENTS + 1):
            deployment.add_node(f"node-{i}", f"partition-id={i} num-partitions={TRAINING_CLIENTS + 1}")
        deployment.wait_for_nodes()
        found = {
            "ours": _against_one_round(lambda count: _ours(deployment, count, filters), rounds),
            "fedavg": _against_one_round(lambda count: _fedavg(deployment, count, filters), rounds),
        }
    return {**found, "ratio": found["ours"]["seconds"] / found["fedavg"]["seconds"]}


def simulated(rounds: int, filters: int) -> float:
    """Seconds of a round of the same experiment in this process, median."""
    with tempfile.TemporaryDirectory(prefix="fedmeta-") as name:
        result = simulate(experiment(rounds, filters), engine="inline", out=Path(name) / "run")
    return statistics.median([record["seconds"] for record in result.history[1:]])


def _against_one_round(play: Any, rounds: int) -> dict[str, Any]:
    """Bytes are the difference between a run of one round and a long one, which ends and begins alike."""
    (_, small), (seconds, large) = play(1), play(rounds)
    return {
        "seconds": statistics.median(seconds[1:]),
        "all": [round(each, 2) for each in seconds],
        "bytes": (large - small) / (rounds - 1),
    }


def _ours(deployment: Deployment, rounds: int, filters: int) -> tuple[list[float], int]:
    out = deployment.folder / f"ours-{rounds}"
    run = deployment.finish(deployment.submit(experiment(rounds, filters), out), timeout=300 + 60 * rounds)
    if run.status != "finished:completed":
        raise RuntimeError(f"our run ended as {run.status}: {run.details}")
    return [record["seconds"] for record in RunDir.open(out, exclusive=False).metrics()], run.bytes


def _fedavg(deployment: Deployment, rounds: int, filters: int) -> tuple[list[float], int]:
    app, out = deployment.folder / "fedavg", deployment.folder / f"fedavg-{rounds}.json"
    app.mkdir(exist_ok=True)
    for file, text in (("pyproject.toml", PROJECT), ("fedavg_client.py", CLIENT), ("fedavg_server.py", SERVER)):
        (app / file).write_text(text)
    config = deployment.folder / f"fedavg-{rounds}.toml"
    config.write_text(
        f"experiment = '''{experiment(rounds, filters).to_json()}'''\nrounds = {rounds}\n"
        f"clients = {TRAINING_CLIENTS}\nout = {json.dumps(str(out))}\n"
    )
    run = deployment.finish(deployment.flower.submit(app, config), timeout=300 + 60 * rounds)
    if run.status != "finished:completed":
        raise RuntimeError(f"the FedAvg run ended as {run.status}: {run.details}")
    return json.loads(out.read_text()), run.bytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--poll", type=float, default=None, help="FLWR_SUPEREXEC_TASK_POLL_INTERVAL [seconds]")
    given = parser.parse_args()
    found = measure(given.rounds, given.filters, given.poll)
    found |= {"simulated_seconds": simulated(given.rounds, given.filters), "cores": os.cpu_count(), "poll": given.poll}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
