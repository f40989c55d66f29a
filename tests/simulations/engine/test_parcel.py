"""What travels to another machine: code and experiment files, compressed, and nothing that may lie beside them."""

import io
import sys
import zipfile
from pathlib import Path

import pytest

from simulations.engine.parcel import _zipped


def test_keys_runs_and_environments_stay_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F18, for a user's own package."""
    package = tmp_path / "their_app"
    for name, content in {
        "__init__.py": "",
        "client.py": "x = 1\n" * 1000,
        "experiment.toml": "seed = 0",
        "keys/server.pem": "secret",
        "runs/a/ledger.jsonl": "{}",
        ".venv/lib/big.py": "x = 1",
        "env/pyvenv.cfg": "home = /usr",
        "env/lib/big.py": "x = 1",
        "__pycache__/client.pyc": "x",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = zipfile.ZipFile(io.BytesIO(_zipped(["their_app"])))
    assert sorted(found.namelist()) == [
        "their_app/__init__.py",
        "their_app/client.py",
        "their_app/experiment.toml",
    ]
    client = found.getinfo("their_app/client.py")
    assert client.compress_size < client.file_size / 10
    assert _zipped(["their_app"]) == _zipped(["their_app"]), "equal code is the same parcel"


def test_our_own_packages_travel_whole_and_libraries_not_at_all() -> None:
    names = zipfile.ZipFile(io.BytesIO(_zipped(["simulations", "numpy"]))).namelist()
    assert {"simulations/engine/worker.py", "simulations/configs/demo.toml"} <= set(names)
    assert all(name.startswith("simulations/") for name in names)
