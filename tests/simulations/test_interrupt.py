"""Ctrl-C leaves no process behind, and a run that goes on to the same numbers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def test_ctrl_c_leaves_nothing_running_and_a_resumable_run(tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(FILE)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(tmp_path / "long.toml"), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "RAY_ADDRESS": ""},
        start_new_session=True,
    )
    checkpoint = tmp_path / "run" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"fedmeta simulate --resume {tmp_path / 'run'}" in output.replace("\n", "").replace("  ", " "), output
    time.sleep(1)
    assert children_of(process.pid) == []
    whole = simulate(tmp_path / "long.toml", engine="inline", out=tmp_path / "whole", report=False)
    resumed = simulate(resume=tmp_path / "run", engine="inline", report=False)
    assert resumed.model_hash == whole.model_hash and resumed.rounds == 150
