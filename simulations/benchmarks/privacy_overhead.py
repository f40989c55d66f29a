"""What privacy adds to the time of a round: clip and noise of updates, and of task gradients under vmap, in one run.

    python -m simulations.benchmarks.privacy_overhead [--repeats 9]

The same clients train with and without privacy, in turns, by the handler that every engine calls; medians are shown.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from rich.console import Console
from rich.table import Table

from clients.training import train
from fedmeta.experiment import Experiment
from fedmeta.privacy.central import CentralGaussian
from fedmeta.privacy.noise import seeded_noise
from fedmeta.wire import ARRAYS, CONFIG, config_record, read_vector, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from simulations import InlineGrid

COHORT = 8
CONV4: dict[str, Any] = {
    "data": {"name": "hershey"},
    "partition": {"name": "alphabet_writer"},
    "model": {"name": "conv4", "filters": 64, "normalisation": "group"},
    "client": {"steps": 1, "tasks_per_step": 4},
}
MLP: dict[str, Any] = {
    **CONV4,
    "model": {"name": "mlp", "hidden": [64, 64], "normalisation": "none"},
    "learner": {"name": "maml", "inner_lr": 0.1, "inner_steps": 5},
    "client": {"steps": 1, "tasks_per_step": 16, "execution": "vmap"},
}
CLIENT = {"unit": "client", "placement": "local", "noise_multiplier": 1.0, "delta": 1e-3}
TASK = {**CLIENT, "unit": "task"}


def play(experiment: Experiment) -> list[Message]:
    """One turn of the cohort, as a simulation's clients."""
    InlineGrid("clients.app:app", COHORT)  # sets what Flower's messages need in this process
    workload = Workload(experiment)
    settings = {"experiment": experiment.to_json(), "round": 1, "update-form": "delta"}
    content = RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record(settings)})
    messages = [Message(content, dst_node_id=client + 1, message_type="train") for client in range(COHORT)]
    contexts = [
        Context(1, client + 1, {"partition-id": client, "simulated": True}, RecordDict(), {})
        for client in range(COHORT)
    ]
    return list(train(messages, contexts))


def timed(call: Any) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def overhead(base: dict[str, Any], privacy: dict[str, Any], repeats: int) -> tuple[float, float]:
    """Seconds of a cohort's turn without privacy, and the median of what privacy adds to the turn beside it."""
    plain, private = load(base), load({**base, "privacy": privacy})
    play(plain), play(private)  # data, kernels and plans are made once
    pairs = [(timed(lambda: play(plain)), timed(lambda: play(private))) for _ in range(repeats)]
    return statistics.median(a for a, _ in pairs), statistics.median(b - a for a, b in pairs)


def central(base: dict[str, Any], repeats: int) -> tuple[float, float]:
    """Seconds of a cohort's turn, and what the server's clipping, sum and noise take after it."""
    experiment = load(base)
    replies = play(experiment)
    size = Workload(experiment).spec.size()
    rows = torch.stack([read_vector(reply.content.array_records[ARRAYS], size) for reply in replies])
    mechanism = CentralGaussian(1.0, 1.0, float(COHORT), lambda round: seeded_noise(0, round, 0, "bench"))
    turns = statistics.median(timed(lambda: play(experiment)) for _ in range(repeats))
    return turns, statistics.median(timed(lambda: mechanism.release(rows, 1)) for _ in range(repeats))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    table = Table("what", "a turn without, s", "privacy adds, s", "share")
    for name, (base, added) in {
        "client unit, local noise: protonet, conv4-64": overhead(CONV4, CLIENT, repeats),
        "client unit, central noise: protonet, conv4-64": central(CONV4, repeats),
        "task unit under vmap: maml, mlp": overhead(MLP, TASK, repeats),
    }.items():
        table.add_row(name, f"{base:.3f}", f"{added:.4f}", f"{100 * added / base:.1f} %")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
