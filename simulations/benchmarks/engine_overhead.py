"""What a client-round costs beside the client's own work: our engines and a bare loop, in one run.

    python -m simulations.benchmarks.engine_overhead [--output overhead.json]

A trivial client adds one to what it got, with Flower's own FedAvg and full, distinct replies; 100 clients. And the
useful share of a whole federated round: MAML on conv4 under Ray with one actor, against a bare loop of the same
meta-steps.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from rich.console import Console
from rich.table import Table

from fedmeta.experiment import Experiment
from fedmeta.seeding import numpy_generator
from fedmeta.workload import Workload
from server.configuration import load
from simulations import InlineGrid, RayGrid
from simulations.engine.local_grid import LocalGrid

CLIENTS, ROUNDS = 100, 5
FLOATS = (10_000, 100_000, 1_000_000)

app = ClientApp()


@app.train()
def echo(message: Message, _: Any) -> Message:
    """The trivial client; it adds one, so that replies are distinct and none can be sent for another."""
    array = message.content.array_records["arrays"]["w"].numpy() + 1
    content = RecordDict({"arrays": ArrayRecord({"w": Array(array)}), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


def bare_loop(floats: int) -> float:
    """Milliseconds a client-round of averaging arrays in this process, without messages."""
    model = np.ones(floats, dtype=np.float32)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        total = np.zeros(floats, dtype=np.float32)
        for _ in range(CLIENTS):
            total += model.copy()
        model = (total / CLIENTS).astype(np.float32)
    return 1000 * (time.perf_counter() - started) / (ROUNDS * CLIENTS)


def through(make: Callable[[], LocalGrid], floats: int) -> float:
    """Milliseconds a client-round through a grid with FedAvg, the first round apart."""
    with make() as grid:
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS)
        arrays = ArrayRecord({"w": Array(np.ones(floats, dtype=np.float32))})
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=1)
        started = time.perf_counter()
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=ROUNDS)
        return 1000 * (time.perf_counter() - started) / (ROUNDS * CLIENTS)


def useful_share() -> dict[str, float]:
    """Seconds a round of MAML/conv4 under Ray with one actor, and of a bare loop over the same meta-steps."""
    from simulations.engine.ray_grid import RayGrid
    from strategies.directory import learn_directory
    from strategies.meta import MetaStrategy

    experiment = load(
        {
            "data": {"name": "hershey"},
            "partition": {"name": "alphabet"},
            "model": {"name": "conv4", "filters": 32},
            "learner": {"name": "maml", "inner_lr": 0.4},
            "client": {"steps": 1, "tasks_per_step": 8},
            "server": {"sampling": {"name": "fixed", "clients": 4}},
        }
    )
    bare = _bare_round(experiment)
    workload = Workload(experiment)
    with RayGrid("clients.app:app", len(workload.federation.clients), actors=1, check=False) as grid:
        from fedmeta.code_hash import code_hash, code_path
        from fedmeta.wire import vector_record

        directory, _ = learn_directory(grid, experiment.to_json(), code_hash(), code_path(), 600)
        strategy = MetaStrategy(experiment, workload.spec, directory)
        arrays, times = vector_record(workload.initial_vector()), []
        for round in range(1, 8):
            started = time.perf_counter()
            replies = grid.send_and_receive(strategy.configure_train(round, arrays, _no_config(), grid))
            arrays = strategy.aggregate_train(round, replies)[0] or arrays
            times.append(time.perf_counter() - started)
    return {"ray_seconds": statistics.median(times[2:]), "bare_seconds": bare}


def _no_config() -> Any:
    from flwr.app import ConfigRecord

    return ConfigRecord()


def _bare_round(experiment: Experiment) -> float:
    torch.set_num_threads(1)
    workload = Workload(experiment)
    params, times = workload.initial, []
    for round in range(7):
        started = time.perf_counter()
        for client in range(experiment.server.sampling.parameters["clients"]):
            rng = numpy_generator(0, round, client, "bench")
            source = workload.source(client)
            for _ in range(experiment.client.tasks_per_step):
                workload.learner.meta_gradient(params, source.sample(workload.training_shape, rng))
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=None, help="where to write the figures as JSON")
    output = parser.parse_args().output
    rows = []
    for floats in FLOATS:
        bare = bare_loop(floats)
        inline = through(lambda: InlineGrid("simulations.benchmarks.engine_overhead:app", CLIENTS), floats)
        ray = through(lambda: RayGrid("simulations.benchmarks.engine_overhead:app", CLIENTS, start_timeout=120), floats)
        rows.append({"floats": floats, "bare_ms": bare, "inline_ms": inline, "ray_ms": ray})
    useful = useful_share()
    table = Table(
        title=f"ms a client-round, trivial client, {CLIENTS} clients, FedAvg, full replies", title_justify="left"
    )
    for column in ("floats", "bare loop", "inline", "ray", "ray / bare"):
        table.add_column(column, justify="right")
    for row in rows:
        figures = [f"{row[key]:.3f}" for key in ("bare_ms", "inline_ms", "ray_ms")]
        table.add_row(f"{row['floats']:,}", *figures, f"{row['ray_ms'] / row['bare_ms']:.1f}")
    console = Console()
    console.print(table)
    share = useful["bare_seconds"] / useful["ray_seconds"]
    console.print(f"useful share of a MAML/conv4 round on one actor: {share:.2f}")
    if output is not None:
        output.write_text(json.dumps({"overhead": rows, "useful": useful}, indent=2))


if __name__ == "__main__":
    main()
