"""Loop against vmap: seconds of a cohort's local training by learner, network and device, in one run.

    python -m simulations.benchmarks.executions [--device cuda] [--clients 8] [--precision tf32] [--output out.json]

Every cell trains the same cohort of clients, four tasks each, both ways; torch and numpy are all it needs, so that it
runs on a machine with a GPU and nothing else.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from fedmeta.cohort import LocalPlan
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.optimisers import SGD
from fedmeta.params import ParamSpec
from fedmeta.precision import Precision
from fedmeta.tasks import Batch, Episode
from fedmeta.training import train_cohort

LEARNERS = ("maml", "fomaml", "protonet", "reptile")
NETS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (40, 40)},
    "conv4": {"filters": 32},
}
TASKS, REPEATS = 4, 3


def episode(seed: int, ways: int = 5, queries: int = 5) -> Episode:
    """A 5-way 1-shot episode of noise."""
    generator = torch.Generator().manual_seed(seed)

    def batch(each: int) -> Batch:
        return Batch(torch.rand(ways * each, 1, 28, 28, generator=generator), torch.arange(ways).repeat(each))

    return Episode(batch(1), batch(queries), torch.arange(ways))


def measure(learner_name: str, net: str, clients: int, device: torch.device, precision: Precision) -> dict[str, Any]:
    """Milliseconds a client of both executions, and their ratio; medians of measurements that take turns."""
    model = make_model(net, input_shape=(1, 28, 28), ways=5, **NETS[net])
    learner = make_learner(learner_name, model)
    params = {name: value.to(device) for name, value in learner.init(torch.Generator().manual_seed(0)).items()}
    spec = ParamSpec.of(params)
    start = spec.flatten(params)
    tasks = [episode(seed) for seed in range(clients * TASKS)]

    def seconds(execution: Literal["loop", "vmap"]) -> float:
        plan = LocalPlan(1, TASKS, SGD(lr=0.1), execution=execution, precision=precision)
        started = time.perf_counter()
        found = train_cohort(
            learner, spec, start, clients, lambda client, _, count: tasks[client * count : (client + 1) * count], plan
        )
        float(found.updates.sum())  # waits for a GPU
        return time.perf_counter() - started

    times: dict[str, list[float]] = {"loop": [], "vmap": []}
    for repeat in range(REPEATS + 1):
        for execution in ("loop", "vmap"):
            took = seconds(execution)
            if repeat:
                times[execution].append(took)
    loop, vmap = (1000 * statistics.median(times[name]) / clients for name in ("loop", "vmap"))
    return {"learner": learner_name, "net": net, "clients": clients, "loop_ms": loop, "vmap_ms": vmap}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clients", type=int, nargs="+", default=[8])
    parser.add_argument("--precision", default="float32", choices=get_args(Precision))
    parser.add_argument("--output", type=Path, default=None, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    print(f"ms a client of {TASKS} tasks on {device} in {arguments.precision}:")
    print("learner, net, clients, loop, vmap, loop / vmap")
    rows = []
    for net in NETS:
        for learner in LEARNERS:
            for clients in arguments.clients:
                row = measure(learner, net, clients, device, arguments.precision)
                rows.append(row)
                ratio = row["loop_ms"] / row["vmap_ms"]
                print(f"{learner:9} {net:6} {clients:4} {row['loop_ms']:8.2f} {row['vmap_ms']:8.2f} {ratio:6.2f}")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
