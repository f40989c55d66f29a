"""Noise: standard normal, fresh at every call, independent over clients and rounds, seeded only where asked."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from fedmeta.privacy.noise import _inverted, seeded_noise, system_generator, system_noise

COUNT = 40_000


@pytest.mark.parametrize("make", [system_noise, lambda: seeded_noise(3, 1, 2, "test")])
def test_standard_normal(make):
    draws = make()(COUNT)
    assert draws.dtype == torch.float64 and draws.shape == (COUNT,)
    assert abs(draws.mean()) < 5 / COUNT**0.5 and abs(draws.var() - 1) < 5 * (2 / COUNT) ** 0.5
    assert kstest(draws.numpy(), "norm").pvalue > 1e-5


def test_independent_over_clients_rounds_purposes_and_calls():
    noise = seeded_noise(0, 1, 1, "a")
    draws = [noise(COUNT), noise(COUNT)]
    draws += [seeded_noise(*where)(COUNT) for where in ((0, 1, 2, "a"), (0, 2, 1, "a"), (0, 1, 1, "b"), (1, 1, 1, "a"))]
    draws += [system_noise()(COUNT), system_noise()(COUNT)]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 5.5 / COUNT**0.5


def test_the_seed_gives_the_same_draws_and_the_system_never_does():
    assert torch.equal(seeded_noise(0, 1, 1, "a")(9), seeded_noise(0, 1, 1, "a")(9))
    assert not torch.equal(system_noise()(9), system_noise()(9))
    assert system_generator().integers(2**60) != system_generator().integers(2**60)
    assert system_noise()(0).shape == (0,)


def test_the_extreme_words_give_finite_draws_that_mirror_each_other():
    low, high = _inverted(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert -8.3 < low < -8.2 and high == -low
