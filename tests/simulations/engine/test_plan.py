"""How many actors fit: by the device, not by the sum."""

import pytest

from fedmeta.errors import ConfigurationError
from simulations.engine.plan import Machine, make_plan


@pytest.mark.parametrize(
    ("share", "actors", "idle"), [(0.6, 2, True), (0.4, 4, True), (0.5, 4, False), (1.0, 2, False), (2.0, 1, False)]
)
def test_a_gpu_share_that_does_not_tile(share: float, actors: int, idle: bool) -> None:
    """F07: 0.6 on two GPUs gives 2 actors, 0.4 gives 4 and not 5; the idle share is named with what would tile."""
    plan = make_plan([Machine(16, 2)], cpus_per_client=1, gpus_per_client=share, clients=10)
    assert plan.actors == actors and bool(plan.idle) == idle
    if share == 0.6:
        assert "use 0.5 or 1" in plan.describe()


def test_cpus_clients_and_the_users_wish_bound_the_pool() -> None:
    machines = [Machine(4, 0), Machine(3, 0)]
    assert make_plan(machines, cpus_per_client=2, gpus_per_client=0, clients=10).actors == 3
    assert make_plan(machines, cpus_per_client=0.5, gpus_per_client=0, clients=100).actors == 14
    assert make_plan(machines, cpus_per_client=1, gpus_per_client=0, clients=2).actors == 2
    assert make_plan(machines, cpus_per_client=1, gpus_per_client=0, clients=10, actors=1).actors == 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="largest machine has 2 CPUs and 0 GPUs"):
        make_plan([Machine(2, 0)], cpus_per_client=4, gpus_per_client=0, clients=1)
    with pytest.raises(ConfigurationError, match="whole number"):
        make_plan([Machine(2, 4)], cpus_per_client=1, gpus_per_client=1.5, clients=1)


@pytest.mark.parametrize(
    "wish",
    [
        {"cpus_per_client": 0},
        {"cpus_per_client": -1},
        {"cpus_per_client": float("nan")},
        {"gpus_per_client": -0.5},
        {"actors": 0},
    ],
)
def test_shares_and_counts_out_of_bounds_are_refused(wish: dict[str, float]) -> None:
    """F16: zero is a value, never "not given"."""
    with pytest.raises(ConfigurationError, match=f"engine.{next(iter(wish))} = "):
        make_plan([Machine(2, 1)], **{"cpus_per_client": 1, "gpus_per_client": 0, "clients": 4, **wish})
