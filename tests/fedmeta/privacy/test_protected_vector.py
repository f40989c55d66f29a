"""The vector under the mask: out of a sum comes what went in, weighted or not, and nothing beyond its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.errors import ConfigurationError, DataError
from fedmeta.privacy.protected_vector import METRIC_SLOTS, Layout
from fedmeta.privacy.secagg import FixedPoint


def total_of(layout: Layout, clients: list[tuple[np.ndarray, float, dict]]) -> np.ndarray:
    coder = FixedPoint(32, layout.bound, len(clients))
    rng = np.random.default_rng(0)
    vectors = [layout.pack(*client) for client in clients]
    assert all(np.abs(vector).max() <= layout.bound for vector in vectors)
    return coder.decode(sum(coder.encode(vector, rng) for vector in vectors), len(clients))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_means_weights_and_metrics_of_a_group(count: int, weighted: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout = Layout(size=7, bound=2.0, metric_bound=50.0, weight_bound=30, weighted=weighted)
    updates, weights = rng.uniform(-2, 2, (count, 7)), rng.integers(1, 31, count)
    losses, scores = rng.uniform(-50, 50, count), rng.uniform(0, 1, count)
    clients = [
        (updates[i], float(weights[i]), {"loss": losses[i], "accuracy": scores[i] if i else np.nan})
        for i in range(count)
    ]
    found = layout.unpack(total_of(layout, clients), count, ["accuracy", "loss"])
    by = weights if weighted else np.ones(count)
    assert np.allclose(found.update, np.average(updates, axis=0, weights=by), atol=1e-5)
    assert found.weight == pytest.approx(weights.sum(), abs=1e-4) and found.clipped == 0
    assert found.metrics["loss"] == pytest.approx(np.average(losses, weights=by), abs=1e-4)
    if count == 1:
        assert "accuracy" not in found.metrics, "nobody could tell"
    else:
        assert found.metrics["accuracy"] == pytest.approx(np.average(scores[1:], weights=by[1:]), abs=1e-4)


def test_what_exceeds_a_bound_is_cut_and_told() -> None:
    """Case: three clients send [.5, 1, 2, 4, 16, -1000]; within 2000 the mean is exact, within 8 a third is cut."""
    sent = np.array([0.5, 1.0, 2.0, 4.0, 16.0, -1000.0])
    for bound, cut in ((2000.0, 0.0), (8.0, 2 / 6)):
        layout = Layout(6, bound, 100.0, 1.0)
        found = layout.unpack(total_of(layout, [(sent, 1.0, {"loss": np.inf})] * 3), 3, ["loss"])
        assert np.allclose(found.update, np.clip(sent, -bound, bound), atol=1e-5 * bound)
        assert found.clipped == pytest.approx(cut, abs=1e-6) and found.metrics["loss"] == pytest.approx(100)


def test_weights_that_are_all_zero_have_no_mean() -> None:
    layout = Layout(2, 1.0, 1.0, 5.0, weighted=True)
    zero, one = (np.ones(2), 0.0, {}), (np.array([0.5, -0.5]), 3.0, {})
    with pytest.raises(DataError, match="all clients of the group are zero"):
        layout.unpack(total_of(layout, [zero, zero]), 2, [])
    assert np.allclose(layout.unpack(total_of(layout, [zero, one]), 2, []).update, [0.5, -0.5], atol=1e-6)
    unweighted = Layout(2, 1.0, 1.0, 5.0)
    assert np.allclose(unweighted.unpack(total_of(unweighted, [zero, one]), 2, []).update, [0.75, 0.25], atol=1e-6)


@pytest.mark.parametrize(("lie", "fits"), [(-0.5, True), (1.0, True), (1.5, False), (1e6, False), (-2.5, False)])
def test_a_member_cannot_make_its_group_weigh_more_than_all_can(lie: float, fits: bool) -> None:
    """Two honest clients of the largest weight; the third one's weight is what it likes, in largest weights."""
    layout = Layout(2, 1.0, 1.0, 5.0, weighted=True)
    total = sum(layout.pack(np.ones(2), 5.0, {}).astype(float) for _ in range(2))
    total[-2] += lie
    if fits:
        assert layout.unpack(total, 3, []).weight == pytest.approx(5 * (2 + lie))
    else:
        with pytest.raises(DataError, match=r"add up to .* no honest client"):
            layout.unpack(total, 3, [])


def test_what_cannot_be_laid_out_is_refused() -> None:
    layout = Layout(2, 1.0, 1.0, 5.0)
    with pytest.raises(ConfigurationError, match=r"secagg\.weight_bound = 5: raise") as refused:
        layout.pack(np.ones(2), 4321.0, {})
    assert "4321" not in str(refused.value), "a refusal goes to the server, and the weight is the client's own"
    with pytest.raises(DataError, match="NaN or infinite"):
        layout.pack(np.array([0.0, np.nan]), 1.0, {})
    with pytest.raises(ConfigurationError, match=f"at most {METRIC_SLOTS}"):
        layout.pack(np.ones(2), 1.0, {str(i): 0.0 for i in range(METRIC_SLOTS + 1)})
