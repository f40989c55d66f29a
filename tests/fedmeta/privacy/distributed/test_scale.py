"""Modulus and scale: the specification's formulas, the probability of a wrap, shares for the fewest survivors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.distributed import scale, skellam
from fedmeta.privacy.distributed.draws import words_of
from fedmeta.privacy.distributed.shared_noise import SharedNoise


def shared(kind="skellam", z=1.0, clients=100, survivors=80, colluders=10, size=1000, bits=32):
    return SharedNoise(kind, z, clients, survivors, colluders, size, bits)


def test_a_share_is_sized_for_the_fewest_honest_survivors():
    """The specification's example: cohort 100, at least 80, 10 colluding: .1195 z C."""
    assert shared().share == pytest.approx(0.1195, abs=5e-5)
    assert shared().mechanism.noise_multiplier == 1.0
    assert shared("discrete_gaussian").mechanism.shares == 70


@settings(max_examples=50, deadline=None)
@given(
    bits=st.integers(12, 48),
    kappa=st.floats(1, 10),
    clients=st.integers(1, 500),
    log_size=st.integers(1, 20),
    share=st.floats(0, 2),
)
def test_scale_and_modulus_are_each_others_inverse(bits, kappa, clients, log_size, share):
    found = scale.largest_granularity(bits, kappa, clients, 2**log_size, share)
    assert scale.modulus_needed(kappa, clients, 2**log_size, share, found) == pytest.approx(2.0**bits, rel=1e-9)


def test_the_formula_is_the_specifications():
    """s = sqrt(2^(2b) - n k^2) / (2 k sqrt(rho C^2 n^2 / d + n sigma^2)) with rho = C = 1."""
    b, n, k, d, sigma = 18, 60, 3.0, 4096, 0.2
    expected = math.sqrt(2 ** (2 * b) - n * k**2) / (2 * k * math.sqrt(n**2 / d + n * sigma**2))
    assert scale.largest_granularity(b, k, n, d, sigma) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize(
    ("z", "clients", "size"), [(1.0, 10, 100), (1.0, 100, 10**6), (0.0, 100, 5000), (50.0, 500, 9)]
)
def test_the_chosen_scale_wraps_as_rarely_as_promised(kind, z, clients, size):
    noise = shared(kind, z, clients, clients, 0, size)
    assert noise.wrap_bound <= 2.0**-40
    assert noise.granularity <= 2.0**30
    assert noise.share * noise.granularity <= skellam.LARGEST_DEVIATION * (1 + 1e-12)


@pytest.mark.parametrize("kind", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("share", [0.3, 3.0])
def test_the_wrap_bound_bounds_what_happens(kind, share):
    """Clients that all send the same vector, few bits, 300 rounds: the share that wraps is below the bound of it.

    The bounds here are between 0.01 and 0.5; a true bound is broken with probability below 1e-6 (5 deviations).
    """
    from fedmeta.privacy.distributed.encoder import clip
    from fedmeta.privacy.distributed.hadamard import Rotation
    from fedmeta.privacy.distributed.rounding import within

    clients, size, bits, rounds = 4, 16, 12, 300
    is_skellam = kind == "skellam"
    kappa = 3.4
    granularity = scale.largest_granularity(bits, kappa, clients, size, share)
    bound = scale.wrap_bound(bits, clients, size, share, granularity, is_skellam)
    assert 0.01 < bound < 0.5
    rng = np.random.default_rng(0)
    draw = skellam.sample if is_skellam else scale_gaussian
    vector = clip(rng.normal(size=size), granularity)[0]
    wrapped = 0
    for _ in range(rounds):
        rotated = Rotation.of(size, rng).apply(vector)
        total = sum(
            within(rotated, granularity, rng) + draw(size, share * granularity, words_of(rng)) for _ in range(clients)
        )
        wrapped += bool(np.abs(total).max() >= 2 ** (bits - 1))
    assert wrapped / rounds <= bound + 5 * math.sqrt(bound / rounds)


def scale_gaussian(size, deviation, words):
    from fedmeta.privacy.distributed import discrete_gaussian

    return discrete_gaussian.sample(size, deviation, words)


def test_numbers_that_protect_nobody_are_refused():
    with pytest.raises(ConfigurationError, match=r"privacy.min_survivors = 5 must be > privacy.colluders = 5"):
        shared(survivors=5, colluders=5)
    with pytest.raises(ConfigurationError, match="<= 100"):
        shared(survivors=101)
    with pytest.raises(ConfigurationError, match="too little"):
        scale.largest_granularity(4, 9.0, 100, 16, 0.1)
    with pytest.raises(ConfigurationError, match="integers wide"):
        _ = shared("discrete_gaussian", clients=10**6, survivors=10**6, colluders=0, size=2, bits=32).mechanism
