"""Every aggregation rule against ByzFL's, in one run: milliseconds, ratios, and memory beside the update matrix.

    python -m simulations.benchmarks.aggregation [--output aggregation.json] [--repeats 5] [--threads 1] [--rules krum]

ByzFL (PyPI `byzfl`) is measured where it is installed, with numpy arrays and torch tensors of float32; the faster of
the two counts. Memory is what a call adds to the process's resident set at its peak, without the matrix itself, in
multiples of the matrix.
"""

import argparse
import ctypes
import functools
import importlib.util
import json
import platform
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from strategies import make_aggregator, make_preaggregator
from strategies.aggregation import Requires, RoundContext

SHAPES = ((20, 1_000_000), (100, 113_000))
"""(clients, parameters): a larger network with few clients, and conv4 with many."""

SHARE = 10
"""One client in so many is assumed malicious."""


def ours(n: int) -> dict[str, Callable[[Tensor, RoundContext], Any]]:
    """Our rules by name, with an f of a tenth of n."""
    f = n // SHARE
    with_f = {"trimmed_mean", "krum", "multi_krum", "bulyan", "dnc"}
    names = "mean median trimmed_mean geometric_median krum multi_krum bulyan centered_clipping norm_bound rlr dnc"
    rules: dict[str, Callable[[Tensor, RoundContext], Any]] = {}
    for name in [*names.split(), "foolsgold", "fltrust", "signguard", "flame", "fldetector", "alignins"]:
        given: dict[str, Any] = {"f": f} if name in with_f else {"threshold": n // 2} if name == "rlr" else {}
        rules[name] = make_aggregator(name, **given)
    rules["nnm"] = make_preaggregator("nnm", f=f)
    rules["bucketing"] = make_preaggregator("bucketing", s=2)
    rules["arc"] = make_preaggregator("arc", f=f)
    rules["clipping"] = make_preaggregator("clipping", clip_norm=1.0)
    return rules


def theirs(n: int) -> dict[str, Callable[[Any], Any]]:
    """ByzFL's rules by our names; empty where it is not installed."""
    if not _has_byzfl():
        return {}
    from byzfl.aggregators import aggregators, preaggregators

    f = n // SHARE
    return {
        "mean": aggregators.Average(),
        "median": aggregators.Median(),
        "trimmed_mean": aggregators.TrMean(f),
        "geometric_median": aggregators.GeometricMedian(),
        "krum": aggregators.Krum(f),
        "multi_krum": aggregators.MultiKrum(f),
        # A new one each time: it carries its centre from call to call.
        "centered_clipping": lambda x: aggregators.CenteredClipping(L=3, tau=10.0)(x),
        "nnm": preaggregators.NNM(f),
        "bucketing": preaggregators.Bucketing(2),
        # These two clip their input in place: who needs the rows afterwards must copy them.
        "arc": lambda x: preaggregators.ARC(f)(_copy(x)),
        "clipping": lambda x: preaggregators.Clipping(1.0)(_copy(x)),
    }


@functools.cache
def _has_byzfl() -> bool:
    """Whether ByzFL's rules can be imported, prepared for that."""
    spec = importlib.util.find_spec("byzfl")
    if spec is None or spec.submodule_search_locations is None:
        return False
    # Its package imports its own benchmark and with that torchvision, which the rules do not need.
    package = types.ModuleType("byzfl")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["byzfl"] = package
    return True


def _copy(updates: Any) -> Any:
    return updates.copy() if isinstance(updates, np.ndarray) else updates.clone()


def milliseconds(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The best of some calls of each after one that warms up; in turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(repeats + 1):
        for key, call in calls.items():
            started = time.perf_counter()
            call()
            times[key].append(time.perf_counter() - started)
    return {key: 1000 * min(found[1:]) for key, found in times.items()}


def peak_bytes(call: Callable[[], Any]) -> int:
    """What a call adds to the resident set at its peak, watched from another thread."""
    page = 4096
    done, peak = threading.Event(), [0]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc keeps freed memory resident, and a call that reuses it would seem to need none
        trim(0)
    before = resident()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident())
            time.sleep(0.0005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return max(0, peak[0] - before)


def measure(n: int, size: int, repeats: int, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row a rule: of those named, else of all."""
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(n, size, generator=generator) + 0.5
    array = updates.numpy()
    context = RoundContext(
        model=torch.randn(size, generator=generator), root_update=torch.randn(size, generator=generator) + 0.5
    )
    others, rows = theirs(n), []
    for name, rule in ours(n).items():
        if names and name not in names:
            continue
        run = functools.partial(rule, updates, _with_history(rule, updates, context))
        run()  # what the first call of a process imports is not the rule's memory
        memory = peak_bytes(run) / array.nbytes
        calls = {"ms": run}
        if name in others:
            calls["byzfl_numpy_ms"] = functools.partial(others[name], array)
            calls["byzfl_torch_ms"] = functools.partial(others[name], updates)
        row: dict[str, Any] = {"rule": name, "n": n, "d": size, "memory": memory}
        row |= milliseconds(calls, repeats)
        if name in others:
            row["ratio"] = min(row["byzfl_numpy_ms"], row["byzfl_torch_ms"]) / row["ms"]
        rows.append(row)
    return rows


def _with_history(rule: Any, updates: Tensor, context: RoundContext) -> RoundContext:
    """The context of a third round for rules that remember, the given one for others."""
    if not getattr(rule, "requires", Requires()).history:
        return context
    for _ in range(2):
        found = rule(updates, context)
        context = replace(context, state=found.state, model=context.model + found.vector)
    return context


def show(rows: list[dict[str, Any]]) -> Table:
    """The figures as a table."""
    title = f"{rows[0]['n']} updates of {rows[0]['d']:,} parameters"
    table = Table(title=title, title_justify="left")
    for column in ("rule", "ours, ms", "ByzFL numpy", "ByzFL torch", "ByzFL / ours", "memory / matrix"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for row in rows:
        figures = [f"{row[key]:.1f}" if key in row else "-" for key in ("ms", "byzfl_numpy_ms", "byzfl_torch_ms")]
        table.add_row(row["rule"], *figures, f"{row['ratio']:.1f}" if "ratio" in row else "-", f"{row['memory']:.2f}")
    return table


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=None, help="where to write the figures as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of a rule, of which the best counts")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--rules", nargs="+", choices=list(ours(SHARE)), default=(), help="only these; all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    for n, size in SHAPES:
        found = measure(n, size, arguments.repeats, arguments.rules)
        Console().print(show(found))
        rows += found
    if arguments.output is not None:
        versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
        facts = {"threads": arguments.threads, "versions": versions, "rows": rows}
        arguments.output.write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
