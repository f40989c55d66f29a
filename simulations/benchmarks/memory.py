"""Memory of long and large simulations: peak of 10,000 registered clients, and what 500 rounds leave behind.

    python -m simulations.benchmarks.memory [--rounds 50] [--soak 500] [--output memory.json]

Peak: 10,000 registered clients, 100 sampled a round, a million floats, full replies, Flower's FedAvg. Soak: 100
clients, ten thousand floats. Memory is the sum of proportional set sizes (PSS) of this process and all below it, Ray's
among them, so that what they share counts once. Linux only.
"""

import argparse
import contextlib
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from rich.console import Console

from simulations import RayGrid
from simulations.benchmarks import trivial

REGISTERED, SAMPLED = 10_000, 100
LIMIT_GIB = 4.0
GRACE = 15.0
"""Within which Ray's own processes end after it was told to [seconds]."""


def family() -> list[int]:
    """Process ids of this process and of all below it that live: Ray leaves one that ended unread."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):  # it may have ended meanwhile
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [os.getpid()]
    while waiting:
        found.append(waiting.pop())
        waiting += parents.get(found[-1], [])
    return found


def memory(pids: list[int]) -> float:
    """Proportional set size of processes [GiB]."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 2**20


class Watch:
    """Samples memory in a thread while it is entered; `peak` is the highest value [GiB]."""

    def __init__(self, period: float = 0.5) -> None:
        self.peak = 0.0
        self._period, self._over = period, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._over.wait(self._period):
            self.peak = max(self.peak, memory(family()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def play(grid: Grid, floats: int, registered: int, sampled: int, rounds: int) -> None:
    """Rounds of FedAvg over a sample of the clients."""
    strategy = FedAvg(
        fraction_train=sampled / registered,
        fraction_evaluate=0.0,
        min_train_nodes=sampled,
        min_available_nodes=registered,
    )
    arrays = ArrayRecord({"w": Array(np.ones(floats, dtype=np.float32))})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=rounds)


def peak(rounds: int) -> dict[str, Any]:
    """The highest memory of so many rounds of many registered clients."""
    with Watch() as watch, RayGrid(trivial.APP, REGISTERED, start_timeout=120) as grid:
        play(grid, 1_000_000, REGISTERED, SAMPLED, rounds)
    return {"rounds": rounds, "peak_gib": watch.peak, "limit_gib": LIMIT_GIB}


def soak(rounds: int) -> dict[str, Any]:
    """Memory, open files, processes and Ray objects after a tenth of the rounds, and after all of them."""
    before = set(family())
    with RayGrid(trivial.APP, SAMPLED, start_timeout=120) as grid:
        play(grid, 10_000, SAMPLED, SAMPLED, max(1, rounds // 10))
        early = _census()
        play(grid, 10_000, SAMPLED, SAMPLED, rounds - max(1, rounds // 10))
        late = _census()
    deadline = time.monotonic() + GRACE
    while (left := set(family()) - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    return {"rounds": rounds, "early": early, "late": late, "processes_left": len(left)}


def _census() -> dict[str, float]:
    import ray

    pids, name = family(), "object_store_memory"
    objects = ray.cluster_resources()[name] - ray.available_resources().get(name, 0.0)
    return {
        "gib": memory(pids),
        "processes": len(pids),
        "files": len(os.listdir("/proc/self/fd")),
        "objects_mib": objects / 2**20,
    }


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="rounds of the large run")
    parser.add_argument("--soak", type=int, default=500, help="rounds of the long run")
    parser.add_argument("--output", type=Path, default=None, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    result = {"peak": peak(arguments.rounds), "soak": soak(arguments.soak)}
    console = Console()
    console.print(
        f"{REGISTERED:,} clients, {SAMPLED} a round, 1e6 floats, {arguments.rounds} rounds: "
        f"peak {result['peak']['peak_gib']:.2f} GiB (limit {LIMIT_GIB:g})"
    )
    console.print(f"soak of {arguments.soak} rounds: {result['soak']}")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
