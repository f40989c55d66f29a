"""A search on sine waves: a trial takes a tenth of a second."""

from typing import Any

import pytest


@pytest.fixture
def waves() -> dict[str, Any]:
    """An experiment, to be changed by a test."""
    return {
        "name": "waves",
        "data": {"name": "sinusoid"},
        "partition": {"name": "iid", "clients": 4, "validation_clients": 1, "test_clients": 1},
        "task": {"ways": 1, "shots": 3, "queries": 2},
        "model": {"name": "sinusoid", "hidden": [8]},
        "learner": {"name": "fomaml", "inner_lr": 0.01},
        "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
        "server": {"rounds": 4, "sampling": {"name": "fixed", "clients": 2}, "optimiser": {"name": "sgd", "lr": 0.1}},
        "evaluation": {"every": 2, "episodes": 1, "validation_episodes": 4, "pooled_episodes": 1},
    }
