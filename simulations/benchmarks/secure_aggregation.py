"""Time and bytes of secure aggregation, per client and for the server, beside Flower's SecAgg+ on the same vectors.

    python -m simulations.benchmarks.secure_aggregation [--shapes 10x1e5 100x1e6 ...] [--group 100x1e6] [--output FILE]

One process, one core, nothing on a network. Both protocols have the same graph (degree and threshold of
`choose_plan`) and lose a tenth of the clients after the shares are out. A client's time is that of its four replies,
messages and state through their bytes: ours by `ClientSession`, Flower's by its own `secaggplus_mod`. The server's is
that of taking all replies and removing the masks: ours by `ServerSession`, Flower's by its workflow's primitives in the
workflow's order. Training is in neither. Times are processor time, so that other work on the machine counts little.
`--group` runs whole groups of ours, every client and the server, and checks the sum's bits.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cryptography
import flwr
import numpy as np
from rich.console import Console
from rich.table import Table

from fedmeta.privacy.secagg import ClientSession, FixedPoint, GroupContext, Plan, ServerSession, choose_plan, parse
from fedmeta.privacy.secagg.messages import MaskedInput, MaskRequest, Stage
from simulations.benchmarks.flower_secagg import FlowerClient, flower_server_seconds

SHAPES = ["10x1e5", "10x1e6", "10x1e7", "100x1e5", "100x1e6", "100x1e7", "1000x1e5", "1000x1e6", "1000x1e7"]
GROUPS = ["100x1e6"]
TIMED = 3
"""Clients of a group whose replies are timed."""
SERVER_LIMIT = 5e8
"""Mask words (passes times length) up to which Flower's server is run: above it takes minutes."""
LOSS = 0.1


@dataclass
class Ours:
    """One group of ours. Clients that are not timed send zeros, unmasked: that costs a server alike."""

    plan: Plan
    length: int
    vectors: dict[int, Any]
    seed: int = 0

    def __post_init__(self) -> None:
        members = tuple(range(1, self.plan.count + 1))
        generator = np.random.default_rng(self.seed)
        self.coder = FixedPoint(bits=32, bound=1.0, max_count=self.plan.count)
        self.server = ServerSession(
            GroupContext("benchmark", 1, 0, members), self.plan, bits=32, length=self.length, generator=generator
        )
        self.rounding = np.random.default_rng(self.seed + 1)
        self.gone = set(generator.choice(members[len(self.vectors) :], size=round(LOSS * len(members)), replace=False))
        self.states: dict[int, bytes] = {}
        self.seconds = dict.fromkeys(self.vectors, 0.0)
        self.up, self.down = dict.fromkeys(self.vectors, 0), dict.fromkeys(self.vectors, 0)
        self.server_seconds = 0.0
        self.encoded: dict[int, Any] = {}
        self.zeros = np.zeros(self.length, dtype=np.uint32)

    def run(self, until: Stage = Stage.ENDED) -> "Ours":
        """The exchanges up to a stage."""
        while self.server.stage is not until:
            self.exchange()
            started = time.process_time()
            self.server.advance()
            self.server_seconds += time.process_time() - started
        return self

    def exchange(self) -> None:
        """One stage: everybody replies who is not lost."""
        stage = self.server.stage
        for node, request in self.server.requests().items():
            if stage is Stage.MASK and node in self.gone:
                continue
            asked = request.to_bytes()
            started = time.process_time()
            data = self._reply(node, asked)
            if node in self.vectors:
                self.seconds[node] += time.process_time() - started
                self.up[node] += len(data)
                self.down[node] += len(asked)
            started = time.process_time()
            self.server.receive(node, parse(data))
            self.server_seconds += time.process_time() - started

    def _reply(self, node: int, data: bytes) -> bytes:
        """A client's process: its state is read, moved on, written."""
        request: Any = parse(data)
        if node not in self.states:
            session, reply = ClientSession.begin(node, request)
            self.states[node] = session.to_bytes()
            return reply.to_bytes()
        session = ClientSession.from_bytes(self.states[node])
        if isinstance(request, MaskRequest):
            found = self._mask(session, request)
        else:
            found = (session.share if session.stage is Stage.SHARES else session.unmask)(request).to_bytes()
        self.states[node] = session.to_bytes()
        return found

    def _mask(self, session: ClientSession, request: MaskRequest) -> bytes:
        if session.node in self.vectors:
            encoded = self.coder.encode(self.vectors[session.node], self.rounding)
            self.encoded[session.node] = encoded
            return session.mask(request, encoded).to_bytes()
        session.length = 1
        session.mask(request, self.zeros[:1])
        session.length = self.length
        return MaskedInput(session.context.tag, self.zeros).to_bytes()


def vectors(count: int, length: int) -> dict[int, Any]:
    """Updates of the first `count` clients."""
    generator = np.random.default_rng(7)
    return {node: 0.1 * generator.standard_normal(length, dtype=np.float32) for node in range(1, count + 1)}


def passes(plan: Plan) -> int:
    """Masks that a server removes where a tenth is lost."""
    lost = round(LOSS * plan.count)
    return plan.count - lost + lost * round(plan.degree * (1 - LOSS))


def measure(count: int, length: int, limit: float) -> dict[str, Any]:
    """One shape: both protocols, one after the other."""
    plan = choose_plan(count)
    ours = Ours(plan, length, vectors(min(TIMED, count - 1), length)).run()
    theirs = FlowerClient(plan, next(iter(ours.vectors.values()))).run()
    row: dict[str, Any] = {"n": count, "d": length, "degree": plan.degree, "threshold": plan.threshold}
    row |= {"client_ms": 1000 * statistics.median(ours.seconds.values()), "flower_client_ms": 1000 * theirs.seconds}
    row |= {"up": statistics.median(ours.up.values()), "flower_up": theirs.up}
    row |= {"down": statistics.median(ours.down.values()), "flower_down": theirs.down}
    row["server_s"] = ours.server_seconds
    if passes(plan) * length <= limit:
        row["flower_server_s"] = flower_server_seconds(plan, theirs, LOSS)
    return row


def whole_group(count: int, length: int) -> dict[str, Any]:
    """Every client and the server, one after the other; the sum is checked to the last bit."""
    plan = choose_plan(count)
    group = Ours(plan, length, {})
    group.vectors = vectors(count, length)
    group.seconds = dict.fromkeys(group.vectors, 0.0)
    group.up, group.down = dict.fromkeys(group.vectors, 0), dict.fromkeys(group.vectors, 0)
    started, wall = time.process_time(), time.perf_counter()
    result = group.run().server.result
    seconds, wall = time.process_time() - started, time.perf_counter() - wall
    expected = np.zeros(length, dtype=np.uint32)
    for node in result.survivors:
        expected += group.encoded[node]
    exact = np.sum([group.vectors[node] for node in result.survivors], axis=0, dtype=np.float64)
    error = np.linalg.norm(group.coder.decode(result.total, len(result.survivors)) - exact) / np.linalg.norm(exact)
    return {
        "n": count,
        "d": length,
        "survivors": len(result.survivors),
        "seconds": seconds,
        "wall_s": wall,
        "clients_s": sum(group.seconds.values()),
        "server_s": group.server_seconds,
        "exact": bool((expected == result.total).all()),
        "relative_error": float(error),
    }


def shape(text: str) -> tuple[int, int]:
    """`100x1e6` -> 100 clients, 1,000,000 coordinates."""
    count, length = text.split("x")
    return int(count), int(float(length))


def show(rows: list[dict[str, Any]]) -> Table:
    """The figures as a table; ratios are Flower's over ours."""
    table = Table(title="per client (down: without the model), and server", title_justify="left")
    heads = ("n", "d", "k", "t", "client, ms", "Flower", "ratio", "up, kB", "Flower", "ratio", "down, kB", "Flower")
    for head in (*heads, "server, s", "Flower", "ratio"):
        table.add_column(head, justify="right")
    for row in rows:
        cells = [str(row["n"]), f"{row['d']:.0e}", str(row["degree"]), str(row["threshold"])]
        for key, digits, unit in (("client_ms", 1, 1), ("up", 0, 1000)):
            pair = row[key], row[f"flower_{key}"]
            cells += [*(f"{value / unit:,.{digits}f}" for value in pair), f"{pair[1] / pair[0]:.1f}"]
        cells += [f"{row[key] / 1000:,.1f}" for key in ("down", "flower_down")]
        cells.append(f"{row['server_s']:,.2f}")
        if "flower_server_s" in row:
            cells += [f"{row['flower_server_s']:,.2f}", f"{row['flower_server_s'] / row['server_s']:.1f}"]
        table.add_row(*cells)
    return table


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=SHAPES, help="clients x coordinates, such as 100x1e6")
    parser.add_argument("--group", nargs="*", default=GROUPS, help="whole groups of ours")
    parser.add_argument(
        "--server-limit", type=float, default=SERVER_LIMIT, help="mask words up to which Flower's server runs"
    )
    parser.add_argument("--output", type=Path, default=None, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    groups = [whole_group(*shape(text)) for text in arguments.group]
    for row in groups:
        Console().print(
            f"{row['n']} clients of {row['d']:,} parameters, {row['survivors']} survive: {row['seconds']:.1f} s in all "
            f"({row['wall_s']:.1f} by the clock; clients {row['clients_s']:.1f}, server {row['server_s']:.1f}), "
            f"sum exact: {row['exact']}, relative error of the floats {row['relative_error']:.1e}"
        )
    rows = []
    for text in arguments.shapes:
        rows.append(measure(*shape(text), arguments.server_limit))
        Console(stderr=True).print(rows[-1])
    if rows:
        Console(width=160).print(show(rows))
    if arguments.output is not None:
        versions = {"flwr": flwr.__version__, "cryptography": cryptography.__version__, "numpy": np.__version__}
        facts = {"versions": {**versions, "python": platform.python_version()}, "rows": rows, "groups": groups}
        arguments.output.write_text(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
