"""Shared by all tests: quiet Flower and Ray, one torch thread, and one Ray for the whole session."""

import logging
import os
import signal

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")

from collections.abc import Iterator

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
# The same examples on every run, so that what fails for one fails for all; `HYPOTHESIS_PROFILE=explore` draws new ones.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("explore", derandomize=False)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
# Shells start background jobs with interrupts ignored, and what tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a command does to the library's log ends with its test: a later one reads what is printed."""
    log = logging.getLogger("fedmeta")
    handlers, level, propagate = list(log.handlers), log.level, log.propagate
    yield
    log.handlers, log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray with two CPUs; starting it takes seconds, so once."""
    import ray

    import simulations.engine.ray_grid  # noqa: F401  (sets what Ray reads when it is imported)

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
