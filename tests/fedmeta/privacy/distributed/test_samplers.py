"""Skellam and discrete Gaussian samplers against scipy's laws and the exact sampler, at stated levels."""

import random
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from fedmeta.privacy.distributed import discrete_gaussian, skellam
from fedmeta.privacy.distributed.draws import system_words, uniforms, words_of

LEVEL = 1e-6
"""Probability with which each test here would fail a true sampler. Most seeds are fixed: they do so always or never."""


def words(seed=0):
    return words_of(np.random.default_rng(seed))


def chi_squared(draws, law, k):
    """The p-value of integer draws against a law on consecutive integers k, tails gathered in the outer two cells."""
    expected = law * len(draws)
    inner = np.flatnonzero(expected >= 10)
    low, high = k[inner[0]], k[inner[-1]]
    clipped = np.clip(draws, low, high)
    seen = np.bincount(clipped - low, minlength=high - low + 1)
    due = expected[inner[0] : inner[-1] + 1].copy()
    due[0] += expected[: inner[0]].sum()
    due[-1] += expected[inner[-1] + 1 :].sum()
    return stats.chisquare(seen, due * (seen.sum() / due.sum())).pvalue


def gaussian_law(deviation, k):
    weights = np.exp(-(k.astype(float) ** 2) / (2 * deviation**2))
    return weights / weights.sum()


@pytest.mark.parametrize("deviation", [0.3, 1.0, 12.5, 39.9, 40.1, 300.0])
def test_skellam_follows_scipys_law(deviation):
    """Both samplers: a table up to 40, Poisson draws above."""
    draws = skellam.sample(200_000, deviation, words())
    k = np.arange(-int(12 * deviation) - 30, int(12 * deviation) + 31)
    law = stats.skellam.pmf(k, deviation**2 / 2, deviation**2 / 2)
    assert chi_squared(draws, law, k) > LEVEL


@pytest.mark.parametrize("mean", [800.0, 5e4])
def test_poisson_follows_scipys_law(mean):
    draws = skellam.poisson(300_000, mean, words(1))
    k = np.arange(int(mean - 12 * mean**0.5), int(mean + 12 * mean**0.5))
    assert chi_squared(draws, stats.poisson.pmf(k, mean), k) > LEVEL


@pytest.mark.parametrize("deviation", [2.0**12, 2.0**18, skellam.LARGEST_DEVIATION])
def test_wide_skellam_is_normal_to_the_eye(deviation):
    """Its excess kurtosis is 1 / variance: of 4e5 draws no Kolmogorov-Smirnov test tells it from a Gaussian."""
    draws = skellam.sample(400_000, deviation, words(2))
    assert (
        stats.kstest(draws + np.random.default_rng(0).random(len(draws)) - 0.5, "norm", (0, deviation)).pvalue > LEVEL
    )
    # Sample moments of a normal: standard errors sqrt(2 / n), sqrt(24 / n); 5 of them leave 6e-7.
    assert draws.var() / deviation**2 == pytest.approx(1, abs=5 * (2 / len(draws)) ** 0.5)
    assert stats.kurtosis(draws) == pytest.approx(0, abs=5 * (24 / len(draws)) ** 0.5)
    assert draws.mean() / deviation == pytest.approx(0, abs=5 / len(draws) ** 0.5)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 2.0, 7.3, 100.0])
def test_discrete_gaussian_follows_its_law(deviation):
    draws = discrete_gaussian.sample(200_000, deviation, words(3))
    k = np.arange(-int(12 * deviation) - 10, int(12 * deviation) + 11)
    assert chi_squared(draws, gaussian_law(deviation, k), k) > LEVEL


@pytest.mark.parametrize("variance", [Fraction(1, 5), Fraction(4), Fraction(53, 7)])
def test_the_exact_sampler_follows_the_law(variance):
    source = random.Random(4)
    draws = np.array([discrete_gaussian.sample_exactly(variance, source.randrange) for _ in range(10_000)])
    k = np.arange(-40, 41)
    assert chi_squared(draws, gaussian_law(float(variance) ** 0.5, k), k) > LEVEL


def test_both_samplers_of_discrete_gaussians_agree():
    exact = [discrete_gaussian.sample_exactly(Fraction(25)) for _ in range(4000)]
    table = [
        np.bincount(np.clip(d, -12, 12) + 12, minlength=25)
        for d in (exact, discrete_gaussian.sample(4000, 5.0, words(5)))
    ]
    assert stats.chi2_contingency(table).pvalue > LEVEL


def test_exact_coins_have_the_probability_of_an_exponential():
    """P = exp(-rate), rates below and above 1; 20000 coins, 5 deviations."""
    source = random.Random(6)
    for rate in (Fraction(0), Fraction(1, 3), Fraction(7, 3)):
        heads = sum(discrete_gaussian._exponential_coin(rate, source.randrange) for _ in range(20_000))
        share = np.exp(-float(rate))
        assert heads / 20_000 == pytest.approx(share, abs=5 * (share * (1 - share) / 20_000) ** 0.5 + 1e-12)


def test_sums_of_skellam_shares_are_skellam():
    """What makes it the default: dropouts change the variance and nothing else."""
    draws = sum(skellam.sample(100_000, 2.0, words(seed)) for seed in range(7))
    k = np.arange(-90, 91)
    assert chi_squared(draws, stats.skellam.pmf(k, 14.0, 14.0), k) > LEVEL


def test_words_of_a_seed_repeat_and_those_of_the_system_do_not():
    np.testing.assert_array_equal(skellam.sample(9, 50.0, words(7)), skellam.sample(9, 50.0, words(7)))
    assert not np.array_equal(system_words(4), system_words(4))
    assert uniforms(lambda n: np.full(n, 2**64 - 1, dtype=np.uint64), 1)[0] < 1
    assert uniforms(lambda n: np.zeros(n, dtype=np.uint64), 1)[0] > 0


def test_zero_noise_is_none_and_absurd_noise_is_refused():
    for module in (skellam, discrete_gaussian):
        assert module.sample(3, 0.0, words()).tolist() == [0, 0, 0]
        assert len(module.sample(0, 1.0, words())) == 0
        for deviation in (-1.0, 1e15, float("nan")):
            with pytest.raises(ValueError, match="deviation"):
                module.sample(3, deviation, words())
    with pytest.raises(ValueError, match="variance"):
        discrete_gaussian.sample_exactly(Fraction(0))
