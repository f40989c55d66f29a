"""Randomised smoothing against closed forms: a linear classifier's radius, the binomial law of abstentions."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom, norm
from torch import Tensor

from fedmeta.certification import ABSTAINED, Certificates, Smoothing, certify, lower_bound, radii

W = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
BIAS = 0.5


def linear(x: Tensor) -> Tensor:
    """Two classes by the sign of W x + b; the exact L2 radius of x is |W x + b| / 5."""
    value = x @ W.T + BIAS
    return torch.cat([value, -value], dim=1)


def test_a_linear_classifier_is_certified_up_to_its_margin() -> None:
    """Smoothing a half space leaves it as it is, with pA = Phi(margin / sigma): the radius tends to the margin."""
    x = torch.tensor([[0.3, 0.1], [-0.4, 0.1], [0.0, 0.16]], dtype=torch.float64)
    value = (x @ W.T + BIAS).squeeze(1)
    exact = value.abs() / 5
    smoothing = Smoothing(sigma=0.25, count=100_000)
    found = certify(linear, x, smoothing, torch.Generator().manual_seed(0))
    assert found.labels.tolist() == (value < 0).long().tolist()
    assert (found.radius <= exact).all()
    assert torch.allclose(found.radius, exact, rtol=0.05, atol=0.005)
    expected = [0.25 * norm.ppf(beta.ppf(0.001, k, 100_001 - k)) for k in (60_000, 99_000)]
    assert np.allclose(radii(np.array([60_000, 99_000]), smoothing), expected, atol=1e-12)


def test_a_certificate_is_wrong_at_most_as_often_as_alpha_says() -> None:
    """Radii beyond the exact one of a linear classifier, in 400 certificates at alpha = 0.05."""
    margin, sigma, alpha = 0.1, 0.5, 0.05
    x = torch.tensor([[margin]], dtype=torch.float64).expand(400, 1)
    found = certify(
        lambda x: torch.cat([x, -x], dim=1),
        x,
        Smoothing(sigma, select=30, count=200, alpha=alpha),
        torch.Generator().manual_seed(1),
    )
    wrong = int(((found.radius > margin) | ((found.labels == 1) & (found.radius > 0))).sum())
    assert wrong <= binom.ppf(0.999, 400, alpha)


@pytest.mark.parametrize("count", [1, 7, 50, 500, 10_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_at_one_half_nothing_is_certified_but_with_probability_alpha(count: int, alpha: float) -> None:
    """Exactly, over the binomial law: P(radius > 0 | p = 1/2) <= alpha."""
    outcomes = np.arange(count + 1)
    certified = radii(outcomes, Smoothing(1.0, count=count, alpha=alpha)) > 0
    assert binom.pmf(outcomes, count, 0.5)[certified].sum() <= alpha


@pytest.mark.parametrize("p", [0.03, 0.6, 0.97])
def test_the_bound_covers(p: float) -> None:
    outcomes = np.arange(101)
    covered = lower_bound(outcomes, 100, 0.05) <= p
    assert binom.pmf(outcomes, 100, p)[covered].sum() >= 0.95


def test_a_coin_abstains_and_noise_is_not_shared() -> None:
    """A model that answers at random is not believed; and two equal inputs meet different noise."""
    seen: list[Tensor] = []

    def coin(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.cat([x.sum(dim=(1, 2, 3))[:, None], torch.zeros(len(x), 1)], dim=1)

    found = certify(coin, torch.zeros(4, 1, 6, 6), Smoothing(1.0, 50, 300), torch.Generator().manual_seed(0))
    assert found.labels.tolist() == [ABSTAINED] * 4 and found.radius.tolist() == [0.0] * 4
    flat = torch.cat(seen).flatten()
    assert flat.numel() == 4 * 350 * 36 and flat.unique().numel() > 0.99 * flat.numel()
    assert flat.std().item() == pytest.approx(1.0, abs=0.02)


def test_certified_accuracy_counts_abstentions_as_wrong_and_falls_with_the_radius() -> None:
    found = Certificates(torch.tensor([0, 1, ABSTAINED, 2]), torch.tensor([0.3, 0.8, 0.0, 0.5]))
    assert found.accuracy_at(torch.tensor([0, 1, 1, 0]), [0.0, 0.3, 0.5, 1.0]).tolist() == [0.5, 0.5, 0.25, 0.0]


def test_the_largest_radius_and_bad_settings() -> None:
    assert Smoothing(0.25, count=500).largest == pytest.approx(0.25 * norm.ppf(0.001 ** (1 / 500)))
    for key, value in (("sigma", 0.0), ("count", 0), ("select", 0), ("alpha", 1.0), ("sigma", math.nan)):
        with pytest.raises(ValueError, match=f"{key} = "):
            Smoothing(**{"sigma": 0.5, key: value})
