"""Whole rounds of our own client and strategy: what they cost beside the learner's work, and how much of them it is."""

import gc
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from torch import Tensor

from clients.app import identity as answer_identity
from clients.cohort import CohortApp
from fedmeta.code_hash import code_hash, code_path
from fedmeta.experiment import Experiment
from fedmeta.seeding import numpy_generator
from fedmeta.wire import ARRAYS, CONFIG, METRICS, WEIGHT, config_record, metric_record, only, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from simulations.engine.allocator import keep_freed_memory
from simulations.engine.local_grid import LocalGrid
from simulations.engine.ray_grid import RayGrid
from strategies.directory import learn_directory
from strategies.meta import MetaStrategy

APP = "simulations.benchmarks.meta_round:app"
TURNS = 5
COLD = 10
"""Rounds before the clock: memory, Ray's and ours, is touched for the first time in them."""

app = CohortApp()


@app.query("identity")
def identity(message: Message, context: Context) -> Message:
    """As our own client."""
    return answer_identity(message, context)


@app.cohort_train()
def train(messages: list[Message], contexts: list[Context]) -> Iterator[Message]:
    """Our client's records around no work: the update takes the model a hundredth of its way to zero.

    The model that the messages share is read once, as our client does.
    """
    models: dict[int, Tensor] = {}
    for message in messages:
        config = only(message.content, "config")
        array = only(message.content, "array")
        if id(array) not in models:
            models[id(array)] = read_vector(array, int(array["flat"].shape[0]))
        content = RecordDict(
            {
                ARRAYS: vector_record(-0.01 * models[id(array)]),
                METRICS: metric_record({"loss": 0.0, WEIGHT: 1}),
                CONFIG: config_record({"spec-hash": config["spec-hash"], "update-form": "delta"}),
            }
        )
        yield Message(content, reply_to=message)


def overhead_of_meta_strategy(floats: Sequence[int], clients: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds a client-round of MetaStrategy with whole updates and with sums, for about so many floats each."""
    return [_overhead(math.isqrt(size) - 2, clients, rounds) for size in floats]


def _overhead(hidden: int, clients: int, rounds: int) -> dict[str, Any]:
    """For a perceptron with two hidden layers of so many units."""
    experiment = load(
        {
            "data": {"name": "sinusoid"},
            "partition": {"name": "iid", "clients": clients, "test_clients": 1},
            "task": {"ways": 1},
            "model": {"name": "mlp", "hidden": [hidden, hidden]},
            "learner": {"name": "fomaml"},
            "server": {"sampling": {"name": "fixed", "clients": clients}},
        }
    )
    summed = load(experiment, {"engine.reduce": "auto"})
    with RayGrid(APP, len(Workload(experiment).federation.clients), check=False, start_timeout=120) as grid:
        times = {name: _play(grid, each, COLD + rounds) for name, each in (("whole", experiment), ("sums", summed))}
    medians = {f"{name}_ms": 1000 * statistics.median(each[COLD:]) / clients for name, each in times.items()}
    return {"floats": Workload(experiment).spec.size(), **medians}


def useful_share() -> dict[str, float]:
    """Throughput of whole rounds of MAML on conv4 under Ray, over that of as many bare loops side by side as actors."""
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
    clients = len(Workload(experiment).federation.clients)
    found = {}
    for actors in (1, 2):
        grid = RayGrid("clients.app:app", clients, actors=actors, check=False, start_timeout=120)
        with grid, _bare_loops(experiment, actors) as loops:
            _play(grid, experiment, 2)
            bare, ray = [], []
            for _ in range(TURNS):  # in turns, since other load on the machine comes and goes
                bare += _side_by_side(loops)
                ray += _play(grid, experiment, 4)[1:]
        found[f"{actors} actor{'s' if actors > 1 else ''}"] = statistics.median(bare) / statistics.median(ray) / actors
    return found


@contextmanager
def _bare_loops(experiment: Experiment, count: int) -> Iterator[list[Connection]]:
    """Processes that play the meta-steps of one round when told to, and answer with the seconds it took."""
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(count)]
    processes = [spawn.Process(target=_bare_loop, args=(experiment, far), daemon=True) for _, far in pipes]
    for process in processes:
        process.start()
    try:
        yield [near for near, _ in pipes]
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _bare_loop(experiment: Experiment, told: Connection) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as actors do, and below: what is compared is the round, not the process
    _bare_round(experiment)
    gc.collect()
    gc.freeze()
    while True:
        told.recv()
        told.send(_bare_round(experiment))


def _side_by_side(loops: Sequence[Connection]) -> list[float]:
    """Seconds of three rounds of each loop; they begin together."""
    times = []
    for _ in range(3):
        for loop in loops:
            loop.send(None)
        times += [loop.recv() for loop in loops]
    return times


def _play(grid: LocalGrid, experiment: Experiment, rounds: int) -> list[float]:
    """Seconds of each round: sampling, training, aggregation."""
    workload = Workload(experiment)
    directory, _ = learn_directory(grid, experiment.to_json(), code_hash(), code_path(), 600)
    strategy = MetaStrategy(experiment, workload.spec, directory)
    arrays, times = vector_record(workload.initial_vector()), []
    for round in range(1, rounds + 1):
        started = time.perf_counter()
        replies = grid.send_and_receive(strategy.configure_train(round, arrays, ConfigRecord(), grid))
        arrays = strategy.aggregate_train(round, replies)[0] or arrays
        times.append(time.perf_counter() - started)
    return times


def _bare_round(experiment: Experiment) -> float:
    """Seconds of the meta-steps of one round in a loop in this process."""
    workload = Workload(experiment)
    params, _ = workload.initial, workload.federation  # made before the clock runs
    started = time.perf_counter()
    for client in range(experiment.server.sampling.parameters["clients"]):
        rng = numpy_generator(0, 1, client, "bench")
        source = workload.source(client)
        for _ in range(experiment.client.tasks_per_step):
            workload.learner.meta_gradient(params, source.sample(workload.training_shape, rng))
    return time.perf_counter() - started
