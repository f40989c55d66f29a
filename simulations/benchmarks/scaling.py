"""How the cost of a client-round grows with clients, actors and parameters, on the trivial client, in one run.

    python -m simulations.benchmarks.scaling [--without-flower] [--output scaling.json]

Flower's own simulation runtime plays the same rounds of up to 1,000 clients: its cost of one grows with their number.
"""

import argparse
import json
import logging
import statistics
from pathlib import Path
from typing import Any

from simulations import RayGrid
from simulations.benchmarks import flower_runtime, trivial

CLIENTS = (10, 100, 1_000, 10_000)
FLOATS = (1_000, 10_000, 100_000, 1_000_000)
ACTORS = (1, 2)
FLOWER = CLIENTS[:3]
"""10,000 clients would take it minutes a round."""
LARGEST = 1_000_000_000
"""Floats of all replies of a round beyond which a setting is left out: they would not fit into memory at once."""


def measure(clients: int, floats: int, actors: int) -> dict[str, Any]:
    """Milliseconds a client-round: the median of three rounds after one to warm up."""
    with RayGrid(trivial.APP, clients, actors=actors, start_timeout=120) as grid:
        trivial.play(grid, floats, clients, 1)
        times = [trivial.play(grid, floats, clients, 1) for _ in range(3)]
    return {"clients": clients, "floats": floats, "actors": actors, "ms": 1000 * statistics.median(times) / clients}


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=None, help="where to write the figures as JSON")
    parser.add_argument("--without-flower", action="store_true", help="leave Flower's own runtime out")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    settings = [(clients, 10_000, actors) for clients in CLIENTS for actors in ACTORS]
    settings += [(100, floats, max(ACTORS)) for floats in FLOATS]
    rows = []
    print("clients, floats, actors: ms a client-round")
    for clients, floats, actors in settings:
        if clients * floats <= LARGEST:
            rows.append(measure(clients, floats, actors))
            print(f"{clients:7,} {floats:10,} {actors:2}: {rows[-1]['ms']:.3f}", flush=True)
    for clients in () if arguments.without_flower else FLOWER:
        [[seconds]] = flower_runtime.measure((10_000,), clients, 3, repeats=1)["seconds"]
        rows.append({"clients": clients, "floats": 10_000, "flower_ms": 1000 * seconds / (3 * clients)})
        print(f"{clients:7,} {10_000:10,} Flower's runtime: {rows[-1]['flower_ms']:.3f}", flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
