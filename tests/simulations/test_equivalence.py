"""The same seed gives bitwise the same model, whatever the engine, the actors, or an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from server.rundir import RunDir
from simulations import simulate

SMALL = {
    "name": "small",
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 6, "validation_clients": 1, "test_clients": 2},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 2, "tasks_per_step": 2, "execution": "loop"},
    "server": {"rounds": 4, "sampling": {"name": "fixed", "clients": 3}, "optimiser": {"name": "adam", "lr": 1e-3}},
    "evaluation": {"every": 2, "episodes": 3, "validation_episodes": 3, "pooled_episodes": 3},
}


def run(tmp_path: Path, name: str, **options):
    return simulate(SMALL, out=tmp_path / name, **options, report=False)


def test_inline_and_ray_agree_bit_for_bit(tmp_path: Path, ray_session) -> None:
    inline = run(tmp_path, "inline", engine="inline")
    one = run(tmp_path, "one", engine="ray", overrides={"engine.actors": 1})
    two = run(tmp_path, "two", engine="ray", overrides={"engine.actors": 2})
    assert inline.model_hash == one.model_hash == two.model_hash
    strip = [{key: value for key, value in record.items() if key != "seconds"} for record in inline.history]
    for other in (one, two):
        assert strip == [{key: value for key, value in record.items() if key != "seconds"} for record in other.history]
    assert inline.results["last"] == two.results["last"]


def test_sums_on_actors_agree_bit_for_bit(tmp_path: Path, ray_session) -> None:
    """Which clients share an actor does not show in the sum; whole updates give the same mean to rounding."""
    sums = {"engine.reduce": "auto"}
    whole = run(tmp_path, "whole", engine="inline")
    inline = run(tmp_path, "inline", engine="inline", overrides=sums)
    one = run(tmp_path, "one", engine="ray", overrides={**sums, "engine.actors": 1})
    two = run(tmp_path, "two", engine="ray", overrides={**sums, "engine.actors": 2})
    assert inline.model_hash == one.model_hash == two.model_hash
    torch.testing.assert_close(inline.vector, whole.vector, rtol=1e-5, atol=1e-7)
    norms = [[record["train"]["client-update-norm"] for record in found.history] for found in (whole, two)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_convolutions_agree_too(tmp_path: Path, ray_session) -> None:
    """The network of the shipped experiments, with batch statistics, second order and a lasting Adam."""
    glyphs = {
        **SMALL,
        "data": {"name": "hershey", "writers": 2, "examples_per_writer": 2},
        "partition": {"name": "alphabet", "validation_clients": 0},
        "task": {"ways": 5, "shots": 1, "queries": 2},
        "model": {"name": "conv4", "filters": 4},
        "learner": {"name": "maml", "inner_lr": 0.4},
    }
    inline = simulate(glyphs, out=tmp_path / "inline", engine="inline", report=False)
    two = simulate(glyphs, out=tmp_path / "two", engine="ray", overrides={"engine.actors": 2}, report=False)
    assert inline.model_hash == two.model_hash and inline.results["last"] == two.results["last"]


def test_seeds_differ_and_zero_is_one_of_them(tmp_path: Path) -> None:
    zero = run(tmp_path, "zero", engine="inline", overrides={"seed": 0})
    again = run(tmp_path, "again", engine="inline", overrides={"seed": 0})
    one = run(tmp_path, "one", engine="inline", overrides={"seed": 1})
    assert zero.model_hash == again.model_hash != one.model_hash


def test_vmap_agrees_to_rounding(tmp_path: Path) -> None:
    loop = run(tmp_path, "loop", engine="inline")
    vmap = run(tmp_path, "vmap", engine="inline", overrides={"client.execution": "vmap"})
    assert torch.allclose(loop.vector, vmap.vector, atol=1e-5)


def test_resumed_after_an_exception_equals_uninterrupted(tmp_path: Path) -> None:
    whole = run(tmp_path, "whole", engine="inline")

    def stop_after_two(record) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "cut", engine="inline", observers=[stop_after_two])
    resumed = simulate(resume=tmp_path / "cut", engine="inline", report=False)
    assert resumed.model_hash == whole.model_hash
    assert [record["round"] for record in resumed.history] == [1, 2, 3, 4]
    assert resumed.results["last"] == whole.results["last"]
    assert resumed.results["best"] == whole.results["best"]


def test_resumed_after_kill_equals_uninterrupted(tmp_path: Path) -> None:
    long = json.dumps({**SMALL, "server": {**SMALL["server"], "rounds": 150}})
    whole = simulate(json.loads(long), out=tmp_path / "whole", engine="inline", report=False)
    call = f"simulate(json.loads({long!r}), out={str(tmp_path / 'cut')!r}, engine='inline')"
    code = f"from simulations import simulate; import json; {call}"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.getcwd()})
    checkpoint = tmp_path / "cut" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < RunDir.open(tmp_path / "cut").load("last").round < 150, "killed in the middle"
    resumed = simulate(resume=tmp_path / "cut", engine="inline", report=False)
    assert resumed.model_hash == whole.model_hash
    assert [record["round"] for record in resumed.history] == list(range(1, 151))


@pytest.mark.slow
def test_actors_killed_again_and_again_change_nothing(tmp_path: Path, ray_session) -> None:
    """A hundred rounds in which an actor is killed every fifth: the model of an undisturbed run, to the bit."""
    more = {"server.rounds": 100}
    whole = run(tmp_path, "whole", engine="inline", overrides=more)
    killed = []

    def kill(record) -> None:
        if record["round"] % 5 == 0:
            listed = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True).stdout
            actors = [int(line.split()[0]) for line in listed.splitlines() if "ray::Bootstrap" in line]
            killed.append(actors[record["round"] // 5 % len(actors)])
            os.kill(killed[-1], signal.SIGKILL)

    disturbed = run(tmp_path, "disturbed", engine="ray", overrides=more, observers=[kill])
    assert len(set(killed)) == 20 and disturbed.model_hash == whole.model_hash and not disturbed.failed_rounds
