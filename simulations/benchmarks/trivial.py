"""The trivial client of the engine's benchmarks, and a bare loop of what it does."""

import time
from datetime import datetime

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

APP = "simulations.benchmarks.trivial:app"

app = ClientApp()


@app.train()
def add_one(message: Message, _: Context) -> Message:
    """Add one to what came, so that replies are distinct from what was sent and none can be shipped for another."""
    array = message.content.array_records["arrays"]["w"].numpy() + 1
    content = RecordDict({"arrays": ArrayRecord({"w": Array(array)}), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content, reply_to=message)


def play(grid: Grid, floats: int, clients: int, rounds: int) -> float:
    """Seconds of so many rounds of Flower's own FedAvg over all clients, full replies."""
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=clients)
    arrays = ArrayRecord({"w": Array(np.ones(floats, dtype=np.float32))})
    started = time.perf_counter()
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=rounds)
    return time.perf_counter() - started


def bare_loop(floats: int, clients: int, rounds: int) -> float:
    """Seconds of averaging what the clients make in this process, without messages."""
    model: npt.NDArray[np.float32] = np.ones(floats, dtype=np.float32)
    started = time.perf_counter()
    for _ in range(rounds):
        total = np.zeros(floats, dtype=np.float32)
        for _ in range(clients):
            total += model + 1
        model = total / np.float32(clients)
    return time.perf_counter() - started


def since_ray_began() -> float:
    """Seconds since this process's Ray began to start, which its session is named after."""
    import ray

    _, day, clock, fraction, _ = ray.get_runtime_context().get_session_name().split("_")
    began = datetime.strptime(f"{day}_{clock}_{fraction}", "%Y-%m-%d_%H-%M-%S_%f")
    return (datetime.now() - began).total_seconds()
