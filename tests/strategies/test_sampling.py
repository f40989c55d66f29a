"""Client sampling: sizes, rates, and seeds."""

import numpy as np
import pytest
from scipy import stats

from fedmeta.errors import ConfigurationError
from fedmeta.privacy import NoAmplification, TruncatedPoisson, WithoutReplacement, schemes
from fedmeta.seeding import SERVER, numpy_generator
from strategies.sampling import CappedPoisson, FixedSize, Poisson


def test_fixed_size_draws_distinct_clients_of_the_population() -> None:
    population = [3, 5, 8, 13, 21]
    drawn = FixedSize(clients=3).draw(population, np.random.default_rng(0))
    assert drawn == sorted(set(drawn)) and len(drawn) == 3 and set(drawn) <= set(population)


def test_every_client_is_as_likely() -> None:
    counts = np.zeros(6)
    for round in range(2000):
        for client in FixedSize(clients=2).draw(range(6), numpy_generator(0, round, SERVER, "sampling")):
            counts[client] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_poisson_has_binomial_sizes_and_empty_rounds() -> None:
    sizes = [len(Poisson(rate=0.02).draw(range(20), numpy_generator(0, r, SERVER, "sampling"))) for r in range(3000)]
    assert np.mean(np.array(sizes) == 0) == pytest.approx(0.98**20, abs=0.03)
    assert np.mean(sizes) == pytest.approx(0.4, abs=0.05)


def test_poisson_draws_at_the_rate_that_is_accounted() -> None:
    drawn = len(Poisson(rate=0.1).draw(range(400_000), np.random.default_rng(0)))
    assert drawn == pytest.approx(40_000, abs=4 * (400_000 * 0.1 * 0.9) ** 0.5)


def test_too_few_clients_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"clients = 4 but there are 3.*at most 3"):
        FixedSize(clients=4).check(3)
    with pytest.raises(ConfigurationError, match="no training clients"):
        Poisson(rate=0.5).check(0)


def test_capped_draws_are_poisson_below_the_cap_and_uniform_above_it():
    capped, rng = CappedPoisson(rate=0.5, cap=4), np.random.default_rng(0)
    draws = [capped.draw(range(10), rng) for _ in range(3000)]
    assert max(map(len, draws)) == 4 and min(map(len, draws)) < 3 and all(draw == sorted(set(draw)) for draw in draws)
    often = np.bincount([client for draw in draws for client in draw], minlength=10) / 3000
    assert np.ptp(often) < 0.06


@pytest.mark.parametrize(
    ("sampler", "scheme", "marginal", "expected"),
    [
        (FixedSize(clients=3), WithoutReplacement(12, 3), 0.25, 3.0),
        (FixedSize(clients=12), NoAmplification(), 1.0, 12.0),
        (Poisson(rate=0.25), schemes.Poisson(0.25), 0.25, 3.0),
        (CappedPoisson(rate=0.5, cap=4), TruncatedPoisson(12, 0.5, 4), 0.5, 4.0),
    ],
)
def test_what_the_accountant_is_told_is_what_is_drawn(sampler, scheme, marginal, expected):
    assert sampler.scheme(12) == scheme and sampler.expected(12) == expected
    rng = np.random.default_rng(1)
    often = np.bincount([c for _ in range(4000) for c in sampler.draw(range(12), rng)], minlength=12) / 4000
    assert (often <= sampler.marginal(12) + 0.03).all() and sampler.marginal(12) == marginal
    if not isinstance(sampler, CappedPoisson):
        assert (often >= marginal - 0.03).all()
