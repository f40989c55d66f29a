"""What a finished cell's numbers depend on beside its configuration: our code and the versions that compute."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version

from fedmeta.code_hash import source_hash
from fedmeta.experiment import Experiment

SOURCES = (
    "fedmeta/**/*.py",
    "clients/**/*.py",
    "strategies/**/*.py",
    "server/*.py",
    "simulations/engine/*.py",
    "simulations/adversarial_grid.py",
    "simulations/omniscient_attack.py",
    "simulations/train_reply.py",
    "simulations/launch.py",
    "simulations/bench/cell_run.py",
    "simulations/bench/robust.py",
    "simulations/detect.py",
)
"""Files that a number can come from. Reports, tables and the command are not among them: they may change between."""

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "flwr")


def fingerprint() -> str:
    """SHA-256 of our sources and of the versions of the packages that compute, in hexadecimal."""
    return hashlib.sha256(json.dumps([source_hash(SOURCES), *map(_version, PACKAGES)]).encode()).hexdigest()


def cell_key(experiment: Experiment, clean: str | None, code: str) -> str:
    """The name of a cell: what it was computed from, and nothing else.

    Args:
        experiment: resolved. Its hash leaves out the name, tracking, where data lie, and of the engine all that
            results do not depend on.
        clean: key of the twin that gives the lift; None where nothing is measured against one.
        code: a `fingerprint`.
    """
    return hashlib.sha256(json.dumps([experiment.hash, clean, code]).encode()).hexdigest()[:20]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
