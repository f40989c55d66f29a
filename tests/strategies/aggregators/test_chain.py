"""Distances, pre-aggregators, and chains of them before a rule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from fedmeta.errors import ConfigurationError
from strategies import PREAGGREGATORS, distances, make_aggregator, make_preaggregator
from strategies.aggregation import Aggregate, NotEnoughUpdates, RoundContext
from strategies.distances import squared_distances
from strategies.pipeline import Pipeline
from strategies.rows import Rows

ALL = {"nnm": {"f": 3}, "bucketing": {"s": 2}, "arc": {"f": 3}, "clipping": {"clip_norm": 5.0}}


def draw(n: int = 12, size: int = 50, seed: int = 0) -> torch.Tensor:
    updates = torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1
    updates[n - 3 :] *= 8
    return updates


# --- distances


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_against_scipy(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CHUNK", 900)  # several chunks, and a last one that is smaller
    updates = draw(40, 701).to(dtype)
    assert np.allclose(squared_distances(updates), cdist(updates, updates, "sqeuclidean"), rtol=1e-12)


@pytest.mark.parametrize("far", [1e3, 1e9, 1e15])
def test_distances_keep_their_digits_beside_far_rows(far: float) -> None:
    """A Gram matrix around the mean would lose all digits of the honest rows' distances, or give negative ones."""
    updates = draw(12, 300)
    updates[9:] = far + 0.5 * torch.randn(3, 300, dtype=torch.float64)
    updates[0] = updates[11]
    found = squared_distances(updates)
    exact = cdist(updates, updates, "sqeuclidean")
    assert np.allclose(found, exact, rtol=1e-9)
    assert found[0, 11] == 0 and torch.equal(found[0, 1:11], found[11, 1:11])


def test_small_float32_deltas_have_true_distances() -> None:
    """Deltas of 1e-5 on a large common part, where float32 Gram matrices give negative distances."""
    draws = torch.Generator().manual_seed(0)
    updates = (1.0 + 1e-5 * torch.randn(10, 20_000, generator=draws)).float()
    assert np.allclose(squared_distances(updates), cdist(updates, updates, "sqeuclidean"), rtol=1e-9)


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e20, 1e37])
def test_norms_whose_squares_float32_does_not_hold(size: float) -> None:
    updates = (size * torch.randn(5, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).float()
    updates[2] = torch.ones(30)
    exact = np.linalg.norm(updates.numpy().astype(np.float64), axis=1)
    assert np.allclose(Rows(updates).norms, exact, rtol=1e-6, atol=0.0)


def test_groups_within_groups() -> None:
    """Clusters at 1e6 that are themselves made of tight clusters."""
    base = torch.tensor([[0.0], [1e6], [1e6 + 1e-3], [1e6 + 1e-3 + 1e-7], [-1e6], [-1e6]], dtype=torch.float64)
    assert np.allclose(squared_distances(base), cdist(base, base, "sqeuclidean"), rtol=1e-6)


def test_distances_once_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = distances.gram
    monkeypatch.setattr(distances, "gram", lambda *a: (calls.append(1), original(*a))[1])
    chain = Pipeline.make([("clipping", {"clip_norm": 100.0}), ("nnm", {"f": 2})], ("multi_krum", {"f": 2}))
    chain(draw())
    assert len(calls) == 1


# --- pre-aggregators


def test_nnm() -> None:
    updates = draw()
    squared = cdist(updates, updates, "sqeuclidean")
    expected = np.stack([updates.numpy()[np.argsort(row, kind="stable")[:9]].mean(0) for row in squared])
    assert np.allclose(make_preaggregator("nnm", f=3)(updates), expected)
    assert np.allclose(make_preaggregator("nnm", f=0)(updates), updates.mean(0).expand(12, -1))


def test_nnm_counts_a_row_first_among_its_twins() -> None:
    updates = torch.tensor([[0.0], [0.0], [0.0], [5.0], [7.0]])
    assert make_preaggregator("nnm", f=2)(updates).flatten().tolist() == [0.0, 0.0, 0.0, 4.0, 4.0]


def test_bucketing() -> None:
    updates = draw(11)
    context = RoundContext(generator=torch.Generator().manual_seed(4))
    order = np.random.default_rng(
        int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(4)))
    ).permutation(11)
    expected = [updates.numpy()[order[k : k + 3]].mean(0) for k in range(0, 11, 3)]
    found = make_preaggregator("bucketing", s=3)(updates, context)
    assert found.shape == (4, 50) and np.allclose(found, np.stack(expected))


@given(st.integers(1, 50), st.integers(0, 24))
def test_bucketing_by_f_leaves_enough_buckets(n: int, f: int) -> None:
    rule = make_preaggregator("bucketing", f=f)
    if n <= 2 * f:
        with pytest.raises(NotEnoughUpdates):
            rule.check_rows(n)
        return
    rule.check_rows(n)
    assert rule.rows_after(n) > 2 * f
    if f:
        assert rule.bucket_size(n) == max(1, int(np.ceil(n / (2 * f))) - 1)


def test_bucketing_needs_a_size() -> None:
    with pytest.raises(ConfigurationError, match="bucketing needs s"):
        make_preaggregator("bucketing")
    with pytest.raises(NotEnoughUpdates, match=r"bucketing\.f = 2 with n = 11 .*ceil\(n / s\) > 2 f"):
        make_preaggregator("bucketing", s=3, f=2)(draw(11))


@given(st.integers(1, 12), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_arc_and_clipping(n: int, f: int) -> None:
    updates = draw(12)[12 - n :].numpy()
    norms = np.linalg.norm(updates, axis=1)
    assert np.allclose(
        make_preaggregator("clipping", clip_norm=9.0)(updates), updates * np.minimum(1, 9.0 / norms)[:, None]
    )
    if n <= 2 * f:
        return
    clipped = int(np.floor(2 * f * (n - f) / n))
    bound = np.sort(norms)[n - clipped - 1]
    found = make_preaggregator("arc", f=f)(updates)
    assert np.allclose(found, updates * np.minimum(1, bound / norms)[:, None])
    assert int((np.linalg.norm(found, axis=1) < norms * (1 - 1e-9)).sum()) == clipped


@pytest.mark.parametrize("name", sorted(PREAGGREGATORS.entries()))
def test_preaggregators_keep_their_input_and_leave_bad_rows_out(name: str) -> None:
    rule = make_preaggregator(name, **ALL[name])
    for updates in (draw(), draw().float()):
        before = updates.clone()
        found = rule(updates)
        assert torch.equal(updates, before) and found.dtype == updates.dtype
        found += 1.0
        assert torch.equal(updates, before), "the result is the caller's own"
    spoilt = torch.cat([draw()[:5], torch.full((1, 50), torch.nan, dtype=torch.float64), draw()[5:]])
    assert torch.equal(rule(spoilt), rule(draw()))
    assert not rule(torch.zeros(12, 4)).any()


# --- chains


def test_weights_scores_and_flags_speak_of_clients() -> None:
    updates = draw(12)
    chain = Pipeline.make([("nnm", {"f": 3})], ("multi_krum", {"f": 3}))
    found = chain(updates)
    inner = make_aggregator("multi_krum", f=3)(make_preaggregator("nnm", f=3)(updates))
    assert torch.allclose(found.vector, inner.vector)
    assert torch.allclose(found.scores, inner.scores) and torch.equal(found.flagged, inner.flagged)
    assert torch.allclose(found.weights @ updates, found.vector) and found.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("chain", [["bucketing"], ["nnm", "bucketing"], ["nnm", "arc", "bucketing", "clipping"]])
def test_chains_equal_their_parts_one_after_the_other(chain: list[str]) -> None:
    updates, generator = draw(12), torch.Generator().manual_seed(1)
    found = Pipeline.make([(name, ALL[name]) for name in chain], ("krum", {"f": 1}))(
        updates, RoundContext(generator=generator)
    )
    generator.manual_seed(1)
    rows = updates
    for name in chain:
        rows = make_preaggregator(name, **ALL[name])(rows, RoundContext(generator=generator))
    inner = make_aggregator("krum", f=1)(rows)
    assert torch.allclose(found.vector, inner.vector)
    assert torch.allclose(found.weights @ updates, inner.vector)
    assert len(found.scores) == 12 and len(set(found.scores.tolist())) <= len(rows)


def test_a_client_has_the_score_and_the_flag_of_its_own_bucket() -> None:
    """Which bucket that is, the bucket's mean tells."""
    updates = draw(12)
    chain = Pipeline.make([("bucketing", {"s": 2})], ("multi_krum", {"f": 1}))
    found = chain(updates, RoundContext(generator=torch.Generator().manual_seed(7)))
    buckets = make_preaggregator("bucketing", s=2)(updates, RoundContext(generator=torch.Generator().manual_seed(7)))
    inner = make_aggregator("multi_krum", f=1)(buckets)
    for client in range(12):
        partners = [mate for mate in range(12) if mate != client]
        (own,) = {
            bucket
            for bucket in range(6)
            for mate in partners
            if torch.allclose(buckets[bucket], (updates[client] + updates[mate]) / 2)
        }
        assert found.scores[client] == pytest.approx(float(inner.scores[own]))
        assert bool(found.flagged[client]) == bool(inner.flagged[own])


def test_derived_distances_equal_those_of_the_mixtures() -> None:
    rows = Rows(draw(20))
    assert rows.squared_distances.shape == (20, 20)
    for name, parameters in ALL.items():
        rule = make_preaggregator(name, **parameters)
        mixed = rows.mixed(rule.mixing(rows, RoundContext()))
        assert "squared_distances" in mixed.__dict__
        expected = cdist(mixed.matrix, mixed.matrix, "sqeuclidean")
        assert np.allclose(mixed.squared_distances, expected, atol=1e-9 * expected.max())


def test_derived_distances_between_equal_mixtures_are_zero() -> None:
    """Beside a row at 1e9, all others have the same neighbours."""
    updates = torch.cat([draw(9), torch.full((1, 50), 1e9, dtype=torch.float64)])
    rows = Rows(updates)
    mixed = rows.mixed(make_preaggregator("nnm", f=1).mixing(rows, RoundContext()))
    assert (mixed.squared_distances[:9, :9] == 0).all()


@pytest.mark.parametrize("shorten", [("arc", {"f": 2}), ("clipping", {"clip_norm": 1.0})])
@pytest.mark.parametrize("far", [1e6, 1e12, 1e30])
def test_distances_of_rows_clipped_from_far_away_keep_their_digits(shorten, far: float) -> None:
    """Derived from what they were, they would be zero, and Krum would pick the attackers, whose rows come first."""
    updates = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    updates[:2] *= far
    rows = Rows(updates)
    assert rows.squared_distances.shape == (10, 10)
    for name, parameters in (("nnm", {"f": 2}), shorten):
        rows = rows.mixed(make_preaggregator(name, **parameters).mixing(rows, RoundContext()))
    exact = cdist(rows.matrix, rows.matrix, "sqeuclidean")
    assert np.allclose(rows.squared_distances, exact, rtol=1e-6, atol=1e-9 * exact.max())


def test_buckets_weigh_what_their_clients_do() -> None:
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    chain = Pipeline.make([("bucketing", {"s": 2})], ("mean", {}))
    found = chain(draw(6), RoundContext(weights=weights, generator=torch.Generator().manual_seed(0)))
    assert found.weights.sum() == pytest.approx(1)
    partner = {i: [j for j in range(6) if j != i and found.weights[i] == found.weights[j]] for i in range(6)}
    for i, (j,) in partner.items():
        assert found.weights[i] == pytest.approx(float(weights[i] + weights[j]) / 2 / 21)


def test_chains_without_attackers_are_the_mean() -> None:
    chain = Pipeline.make([("nnm", {"f": 0}), ("arc", {"f": 0})], ("krum", {"f": 0}))
    assert torch.allclose(chain(draw()).vector, draw().mean(0))


def test_non_finite_rows_are_left_out_of_a_chain() -> None:
    updates = draw(12)
    updates[4, 0] = torch.nan
    chain = Pipeline.make([("nnm", {"f": 2})], ("multi_krum", {"f": 2}))
    found = chain(updates, RoundContext(clients=tuple(range(12))))
    alone = chain(updates[[i for i in range(12) if i != 4]])
    assert torch.equal(found.vector, alone.vector) and found.flagged[4] and found.weights[4] == 0


def test_too_few_buckets_are_refused_with_the_reason() -> None:
    chain = Pipeline.make([("bucketing", {"s": 3})], ("krum", {"f": 2}))
    with pytest.raises(NotEnoughUpdates, match=r"krum\.f = 2 with n = 4 .*f to at most 0.*bucketing leaves 4 of 12"):
        chain.check_rows(12)
    with pytest.raises(NotEnoughUpdates):
        chain(draw(12))
    chain.check_rows(19)


@pytest.mark.parametrize("name", ["foolsgold", "fldetector"])
@pytest.mark.parametrize("buckets", [{"s": 2}, {"s": 1}, {"f": 0}, {"f": 20}])
def test_histories_behind_buckets_are_refused(name: str, buckets: dict[str, int]) -> None:
    """Also behind buckets of one row, whose order is drawn anew in every round."""
    with pytest.raises(ConfigurationError, match=f"{name}' follows every client .*'bucketing'"):
        Pipeline.make([("nnm", {"f": 2}), ("bucketing", buckets)], (name, {}))


@pytest.mark.parametrize("name", sorted(set(PREAGGREGATORS.entries()) - {"bucketing"}))
def test_histories_follow_clients_behind_the_others(name: str) -> None:
    chain = Pipeline.make([(name, ALL[name])], ("foolsgold", {}))
    found = chain(draw(12), RoundContext(clients=tuple(range(50, 62))))
    assert set(found.state) == {f"history/{client}" for client in range(50, 62)}


def test_a_plain_function_works_behind_a_chain() -> None:
    """A plug-in need not be a Rule."""

    def first(updates: torch.Tensor, context: RoundContext = RoundContext()) -> Aggregate:
        return Aggregate(updates[0])

    chain = Pipeline((make_preaggregator("nnm", f=0),), first)
    assert torch.allclose(chain(draw()).vector, draw().mean(0))
