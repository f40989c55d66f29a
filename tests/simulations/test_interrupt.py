"""Ctrl-C and SIGTERM leave no process behind, and a run that goes on to the same numbers."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulations import simulate

CODE = """
from simulations import command
import sys
sys.argv = ["fedmeta", "simulate", sys.argv[1], "--out", sys.argv[2], "--set", "engine.actors=2"]
command.main()
"""

FILE = """
[data]
name = "sinusoid"
[partition]
name = "iid"
clients = 4
test_clients = 1
[task]
ways = 1
shots = 3
[model]
name = "sinusoid"
[learner]
name = "fomaml"
inner_lr = 0.01
[client]
execution = "loop"
[server]
rounds = 150
sampling = { name = "fixed", clients = 4 }
[evaluation]
episodes = 1
pooled_episodes = 1
"""


def children_of(group: int) -> list[str]:
    listed = subprocess.run(["ps", "-wweo", "pgid=,pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and "defunct" not in line]


@dataclass
class Ended:
    """How a run that was ended in its midst ended: exit code, what it said, and whom it left."""

    code: int
    output: str
    left: list[str]


def ended_by(number: signal.Signals, place: Path, group: bool) -> Ended:
    """Start the long run, and end it after its first round: its process alone, or the whole group."""
    (place / "long.toml").write_text(FILE)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(place / "long.toml"), str(place / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "RAY_ADDRESS": ""},
        start_new_session=True,
    )
    checkpoint = place / "run" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    begun = checkpoint.exists()
    output, _ = process.communicate(timeout=60)
    assert begun, f"no round within 120 s: {output}"
    return Ended(process.returncode, output, left_of(process.pid))


def left_of(group: int, patience: float = 10.0) -> list[str]:
    """Processes of a group that do not end by themselves: what Ray is told to end takes a moment on a busy machine."""
    deadline = time.monotonic() + patience
    while children_of(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    return children_of(group)


def test_ctrl_c_leaves_nothing_running_and_a_resumable_run(tmp_path: Path) -> None:
    ended = ended_by(signal.SIGINT, tmp_path, group=True)  # as a terminal does: to every process of the group
    assert ended.code == 130, ended.output
    assert f"fedmeta simulate --resume {tmp_path / 'run'}" in ended.output.splitlines()[-1], ended.output
    assert ended.left == []
    whole = simulate(tmp_path / "long.toml", engine="inline", out=tmp_path / "whole", report=False)
    resumed = simulate(resume=tmp_path / "run", engine="inline", report=False)
    assert resumed.model_hash == whole.model_hash and resumed.rounds == 150


@pytest.mark.parametrize("group", [False, True], ids=["the process", "every process of the group"])
def test_sigterm_ends_a_run_as_ctrl_c_does(group: bool, tmp_path: Path) -> None:
    """As `kill`, a scheduler or a service manager ends it: one line says how to resume, and Ray says nothing."""
    ended = ended_by(signal.SIGTERM, tmp_path, group)
    assert ended.code == 143, ended.output
    advice = f"interrupted; continue with: fedmeta simulate --resume {tmp_path / 'run'}"
    assert ended.output.splitlines()[-1].strip() == advice, ended.output
    assert not {"SIGTERM", "Traceback", "logging.cc", "Aborted"} & set(ended.output.replace(":", " ").split())
    assert ended.left == []
