"""Flower's own simulation runtime on the trivial client: what our engine is measured against."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "overhead"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "fedmeta"
[tool.flwr.app.components]
serverapp = "overhead_server:app"
clientapp = "overhead_client:app"
[tool.flwr.app.config]
plan = ""
out = ""
"""

CLIENT = """
from simulations.benchmarks.trivial import app as trivial

app = trivial
"""

SERVER = """
import json, time
from pathlib import Path
from flwr.serverapp import ServerApp
from simulations.benchmarks.trivial import play, since_ray_began

app = ServerApp()


@app.main()
def main(grid, context):
    started = time.perf_counter()
    plan, found = json.loads(context.run_config["plan"]), {"seconds": []}
    for floats in plan["floats"]:
        found["seconds"].append([])
        for _ in range(plan["repeats"]):
            play(grid, floats, plan["clients"], 1)
            found.setdefault("first_round", time.perf_counter() - started)
            found.setdefault("first_round_since_ray", since_ray_began())
            found["seconds"][-1].append(play(grid, floats, plan["clients"], plan["rounds"]))
    Path(context.run_config["out"]).write_text(json.dumps(found))
"""


def measure(floats: Sequence[int], clients: int, rounds: int, repeats: int) -> dict[str, Any]:
    """Play the same rounds under `flwr run` with one core a client actor.

    Returns:
        `seconds`, for each number of floats `repeats` times of `rounds` rounds, each after one round to warm up;
        `first_round`, the time from the start of the ServerApp to the end of its first round [seconds]; and
        `first_round_since_ray`, the time from the start of Ray to that end [seconds].

    Raises:
        RuntimeError: the run ended without figures; with Flower's own words.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = folder / "app"
        app.mkdir()
        for file, text in (("pyproject.toml", PROJECT), ("overhead_client.py", CLIENT), ("overhead_server.py", SERVER)):
            (app / file).write_text(text)
        plan = json.dumps({"floats": list(floats), "clients": clients, "rounds": rounds, "repeats": repeats})
        out = folder / "found.json"
        (folder / "run.toml").write_text(f"plan = {json.dumps(plan)}\nout = {json.dumps(str(out))}\n")
        environment = flower_environment(folder / "home")
        try:
            command = ["flwr", "run", str(app), "--run-config", str(folder / "run.toml"), "--stream"]
            command += ["--federation-config", f"num-supernodes={clients} client-resources-num-cpus=1"]
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
            )
            deadline = time.monotonic() + 30
            while not out.exists() and time.monotonic() < deadline:
                time.sleep(0.2)
            if not out.exists():
                raise RuntimeError(f"flwr run gave no figures:\n{(done.stdout + done.stderr)[-2000:]}")
            found: dict[str, Any] = json.loads(out.read_text())
            return found
        finally:
            end_superlink(folder / "home")


def flower_environment(home: Path) -> dict[str, str]:
    """Variables under which `flwr` has a home, and a managed SuperLink with ports, of its own."""
    binaries = str(Path(sys.executable).parent)
    ports = {"FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": _free_port(), "FLWR_LOCAL_CONTROL_API_PORT": _free_port()}
    return {
        **os.environ,
        **ports,
        "PATH": os.pathsep.join([binaries, os.environ["PATH"]]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_ADDRESS": "",
    }


def _free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def end_superlink(home: Path, patience: float = 10.0) -> None:
    """End the SuperLink that `flwr` started under a home; it outlives runs, and a busy one the first request to end.

    Args:
        home: its FLWR_HOME.
        patience: how long it may take to end by itself [seconds].
    """
    deadline = time.monotonic() + patience
    while pids := _superlinks(home):
        late = time.monotonic() >= deadline
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.5)


def _superlinks(home: Path) -> list[int]:
    """Process ids of the SuperLinks whose command names this home."""
    listed = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.strip().partition(" ") for line in listed.splitlines()]
    return [int(pid) for pid, _, command in found if "flower-superlink" in command and str(home) in command]
