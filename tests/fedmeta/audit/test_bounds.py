"""Audit formulas: worked values, and bounds that hold where the mechanism is right and break where it is not."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fedmeta.audit.canaries import AuditedGaussian, Canaries, check_sides
from fedmeta.audit.gaussian import gaussian_epsilon, mu_bound_epsilon, one_shot_estimate, pair_epsilon
from fedmeta.audit.one_run import epsilon_lower_bound, one_run_bound
from fedmeta.errors import ConfigurationError
from fedmeta.privacy import Adjacency, Event, Gaussian, NoAmplification, tightest
from fedmeta.privacy.central import CentralGaussian
from fedmeta.privacy.noise import seeded_noise


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "expected"),
    [
        (1000, 200, 180, 1e-5, 1.7963),
        (1000, 100, 95, 1e-5, 2.1652),
        (5000, 250, 240, 1e-5, 2.6138),
        (1000, 1000, 600, 1e-5, 0.2972),
        (1000, 100, 55, 1e-5, 0.0),
        (1000, 100, 100, 0.0, 3.4930),
        (10, 0, 0, 1e-5, 0.0),
    ],
)
def test_one_run_worked_values(canaries, guesses, correct, delta, expected):
    assert epsilon_lower_bound(canaries, guesses, correct, delta, 0.05) == pytest.approx(expected, abs=1e-4)


def test_one_run_is_monotone():
    found = [epsilon_lower_bound(500, 200, correct, 1e-5, 0.05) for correct in range(100, 201, 10)]
    assert found == sorted(found) and found[0] == 0 < found[-1]
    assert epsilon_lower_bound(500, 200, 190, 1e-3, 0.05) < epsilon_lower_bound(500, 200, 190, 1e-6, 0.05)
    with pytest.raises(ConfigurationError, match="correct <= guesses"):
        epsilon_lower_bound(10, 5, 6, 1e-5, 0.05)


def test_pairs_of_gaussians():
    assert pair_epsilon(0, 1, 1, 1, 1e-5) == pytest.approx(4.3772, abs=1e-4)
    assert pair_epsilon(0, 1, 1, 1.2, 1e-5) == pytest.approx(8.8176, abs=1e-4)
    assert pair_epsilon(0, 1, 0, 1, 1e-5) == 0 == gaussian_epsilon(0.0, 1e-5)
    for mu, delta in ((0.3, 1e-3), (2.0, 1e-6)):
        exact = gaussian_epsilon(mu, delta)
        # Balle and Wang 2018, theorem 8, evaluated at the answer.
        found = norm.cdf(mu / 2 - exact / mu) - np.exp(exact) * norm.cdf(-mu / 2 - exact / mu)
        assert found == pytest.approx(delta, rel=1e-5)
    # Numerical integration of (p - e^eps q)+ at the answer, for unequal deviations.
    x = np.linspace(-40, 40, 400_001)
    p, q = norm.pdf(x, 0.5, 0.8), norm.pdf(x, 0.0, 1.0)
    exact = pair_epsilon(0.5, 0.8, 0.0, 1.0, 1e-3)
    worst = max(np.maximum(a - np.exp(exact) * b, 0).sum() * (x[1] - x[0]) for a, b in ((p, q), (q, p)))
    assert worst == pytest.approx(1e-3, rel=1e-3)


def test_estimate_of_a_known_separation():
    rng = np.random.default_rng(0)
    cosines = rng.normal(1.0, 1.0, 4000) / 100  # d = 10,000: mean 1 and deviation 1 in units of chance
    assert one_shot_estimate(cosines, 10_000, 1e-5) == pytest.approx(4.38, abs=0.9)


def play(halved, seed, z=2.0, releases=24, canaries=1000):
    """Releases with canaries of their own, each canary in one of them: what is claimed is the epsilon of one."""
    factor = 0.5 if halved else 1.0
    scores, included = [], []
    for index in range(releases):
        mechanism = CentralGaussian(
            0.7, z, 10.0, lambda round, index=index: lambda n: factor * seeded_noise(seed, round, index, "audit")(n)
        )
        own = Canaries(
            torch.eye(canaries),
            torch.rand(canaries, generator=torch.Generator().manual_seed(seed + index)) < 0.5,
            1.0,
            np.random.default_rng(0),
        )
        AuditedGaussian.around(mechanism, own).release(torch.randn(5, canaries) / canaries, 1)
        scores.append(own.scores.numpy())
        included.append(own.included.numpy())
    return np.concatenate(scores), np.concatenate(included)


CLAIM = tightest([Event(Gaussian(2.0), NoAmplification(), Adjacency.ADD_REMOVE)], 1e-5).epsilon


@pytest.mark.parametrize("seed", [0, 1])
def test_bounds_stay_below_the_claim_and_rise_above_it_when_noise_is_silently_halved(seed):
    """The mutation: C of noise where 2 C is claimed; 24,000 canaries."""
    assert pytest.approx(2.0, abs=0.02) == CLAIM
    for halved in (False, True):
        scores, included = play(halved, seed)
        found = one_run_bound(scores, included, 1e-5)
        by_rates = mu_bound_epsilon(scores[included], scores[~included], 1e-5)
        if halved:
            assert found.epsilon > CLAIM and by_rates > 1.5 * CLAIM
        else:
            assert 0.5 < found.epsilon < CLAIM and 0.7 * CLAIM < by_rates < CLAIM


def test_bounds_fail_no_more_often_than_they_say():
    """Without any leak 200 audits at beta = .2: both bounds are above 0 in at most a fifth, within three deviations."""
    rng = np.random.default_rng(0)
    wrong = np.zeros(2)
    for _ in range(200):
        scores, included = rng.normal(size=300), rng.random(300) < 0.5
        wrong[0] += one_run_bound(scores, included, 0.0, 0.2).epsilon > 0
        wrong[1] += mu_bound_epsilon(scores[included], scores[~included], 1e-5, 0.2) > 0
    assert (wrong / 200 <= 0.2 + 3 * (0.2 * 0.8 / 200) ** 0.5).all()


def test_canaries():
    found = Canaries.random(50, 400, 0.3, seed=1)
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(50))
    assert 10 < int(found.included.sum()) < 40
    parts = [len(found.taking_part(2.0)) for _ in range(200)]
    assert np.mean(parts) == pytest.approx(0.3 * float(found.included.sum()), rel=0.15)
    row = found.taking_part(2.0)[0]
    assert row.norm().item() == pytest.approx(2.0)
    for count in (1, 19, 401):
        with pytest.raises(ConfigurationError, match="hide one another"):
            Canaries.random(count, 400, 0.3, 1)


@pytest.mark.parametrize("inside", [0, 1, 19, 20])
def test_canaries_that_are_all_on_one_side_tell_nothing(inside):
    with pytest.raises(ConfigurationError, match=f"put {inside} in"):
        check_sides(torch.arange(20) < inside)
    check_sides(torch.arange(20) < 2)
