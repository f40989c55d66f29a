"""A disk that is really full, as a tmpfs of a mount namespace that ends with its process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 2, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"execution": "loop"},
    "server": {"rounds": 3, "sampling": {"name": "fixed", "clients": 1}},
    "evaluation": {"episodes": 1, "pooled_episodes": 1},
}

PROGRAM = """
import errno, json, os, sys
from pathlib import Path
from fedmeta.errors import FedmetaError
from server.configuration import load
from server.rundir import RunDir
from simulations import simulate

raw, small, whole = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
filler, found = small / "filler", {}

def fill(record):
    if record["round"] != 2:
        return
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            found["full"] = error.errno == errno.ENOSPC

try:
    simulate(raw, engine="inline", out=small / "run", observers=[fill])
except FedmetaError as error:
    found["said"] = str(error)
try:
    RunDir.create(small / "other", load(raw))
except FedmetaError as error:
    found["refused"] = str(error)
with_checkpoint = RunDir.open(small / "run", exclusive=False)
found["round"] = with_checkpoint.load("last").round
found["rounds"] = [record["round"] for record in with_checkpoint.metrics()]
found["left"] = [path.name for path in (small / "run" / "checkpoints").iterdir()]
filler.unlink()
found["resumed"] = simulate(resume=small / "run", engine="inline").model_hash
found["whole"] = simulate(raw, engine="inline", out=whole).model_hash
print(json.dumps(found))
"""


def test_a_full_disk_ends_the_run_by_name_and_harms_no_checkpoint(tmp_path: Path) -> None:
    """Full within a run: what was written stands, and with room again the run goes on to the undisturbed numbers."""
    small = tmp_path / "small"
    small.mkdir()
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size=2m tmpfs '{small}'"
    try:
        subprocess.run([*own, "sh", "-c", mount], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system of one's own is not permitted here: {getattr(error, 'stderr', '') or error}")
    words = [sys.executable, "-c", PROGRAM, json.dumps(RAW), str(small), str(tmp_path / "whole")]
    done = subprocess.run(
        [*own, "sh", "-c", f'{mount} && exec "$@"', "sh", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["full"], "the disk was to be full"
    assert found["said"].startswith(f"cannot write '{small}/run/") and "No space left on device" in found["said"]
    assert f"cannot write the run directory '{small}/other': No space left on device" in found["refused"]
    assert found["round"] == 2 and found["rounds"][:2] == [1, 2] and found["left"] == ["last.safetensors"]
    assert found["resumed"] == found["whole"]
