"""Statistics over seeds against scipy, enumeration and examples by hand."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.paired import ENUMERATED, holm, least_p, seed_interval, wilcoxon

VALUES = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=9)


def test_an_interval_by_hand() -> None:
    """Three seeds: 27 resamples; 0 0 0 and 0 0 3 four times in all, so that 2.5 % of 27 lies at the first."""
    found = seed_interval([[0.0], [3.0], [6.0]], level=0.9)
    means = sorted(sum(draw) / 3 for draw in itertools.product([0.0, 3.0, 6.0], repeat=3))
    assert (found.mean, found.low, found.high, found.seeds) == (3.0, means[1], means[-2], 3)


def test_many_seeds_agree_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=12)
    ours = seed_interval([[value] for value in values], resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


@given(st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=3), min_size=1, max_size=4), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_more_episodes_of_the_same_seeds_are_no_more_seeds(clusters: list[list[float]], times: int) -> None:
    """What a bootstrap over single episodes would get wrong: it would take copies for new evidence."""
    once, often = seed_interval(clusters), seed_interval([cluster * times for cluster in clusters])
    assert (often.mean, often.low, often.high) == pytest.approx((once.mean, once.low, once.high))
    if len(clusters) == 1:
        assert once.low is once.high is None
        return
    assert once.low - 1e-12 <= once.mean <= once.high + 1e-12
    shuffled = seed_interval(clusters[::-1])
    assert len(clusters) <= ENUMERATED and (shuffled.low, shuffled.high) == pytest.approx((once.low, once.high))


@pytest.mark.parametrize(("seeds", "low", "high"), [(3, 0.70, 0.82), (10, 0.86, 0.93)])
def test_intervals_of_few_seeds_are_as_narrow_as_the_page_says(seeds: int, low: float, high: float) -> None:
    draws = np.random.default_rng(3).normal(size=(500, seeds))
    found = [seed_interval([[value] for value in draw], resamples=500) for draw in draws]
    assert low < np.mean([one.low <= 0 <= one.high for one in found]) < high


def test_seeds_of_unequal_size_weigh_by_their_episodes() -> None:
    assert seed_interval([[1.0, 1.0, 1.0], [0.0]]).mean == 0.75
    with pytest.raises(ValueError, match="every seed"):
        seed_interval([[1.0], []])


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_wilcoxon_is_the_share_of_sign_patterns(values: list[float]) -> None:
    """Ties and zeros included: all 2^n signs of the mid-ranks, listed."""
    kept = [value for value in values if value]
    ranks = scipy.stats.rankdata([abs(value) for value in kept])
    observed = sum(rank for rank, value in zip(ranks, kept, strict=True) if value > 0)
    total = ranks.sum()
    patterns = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up)
        for signs in itertools.product([0, 1], repeat=len(kept))
    ]
    tail = min(observed, total - observed)
    expected = min(1.0, 2 * sum(pattern <= tail + 1e-9 for pattern in patterns) / len(patterns))
    assert wilcoxon(values) == pytest.approx(expected)


@pytest.mark.parametrize("pairs", [5, 10, 30])
def test_wilcoxon_without_ties_is_scipys_exact_one(pairs: int) -> None:
    differences = np.random.default_rng(pairs).normal(0.4, 1.0, size=pairs)
    assert wilcoxon(differences) == pytest.approx(scipy.stats.wilcoxon(differences, method="exact").pvalue)


def test_the_least_p_is_reached_when_all_differences_have_one_sign() -> None:
    for pairs in range(1, 12):
        assert wilcoxon([float(i) for i in range(1, pairs + 1)]) == pytest.approx(least_p(pairs))
    assert wilcoxon([0.0, 0.0]) == 1.0


def test_holm_by_hand() -> None:
    """Holm 1979: 0.01 * 4; 0.01375 * 3 is below it, so that it stays; then 0.02 * 2, 0.3."""
    assert holm([0.02, 0.3, 0.01375, 0.01]) == pytest.approx([0.04125, 0.3, 0.04125, 0.04])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_as_the_step_down_procedure_does(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] * (len(p_values) - place) > alpha:
                break
            rejected.add(index)
        assert {index for index, p in enumerate(adjusted) if p <= alpha} == rejected
    assert all(math.isfinite(p) and p <= 1 for p in adjusted)
