"""Encoding and decoding sums: what is noised by how much, with and without dropouts, and what the clip norm does."""

import math

import numpy as np
import pytest
from scipy import stats

from fedmeta.privacy.clipping import AdaptiveClip
from fedmeta.privacy.distributed.adaptive import AdaptiveEncoder, augmented_norm, count_per_sum_noise
from fedmeta.privacy.distributed.draws import words_of
from fedmeta.privacy.distributed.encoder import DistributedEncoder, TooFewSurvivors, clip
from fedmeta.privacy.distributed.hadamard import Rotation
from fedmeta.privacy.distributed.shared_noise import SharedNoise


def encoder(noise, norm=1.0, client=0, round=0, **more):
    rotation = Rotation.of(noise.size, np.random.default_rng(1000 + round))
    return DistributedEncoder(noise, norm, rotation, words_of(np.random.default_rng([client, round])), **more)


def summed(encoders, vectors):
    total = 0
    for index, (each, vector) in enumerate(zip(encoders, vectors, strict=True)):
        total = total + each.encode(vector, np.random.default_rng([7, index]))  # unsigned: modulo 2^b
    return total


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [1, 5, 64, 1000])
def test_without_noise_the_sum_is_that_of_the_clipped_vectors(bits, size):
    noise = SharedNoise("skellam", 0.0, 20, 10, 0, size, bits)
    rng = np.random.default_rng(size)
    vectors = rng.normal(size=(20, size)) * rng.uniform(0, 2, size=(20, 1)) / math.sqrt(size)
    found = encoder(noise).decode(summed([encoder(noise, client=i) for i in range(20)], vectors), 20)
    due = sum(clip(vector, 1.0)[0] for vector in vectors)
    np.testing.assert_allclose(found, due, atol=20 * math.sqrt(noise.length) / noise.granularity)
    assert np.linalg.norm(found - due) / np.linalg.norm(due) < 1e-6


@pytest.mark.parametrize("kind", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("left", [12, 9])
def test_the_decoded_noise_is_what_is_accounted(kind, bits, left):
    """With and without dropouts; 6 degrees of 2^14 draws: the chi-square interval is left with probability 1e-6.

    `left` of 12 clients survive, 9 at least, 2 of these collude: a share is z C / sqrt(7).
    """
    z, norm, size = 1.5, 0.3, 2**14
    noise = SharedNoise(kind, z, 12, 9, 2, size, bits)
    vectors = np.random.default_rng(3).normal(size=(left, size))
    due = sum(clip(vector, norm)[0] for vector in vectors)
    found = encoder(noise, norm).decode(summed([encoder(noise, norm, i) for i in range(left)], vectors), left) - due
    expected = left * (z * norm) ** 2 / 7 + left / (4 * encoder(noise, norm).scale ** 2)
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], size) / size
    assert low < found.var() / expected < high
    assert stats.kstest(found / math.sqrt(expected), "norm").pvalue > 1e-6
    # What colluders do not know of it is at least what the ledger counts.
    assert (left - 2) * (noise.share * norm) ** 2 >= (noise.mechanism.noise_multiplier * norm) ** 2 * (1 - 1e-12)


def test_coarse_grains_round_with_the_variance_that_is_stated():
    """16 integers to a clip norm: rounding, and not noise, is what differs; at most count / (4 s^2) a coordinate."""
    noise = SharedNoise("skellam", 0.0, 8, 8, 0, 4096, 32)
    object.__setattr__(noise, "granularity", 300.0)
    vectors = np.random.default_rng(5).normal(size=(8, 4096))
    due = sum(clip(vector, 1.0)[0] for vector in vectors)
    found = encoder(noise).decode(summed([encoder(noise, client=i) for i in range(8)], vectors), 8)
    variance = float(np.mean((found - due) ** 2))
    assert 0.5 * 8 / (4 * 300.0**2) < variance < 8 / (4 * 300.0**2)


def test_too_few_survivors_are_never_released():
    noise = SharedNoise("skellam", 1.0, 5, 4, 1, 8, 32)
    total = summed([encoder(noise, client=i) for i in range(3)], np.ones((3, 8)))
    with pytest.raises(TooFewSurvivors, match=r"3 clients are left.*privacy.min_survivors = 4"):
        encoder(noise).decode(total, 3)
    with pytest.raises(ValueError, match="for 5 at most"):
        encoder(noise).decode(total, 6)
    with pytest.raises(ValueError, match="where 8 are due"):
        encoder(noise).decode(total[:4], 4)
    with pytest.raises(ValueError, match="only decodes"):
        DistributedEncoder(noise, 1.0, encoder(noise).rotation).encode(np.ones(8), np.random.default_rng(0))
    with pytest.raises(ValueError, match="of 9 coordinates"):
        encoder(noise).length(9)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_counts_as_zero(broken):
    noise = SharedNoise("skellam", 0.0, 1, 1, 0, 4, 32)
    found = encoder(noise).decode(encoder(noise).encode(np.array([1.0, broken, 0.0, 0.0]), np.random.default_rng(0)), 1)
    assert found.tolist() == [0, 0, 0, 0]


def test_clipping_is_the_one_that_central_noise_uses():
    import torch

    from fedmeta.privacy.clipping import clip_rows

    rows = np.random.default_rng(0).normal(size=(6, 10)) * np.array([[1e-3], [0.1], [1.0], [10.0], [0.0], [1e3]])
    rows = np.concatenate([rows, np.full((1, 10), 0.3)])  # within C, and its second part beyond C / sqrt(2)
    for layers in ((), (3, 7)):
        theirs, norms = clip_rows(torch.from_numpy(rows), 1.0, layers)
        ours = [clip(row, 1.0, layers) for row in rows]
        np.testing.assert_allclose([vector for vector, _ in ours], theirs.numpy(), rtol=1e-14)
        np.testing.assert_allclose([norm for _, norm in ours], norms.numpy())


def adaptive_encoder(adaptive, noise, norm, client=0, round=0):
    return AdaptiveEncoder(encoder(noise, augmented_norm(adaptive, norm), client, round), adaptive, norm)


@pytest.mark.parametrize(("z", "expected", "count_noise"), [(1.0, 100, None), (0.7, 10, 0.5), (3.0, 20, 10.0)])
def test_the_count_costs_nothing_more(z, expected, count_noise):
    """Noise over the augmented norm is z, and on the count as wide as asked."""
    adaptive, norm = AdaptiveClip.of(0.5, 0.2, expected, z, count_noise), 0.7
    on_every_coordinate = z * augmented_norm(adaptive, norm)
    assert on_every_coordinate == pytest.approx(adaptive.sum_multiplier * norm)
    assert on_every_coordinate / (count_per_sum_noise(adaptive) * norm) == pytest.approx(adaptive.count_noise)
    ratio = augmented_norm(adaptive, norm) / norm
    assert ratio**2 == pytest.approx(1 + adaptive.sum_multiplier**2 / (4 * adaptive.count_noise**2))


@pytest.mark.parametrize("z", [0.0, 1.0])
def test_the_clip_norm_moves_towards_the_norms_from_both_sides(z):
    """All norms are 1. C starts at 0.1 and at 10, and comes nearer in every round; 40 clients."""
    rng, reached = np.random.default_rng(0), []
    for start in (0.1, 10.0):
        adaptive, norm = AdaptiveClip.of(0.5, 0.2, 40, z, None), start
        for round in range(30):
            noise = SharedNoise("skellam", z, 40, 40, 0, 51, 32)
            vectors = rng.normal(size=(40, 50))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            encoders = [adaptive_encoder(adaptive, noise, norm, client, round) for client in range(40)]
            _, within = encoders[0].split(summed(encoders, vectors), 40)
            moved = adaptive.moved(norm, within, 40)
            if abs(math.log(norm)) > 0.15:
                assert abs(math.log(moved)) < abs(math.log(norm))
            norm = moved
        reached.append(norm)
    assert reached == pytest.approx([1.0, 1.0], rel=0.2)


def test_adaptive_sums_are_those_of_the_vectors_and_the_count_is_right():
    adaptive, norm = AdaptiveClip.of(0.5, 0.2, 10, 0.0, None), 1.0
    noise = SharedNoise("skellam", 0.0, 10, 8, 0, 7, 64)
    vectors = np.random.default_rng(2).normal(size=(9, 6)) * np.linspace(0.05, 1.5, 9)[:, None]
    encoders = [adaptive_encoder(adaptive, noise, norm, client) for client in range(9)]
    total = summed(encoders, vectors)
    found, within = encoders[0].split(total, 9)
    np.testing.assert_allclose(found, sum(clip(vector, norm)[0] for vector in vectors), atol=1e-6)
    inside = (np.linalg.norm(vectors, axis=1) <= norm).sum()
    assert 0 < inside < 9 and within == pytest.approx(inside - 4.5, abs=1e-5)
    np.testing.assert_array_equal(encoders[0].decode(total, 9), found)
    assert encoders[0].length(6) == 8
    with pytest.raises(ValueError, match="clips to"):
        AdaptiveEncoder(encoder(noise, 1.0), adaptive, norm)
