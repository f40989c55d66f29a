"""The benchmark of secure aggregation measures two protocols that really ran."""

import numpy as np
from flwr.common import bytes_to_ndarray

from fedmeta.privacy.secagg import choose_plan
from simulations.benchmarks.flower_secagg import FlowerClient
from simulations.benchmarks.secure_aggregation import measure, shape, show, vectors, whole_group


def test_a_shape_is_measured_on_both_sides():
    row = measure(10, 2000, limit=1e9)
    assert 2000 * 4 < row["up"] < row["flower_up"] / 2
    assert 0 < row["down"] < row["flower_down"]
    assert all(row[key] > 0 for key in ("client_ms", "flower_client_ms", "server_s", "flower_server_s"))
    assert show([row]).row_count == 1
    unmeasured = measure(10, 2000, limit=1)
    assert "flower_server_s" not in unmeasured and unmeasured["server_s"] > 0
    assert (unmeasured["up"], unmeasured["down"]) == (row["up"], row["down"])


def test_flowers_client_went_through_its_four_stages():
    client = FlowerClient(choose_plan(5), vectors(1, 100)[1]).run()
    ratio, masked = (bytes_to_ndarray(data) for data in client.masked)
    assert ratio.shape == (1,) and masked.shape == (100,) and masked.dtype == np.int64
    assert client.context.state.config_records["secaggplus_state"]["current_stage"] == "unmask"


def test_a_whole_group_is_checked_against_its_sum():
    found = whole_group(10, 300)
    assert found["exact"] and found["survivors"] == 9 and found["relative_error"] < 1e-6


def test_shapes_are_read():
    assert shape("100x1e6") == (100, 1_000_000)
