"""The Walsh-Hadamard transform against scipy's matrix, and what the random signs are for."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.privacy.distributed.hadamard import Rotation, padded, walsh_hadamard


@pytest.mark.parametrize("size", [1, 2, 8, 32, 64, 256, 2048])
def test_the_transform_is_scipys(size):
    values = np.random.default_rng(size).normal(size=size)
    kept = values.copy()
    np.testing.assert_allclose(walsh_hadamard(values), scipy.linalg.hadamard(size) @ values / size**0.5, atol=1e-12)
    np.testing.assert_array_equal(values, kept)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="pad it to 8"):
        walsh_hadamard(np.zeros(6))
    with pytest.raises(ValueError, match="size = 0"):
        padded(0)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 300), seed=st.integers(0, 1000))
def test_a_rotation_keeps_norms_and_goes_back(size, seed):
    rng = np.random.default_rng(seed)
    rotation, vector = Rotation.of(size, np.random.default_rng(seed)), rng.normal(size=size)
    rotated = rotation.apply(vector)
    assert len(rotated) == padded(size) < 2 * size + 1
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector))
    np.testing.assert_allclose(rotation.invert(rotated), vector, atol=1e-12)


def test_signs_spread_what_the_plain_transform_would_heap_up():
    """The constant vector becomes a single spike without signs; with them no coordinate is beyond 6 deviations.

    A coordinate is sub-Gaussian with variance 1 / d, so that this fails with probability 4096 * 2 exp(-18) = 1.3e-4.
    """
    flat = np.full(4096, 1 / 64)
    assert walsh_hadamard(flat).max() == pytest.approx(1.0)
    assert np.abs(Rotation.of(4096, np.random.default_rng(5)).apply(flat)).max() < 6 / 64


def test_signs_are_the_generators_bytes():
    """Every client must have the same ones, whatever its numpy."""
    signs = Rotation.of(11, np.random.default_rng(3)).signs
    bits = np.unpackbits(np.frombuffer(np.random.default_rng(3).bytes(2), dtype=np.uint8))
    np.testing.assert_array_equal(signs, np.where(bits, -1.0, 1.0))
