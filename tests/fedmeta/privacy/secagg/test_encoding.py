"""Fixed point: sums are exact integers that never wrap, rounding is unbiased, what is cut is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.errors import ConfigurationError, DataError
from fedmeta.privacy.secagg.encoding import CHUNK, FixedPoint

BITS = st.sampled_from([32, 64])


def as_integers(coder: FixedPoint, encoded: np.ndarray) -> list[int]:
    """The encoded integers, as Python's."""
    return [int(value) for value in encoded.view(f"i{coder.bits // 8}")]


@settings(max_examples=150, deadline=None)
@given(
    BITS,
    st.one_of(st.integers(1, 5000), st.integers(1, 2**30)),
    st.floats(1e-30, 1e30),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 2**32),
)
def test_a_sum_of_as_many_as_allowed_never_wraps(bits, count, bound, dtype, seed):
    """The worst case: everybody sends the largest value of one sign; one encoding times n, in whole numbers."""
    coder = FixedPoint(bits=bits, bound=bound, max_count=count)
    largest = np.finfo(dtype).max
    extremes = np.array([bound, -bound, bound * (1 + 1e-7), -largest, largest, 0.0], dtype=dtype)
    for value in as_integers(coder, coder.encode(extremes, np.random.default_rng(seed))):
        assert abs(value) * count <= 2 ** (bits - 1) - 1


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("count", [1, 3, 100, 1000])
def test_the_sum_is_exact_to_rounding(bits, count):
    generator = np.random.default_rng(count)
    coder = FixedPoint(bits=bits, bound=1.0, max_count=count)
    total, exact = np.zeros(50, dtype=f"u{bits // 8}"), np.zeros(50)
    for _ in range(count):
        vector = generator.uniform(-1, 1, 50)
        exact += vector
        total += coder.encode(vector, generator)
    np.testing.assert_allclose(coder.decode(total, count), exact, atol=count / coder.scale + 1e-13 * count, rtol=0)


def test_the_relative_error_of_a_sum_is_below_1e_5_at_32_bits():
    """100 clients, float32 updates of a tenth of the bound."""
    generator = np.random.default_rng(0)
    coder = FixedPoint(bits=32, bound=1.0, max_count=100)
    updates = (0.1 * generator.standard_normal((100, 20_000))).astype(np.float32)
    total = np.zeros(20_000, dtype=np.uint32)
    for update in updates:
        total += coder.encode(update, generator)
    exact = updates.astype(np.float64).sum(axis=0)
    error = np.linalg.norm(coder.decode(total, 100) - exact) / np.linalg.norm(exact)
    assert error < 1e-6, f"relative error {error:.1e}"


def test_rounding_is_unbiased_with_the_stated_variance():
    coder = FixedPoint(bits=32, bound=1.0, max_count=2**20)  # about 2047 steps per unit, so that rounding shows
    size = 200_000
    for fraction in (0.0, 0.25, 0.5, 0.9):
        value = (17 + fraction) / coder.scale
        found = coder.decode(coder.encode(np.full(size, value), np.random.default_rng(1)), 1) * coder.scale
        assert set(np.round(found).astype(int)) <= {17, 18}
        variance = fraction * (1 - fraction)
        assert abs(found.mean() - 17 - fraction) < 5 * np.sqrt(variance / size) + 1e-6
        assert abs(found.var() - variance) < 0.01 and variance <= 1 / 4


def test_a_value_that_is_a_whole_number_of_steps_never_moves_even_where_floats_are_coarse():
    """At 64 bits a step is below float64's resolution: y + uniform would round some values up."""
    coder = FixedPoint(bits=64, bound=1.0, max_count=1)
    values = np.random.default_rng(0).uniform(2.0**-12, 2.0**-10, 5000)
    for seed in (1, 2):
        found = as_integers(coder, coder.encode(values, np.random.default_rng(seed)))
        for value, integer in zip(values, found, strict=True):
            scaled = float(value) * coder.scale
            assert integer in (int(np.floor(scaled)), int(np.ceil(scaled)))


def test_values_outside_the_range_are_cut_and_counted():
    """Case F11: with range 2000 the sum is thrice the vector, with range 8 one coordinate in six is cut."""
    vector = np.array([0.5, 1, 2, 4, 16, -1000], dtype=np.float32)
    wide, narrow = (FixedPoint(bits=32, bound=bound, max_count=3) for bound in (2000.0, 8.0))
    draw = np.random.default_rng(0)
    total = sum(wide.encode(vector, draw) for _ in range(3))
    np.testing.assert_allclose(wide.decode(total, 3), 3 * vector, atol=3 / wide.scale)
    assert wide.clipped(vector) == 0 and narrow.clipped(vector) == 2
    total = sum(narrow.encode(vector, draw) for _ in range(3))
    np.testing.assert_allclose(narrow.decode(total, 3), [1.5, 3, 6, 12, 24, -24], atol=3 / narrow.scale)


@pytest.mark.parametrize("bits", [32, 64])
def test_long_vectors_are_encoded_as_short_ones(bits):
    """Chunks leave no seam, and the caller's vector alone."""
    coder = FixedPoint(bits=bits, bound=1.0, max_count=10)
    vector = np.random.default_rng(0).uniform(-1, 1, 2 * CHUNK + 5).astype(np.float32)
    before = vector.copy()
    found = coder.decode(coder.encode(vector, np.random.default_rng(1)), 1)
    np.testing.assert_array_equal(vector, before)
    np.testing.assert_allclose(found, vector, atol=1 / coder.scale)
    assert coder.length(vector.size) == found.size


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad):
    vector = np.zeros(CHUNK + 10)
    vector[CHUNK + 3] = bad
    with pytest.raises(DataError, match=f"coordinate {CHUNK + 3} "):
        FixedPoint().encode(vector, np.random.default_rng(0))


@pytest.mark.parametrize(
    "settings",
    [{"bits": 16}, {"bound": 0.0}, {"bound": np.nan}, {"bound": -1.0}, {"max_count": 0}, {"max_count": 2**31}],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        FixedPoint(**settings)


def test_more_vectors_than_planned_are_refused():
    coder = FixedPoint(max_count=3)
    with pytest.raises(ConfigurationError, match="max_count = 3"):
        coder.decode(np.zeros(2, dtype=np.uint32), 4)
