"""What a client-round costs beside the client's own work: our engines, a bare loop, and Flower's runtime, in one run.

    python -m simulations.benchmarks.engine_overhead [--without-flower] [--output overhead.json]

One trivial client (`simulations.benchmarks.trivial`), Flower's own FedAvg, full and distinct replies, 100 clients; the
same with our own client and MetaStrategy; the time to the first finished round; and the useful share of a whole
federated round of MAML on conv4 under Ray against a bare loop of the same meta-steps. Every figure is the median of
`REPEATS` measurements; those of one process take turns, so that another load on the machine falls on all alike.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simulations import InlineGrid, RayGrid
from simulations.benchmarks import flower_runtime, pfl_runtime, trivial
from simulations.benchmarks.meta_round import overhead_of_meta_strategy, useful_share

CLIENTS, ROUNDS, REPEATS = 100, 5, 5
FLOATS = (10_000, 100_000, 1_000_000)
TARGETS = {10_000: 15.0, 100_000: 15.0, 1_000_000: 5.0}
"""Times that Flower's runtime must take longer than RayGrid under Flower's FedAvg."""

FIRST_ROUND = """
import logging, time
logging.disable(logging.INFO)
started = time.perf_counter()
from simulations import RayGrid
from simulations.benchmarks import trivial
with RayGrid(trivial.APP, {clients}, start_timeout=120) as grid:
    trivial.play(grid, 10_000, {clients}, 1)
    print(time.perf_counter() - started, trivial.since_ray_began())
"""


def overhead() -> list[dict[str, Any]]:
    """Milliseconds a client-round of a bare loop, inline and under Ray, for each number of floats.

    One number after the other, and before the clock one round of as many floats, as Flower's runtime has it.
    """
    found: dict[int, dict[str, list[float]]] = {floats: {} for floats in FLOATS}
    with RayGrid(trivial.APP, CLIENTS, start_timeout=120) as ray, InlineGrid(trivial.APP, CLIENTS) as inline:
        trivial.play(ray, FLOATS[0], CLIENTS, 1)
        for floats, times in found.items():
            for _ in range(REPEATS):
                times.setdefault("bare_ms", []).append(_per_client(trivial.bare_loop(floats, CLIENTS, ROUNDS)))
                for name, grid in (("inline", inline), ("ray", ray)):
                    trivial.play(grid, floats, CLIENTS, 1)
                    seconds = trivial.play(grid, floats, CLIENTS, ROUNDS)
                    times.setdefault(f"{name}_ms", []).append(_per_client(seconds))
    medians = {
        floats: {name: statistics.median(each) for name, each in times.items()} for floats, times in found.items()
    }
    return [{"floats": floats, **times} for floats, times in medians.items()]


def _per_client(seconds: float) -> float:
    return 1000 * seconds / (ROUNDS * CLIENTS)


def first_round() -> tuple[float, float]:
    """Seconds to the end of the first round of a fresh process: from its first import, and from Ray's start."""
    code = FIRST_ROUND.format(clients=CLIENTS)
    times = []
    for _ in range(REPEATS):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        times.append([float(word) for word in done.stdout.split()[-2:]])
    imported, began = (statistics.median(each) for each in zip(*times, strict=True))
    return imported, began


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-flower", action="store_true", help="leave Flower's own runtime out")
    parser.add_argument("--output", type=Path, default=None, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = overhead()
    ours = overhead_of_meta_strategy(FLOATS, CLIENTS, 4 * ROUNDS)
    imported, began = first_round()
    result: dict[str, Any] = {
        "overhead": rows,
        "meta_strategy": ours,
        "first_round_seconds": imported,
        "first_round_seconds_since_ray": began,
    }
    if not arguments.without_flower:
        flower = flower_runtime.measure(FLOATS, CLIENTS, ROUNDS, REPEATS)
        result["flower_first_round_seconds"] = flower["first_round"]
        result["flower_first_round_seconds_since_ray"] = flower["first_round_since_ray"]
        for row, seconds in zip(rows, flower["seconds"], strict=True):
            row["flower_ms"] = _per_client(statistics.median(seconds))
    if pfl_runtime.is_installed():
        for name, times in pfl_runtime.measure(FLOATS, CLIENTS, ROUNDS, REPEATS).items():
            for row, seconds in zip(rows, times, strict=True):
                row[f"pfl {name}_ms"] = _per_client(statistics.median(seconds))
    result["useful"] = useful_share()
    _print(result)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2))


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"ms a client-round, {CLIENTS} trivial clients, FedAvg, full replies", title_justify="left")
    names = [
        name
        for name in ("bare_ms", "inline_ms", "ray_ms", "flower_ms", "pfl averaging_ms", "pfl idle_ms")
        if name in result["overhead"][0]
    ]
    for column in ("floats", *(name.removesuffix("_ms") for name in names), "flower / ray", "target"):
        table.add_column(column, justify="right")
    for row in result["overhead"]:
        ratio = f"{row['flower_ms'] / row['ray_ms']:.1f}" if "flower_ms" in row else "-"
        figures = [f"{row[name]:.3f}" for name in names]
        table.add_row(f"{row['floats']:,}", *figures, ratio, f"{TARGETS[row['floats']]:g}")
    console = Console()
    console.print(table)
    for ours in result["meta_strategy"]:
        console.print(
            f"our own client and strategy, {ours['floats']:,} floats: {ours['whole_ms']:.2f} ms a client-round, "
            f"{ours['sums_ms']:.2f} with sums on actors"
        )
    console.print(
        f"first finished round: {result['first_round_seconds']:.1f} s after the first import, "
        f"{result['first_round_seconds_since_ray']:.1f} s after Ray's start"
    )
    if "flower_first_round_seconds" in result:
        console.print(
            f"Flower's runtime: {result['flower_first_round_seconds']:.1f} s after its ServerApp's start, "
            f"{result['flower_first_round_seconds_since_ray']:.1f} s after Ray's"
        )
    for actors, share in result["useful"].items():
        console.print(f"useful share of a MAML/conv4 round, {actors}: {share:.2f}")


if __name__ == "__main__":
    main()
