"""A small grid on sine waves: a cell takes a tenth of a second."""

import copy
from pathlib import Path
from typing import Any

import pytest

from simulations.bench.report import BenchReport
from simulations.bench.run import bench

BASE: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 8, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {
        "rounds": 4,
        "sampling": {"name": "fixed", "clients": 6},
        "optimiser": {"name": "sgd", "lr": 0.5},
    },
    "attack": {"fraction": 0.25},
    "evaluation": {"every": 2, "episodes": 2, "validation_episodes": 2, "pooled_episodes": 4},
}

GRID: dict[str, Any] = {
    "name": "waves",
    "base": BASE,
    "seeds": [0, 7],
    "f": 1,
    "attacks": [{"method": {"name": "sign_flip", "scale": 5.0}, "knowledge": "omniscient"}],
    "defences": [{"aggregator": "median"}, {"aggregator": "multi_krum"}],
}


@pytest.fixture
def waves() -> dict[str, Any]:
    """The grid as a file would hold it, to be changed by a test."""
    return copy.deepcopy(GRID)


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BenchReport]:
    """The grid as it is, played to its end: its directory and its report."""
    place = tmp_path_factory.mktemp("waves")
    return place, bench(copy.deepcopy(GRID), place, engine="inline")
