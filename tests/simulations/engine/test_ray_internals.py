"""What of Ray's inner parts is used, and what is different where it is there."""

import subprocess
import sys

from ray._private import services, state, utils
from ray._private.node import Node

from simulations.engine.ray_internals import UNUSED

STARTED = """
import os, random, subprocess, numpy, ray
from simulations import RayGrid
random.seed(0), numpy.random.seed(0)
drawn = random.getstate(), numpy.random.get_state()[1].tolist()
with RayGrid("simulations.benchmarks.trivial:app", 2, actors=1) as grid:
    listed = subprocess.run(["ps", "-wweo", "args="], capture_output=True, text=True, check=True).stdout
    session = ray.get_runtime_context().get_session_name()
    print([part for line in listed.splitlines() if session in line for part in line.split() if part.endswith(".py")])
print(ray.is_initialized(), drawn == (random.getstate(), numpy.random.get_state()[1].tolist()))
"""


def test_ray_has_the_parts_that_are_used() -> None:
    """Else it starts by itself, in twice the time: see what they are called now."""
    assert all(hasattr(Node, name) for name in UNUSED)
    assert hasattr(services, "get_node") and hasattr(services, "_get_gcs_client_options")
    assert hasattr(utils, "set_sigterm_handler")
    assert hasattr(state.GlobalState, "_initialize_global_state")


def test_a_ray_of_our_own_has_no_process_that_nobody_asks() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, check=True)
    started, still = done.stdout.splitlines()
    assert "default_worker.py" in started and "agent.py" in started, "those that are needed are seen"
    assert not any(name in started for name in ("dashboard.py", "monitor.py", "log_monitor.py"))
    assert still == "False True", "Ray has ended, and what a strategy draws does not depend on it"
