"""LiRA and its bound: Gaussian laws with a known answer, the trade-off's closed form, and coverage of what is shown."""

import math

import numpy as np
import pytest

from fedmeta.audit.membership import (
    auroc_bound,
    fair_halves,
    judge,
    lira,
    logit_scaled,
    most_caught,
    shown_epsilon,
)
from fedmeta.errors import ConfigurationError


def observed(shift: float, shadows: int, targets: int, seed: int = 0, spread: float = 1.0):
    """Targets with means of their own, `shift` higher where they are in."""
    rng = np.random.default_rng(seed)
    included = fair_halves(shadows, targets, rng)
    values = rng.normal(0, 5, targets) + shift * included + spread * rng.normal(size=included.shape)
    return values, included, rng


def test_logit_scaling() -> None:
    p = np.array([0.01, 0.5, 0.999])
    np.testing.assert_allclose(logit_scaled(-np.log(p)), np.log(p / (1 - p)), rtol=1e-9)
    assert np.isfinite(logit_scaled(np.array([0.0, 1e-300, 900.0]))).all()
    assert logit_scaled(np.array([900.0]))[0] == pytest.approx(-900)


def test_lira_finds_what_two_gaussians_allow_though_every_target_has_a_level_of_its_own() -> None:
    """AUROC of N(mu, 1) against N(0, 1) is Phi(mu / sqrt 2); the shadows' own estimates cost a little."""
    values, included, rng = observed(1.0, 64, 60)
    online, offline = lira(values, included, rng)
    expected = 0.5 * (1 + math.erf(0.5))
    for scores in (online, offline):
        found = judge(scores, included, 0.0, rng)
        assert found.low < found.auroc < found.high and abs(found.auroc - expected) < 0.02
    raw = judge(values, included, 0.0, rng)
    assert raw.auroc < 0.58, "one threshold on losses hardly sees it"
    nothing, coins, rng = observed(0.0, 16, 60)
    found = judge(lira(nothing, coins, rng)[0], coins, 0.0, rng)
    assert found.low < 0.5 < found.high and found.shown == 0


def test_the_score_is_the_log_ratio_of_the_shadows_normal_laws() -> None:
    from scipy.stats import norm

    values, included, _ = observed(1.0, 6, 1)
    online, offline = lira(values, included, np.random.default_rng(0))
    column, coins, shadow = values[:, 0], included[:, 0], 2
    others = np.arange(6) != shadow
    inside, outside = column[others & coins], column[others & ~coins]
    assert sorted((len(inside), len(outside))) == [2, 3], "the larger side loses one at random"
    matches = []
    for left in range(3):
        a, b = (np.delete(side, left) if len(side) == 3 else side for side in (inside, outside))
        laws = [norm(side.mean(), side.std(ddof=1)) for side in (a, b)]
        ratio = laws[0].logpdf(column[shadow]) - laws[1].logpdf(column[shadow])
        z = (column[shadow] - laws[1].mean()) / laws[1].std()
        matches.append(abs(online[shadow, 0] - ratio) < 1e-9 and abs(offline[shadow, 0] - z) < 1e-9)
    assert sum(matches) == 1


def test_halves_are_fair_and_even() -> None:
    included = fair_halves(16, 40, np.random.default_rng(0))
    assert (included.sum(axis=0) == 8).all() and len({tuple(column) for column in included.T}) > 35
    for shadows in (4, 7):
        with pytest.raises(ConfigurationError, match="even and at least 6"):
            fair_halves(shadows, 2, np.random.default_rng(0))


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (1.0, 0.0), (2.0, 0.01), (0.0, 0.3)])
def test_the_bound_is_a_trade_off_and_its_area_the_auroc(epsilon: float, delta: float) -> None:
    grid = np.linspace(0, 1, 200_001)
    allowed = most_caught(grid, epsilon, delta)
    assert np.trapezoid(allowed, grid) == pytest.approx(auroc_bound(epsilon, delta), abs=1e-6)
    assert allowed[0] == pytest.approx(delta) and allowed[-1] == 1 and (np.diff(allowed) >= -1e-12).all()
    # Randomised response with epsilon reaches the corner of the bound at delta = 0.
    if delta == 0:
        lie = 1 / (1 + math.exp(epsilon))
        assert float(most_caught(lie, epsilon, 0.0)) == pytest.approx(1 - lie)


def test_shown_epsilon_stays_below_the_truth_and_comes_near_it() -> None:
    """Randomised response of epsilon 1.5: the answers are all that an attacker can use."""
    rng = np.random.default_rng(0)
    truth, keep = 1.5, 1 / (1 + math.exp(-1.5))
    found = []
    for _ in range(60):
        inside = (rng.random(2000) < keep) + 1e-9 * rng.random(2000)
        outside = (rng.random(2000) >= keep) + 1e-9 * rng.random(2000)
        found.append(shown_epsilon(inside, outside, 0.0))
    assert sum(value > truth for value in found) <= 6 and np.median(found) > 1.1
