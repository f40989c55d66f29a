"""Client sampling: sizes, rates, and seeds."""

import numpy as np
import pytest
from scipy import stats

from fedmeta.errors import ConfigurationError
from fedmeta.seeding import SERVER, numpy_generator
from strategies.sampling import FixedSize, Poisson


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


def test_too_few_clients_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"clients = 4 but there are 3.*at most 3"):
        FixedSize(clients=4).check(3)
    with pytest.raises(ConfigurationError, match="no training clients"):
        Poisson(rate=0.5).check(0)
