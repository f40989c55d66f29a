"""Conditional stochastic rounding: the norm bound holds always, and the bias is what conditioning can make."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.privacy.distributed import rounding


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 200), log_norm=st.floats(-3, 30 * math.log10(2)), seed=st.integers(0, 10_000))
def test_the_norm_bound_always_holds(size, log_norm, seed):
    rng = np.random.default_rng(seed)
    norm = min(10.0**log_norm, rounding.LARGEST_NORM)
    direction = rng.normal(size=size) * (rng.random(size) < rng.random())
    length = np.linalg.norm(direction)
    values = direction * (norm / length) if length else direction
    found = rounding.within(values, norm, rng)
    assert found.dtype == np.int64 and np.abs(found - values).max() < 1
    squared = sum(int(value) ** 2 for value in found)
    assert squared <= rounding.bound(norm, size) ** 2
    assert squared <= (norm + math.sqrt(size)) ** 2 * (1 + 1e-12)


@pytest.mark.parametrize(("norm", "size"), [(0.3, 1), (1.0, 1), (5.0, 64), (1000.0, 64), (50.0, 10_000)])
def test_the_bound_is_the_specifications(norm, size):
    """In real units, at a scale s = norm / C with C = 1."""
    s, c, d, beta = norm, 1.0, size, math.exp(-0.5)
    conditional = c**2 + d / (4 * s**2) + math.sqrt(2 * math.log(1 / beta)) * (c + math.sqrt(d) / (2 * s)) / s
    assert (rounding.bound(norm, size) / s) ** 2 == pytest.approx(min((c + math.sqrt(d) / s) ** 2, conditional))


def test_a_try_fails_as_rarely_as_beta_says():
    """The worst vectors: one that is all halves. 2000 tries of a law of at most 0.607; fails with probability 1e-6."""
    rng, values = np.random.default_rng(0), np.full(64, 0.5)
    norm = float(np.linalg.norm(values))
    most = rounding.bound(norm, 64) ** 2
    failed = sum(int(np.dot(r, r)) > most for r in (rounding.randomly(values, rng) for _ in range(2000)))
    assert failed / 2000 <= rounding.BETA + 5 * math.sqrt(0.25 / 2000)


def test_rounding_is_unbiased_and_conditional_rounding_nearly():
    """20000 draws in each of 32 coordinates; a coordinate's mean errs by over 6 deviations with probability 2e-9."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=32) * 3
    norm, draws = float(np.linalg.norm(values)), 20_000
    noise = 6 * 0.5 / math.sqrt(draws)
    plain = np.mean([rounding.randomly(values, rng) for _ in range(draws)], axis=0)
    assert np.abs(plain - values).max() < noise
    conditional = np.mean([rounding.within(values, norm, rng) for _ in range(draws)], axis=0)
    bias = rounding.BETA / (1 - rounding.BETA) * math.sqrt(32)
    assert np.linalg.norm(conditional - values) < bias + noise * math.sqrt(32)
    assert np.abs(conditional - values).max() < 0.1  # and far below that bound: rejections are rare


def test_vectors_beyond_the_norm_are_refused():
    with pytest.raises(ValueError, match="within norm"):
        rounding.within(np.array([3.0, 4.0]), 4.9, np.random.default_rng(0))
    with pytest.raises(ValueError, match="2\\^30"):
        rounding.within(np.array([3.0, 4.0]), 2.0**31, np.random.default_rng(0))
    assert rounding.within(np.zeros(3), 0.0, np.random.default_rng(0)).tolist() == [0, 0, 0]
