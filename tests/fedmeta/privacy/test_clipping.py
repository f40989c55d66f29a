"""Clipping: bounded whatever a row holds, the sum moves by at most the bound, the adaptive norm finds its quantile."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.clipping import AdaptiveClip, clip_rows, clipped_sum
from fedmeta.privacy.noise import seeded_noise

ROWS = st.lists(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=4, max_size=4), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.floats(1e-3, 1e3), st.sampled_from([(), (1, 3), (2, 1, 1)]))
def test_norms_are_bounded_and_small_rows_stay(rows, norm, layers):
    given_rows = torch.tensor(rows)
    clipped, norms = clip_rows(given_rows, norm, layers)
    assert (clipped.norm(dim=1) <= norm * (1 + 1e-12)).all()
    torch.testing.assert_close(norms, given_rows.double().norm(dim=1))
    if not layers:
        within = norms <= norm
        assert torch.equal(clipped[within], given_rows.double()[within])
        outside = clipped[~within]
        torch.testing.assert_close(outside.norm(dim=1), torch.full((len(outside),), norm, dtype=torch.float64))


@settings(max_examples=60, deadline=None)
@given(ROWS, st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=4, max_size=4), st.floats(1e-3, 1e3))
def test_swapping_one_row_moves_the_sum_by_at_most_two_norms_and_taking_it_out_by_one(rows, other, norm):
    before = torch.tensor(rows)
    after = before.clone()
    after[0] = torch.tensor(other)
    slack = norm * 1e-9
    total = clipped_sum(before, norm)
    assert (total - clipped_sum(after, norm)).norm() <= 2 * norm + slack
    assert (total - clipped_sum(before[1:], norm)).norm() <= norm + slack


def test_zeros_nan_and_nothing():
    rows = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [math.inf, 0.0], [3.0, 4.0]])
    clipped, norms = clip_rows(rows, 1.0)
    assert clipped[:3].tolist() == [[0, 0]] * 3 and norms.tolist() == [0, math.inf, math.inf, 5]
    assert clipped_sum(torch.zeros(0, 3), 1.0).tolist() == [0, 0, 0]
    assert clipped_sum(rows, 0.0).tolist() == [0, 0], "zero is a norm"
    assert math.isnan(rows[1, 0]), "what is given is not modified"


def test_layers_share_the_norm():
    clipped, _ = clip_rows(torch.tensor([[9.0, 0.0, 0.0, 0.1]]), 1.0, (3, 1))
    assert clipped.tolist()[0] == pytest.approx([math.sqrt(0.5), 0, 0, 0.1])


@pytest.mark.parametrize("start", [0.1, 10.0])
def test_adaptive_moves_towards_the_true_norm_from_both_sides(start):
    adaptive = AdaptiveClip.of(0.5, 0.2, expected=10, noise_multiplier=0.0, count_noise=None)
    norm, seen = start, []
    for _ in range(60):
        norm = adaptive.next(norm, torch.ones(10), 0.0)
        seen.append(norm)
    assert abs(math.log(seen[0])) < abs(math.log(start)), "one step is in the right direction"
    assert 0.85 < norm < 1.2


@pytest.mark.parametrize("start", [0.1, 10.0])
def test_adaptive_converges_to_the_quantile_under_noise(start):
    generator = torch.Generator().manual_seed(0)
    norms = torch.empty(100).log_normal_(0.0, 0.5, generator=generator)
    target = norms.quantile(0.8).item()
    adaptive = AdaptiveClip.of(0.8, 0.2, expected=100, noise_multiplier=1.0, count_noise=None)
    noise, norm, tail = seeded_noise(0, 0, 0, "count"), start * target, []
    for round in range(400):
        norm = adaptive.next(norm, norms, float(noise(1)))
        if round >= 200:
            tail.append((norms <= norm).float().mean().item())
    assert sum(tail) / len(tail) == pytest.approx(0.8, abs=0.05)


def test_an_empty_cohort_only_moves_by_noise():
    adaptive = AdaptiveClip.of(0.5, 0.2, expected=10, noise_multiplier=1.0, count_noise=None)
    assert adaptive.next(2.0, torch.zeros(0), 0.0) == 2.0 != adaptive.next(2.0, torch.zeros(0), 1.0)


def test_the_split_of_the_noise_costs_what_one_release_does():
    adaptive = AdaptiveClip.of(0.5, 0.2, expected=100, noise_multiplier=1.1, count_noise=None)
    assert adaptive.count_noise == 5.0
    # Several Gaussian queries cost 1 / z^2 = sum of (sensitivity / deviation)^2; a bit less a half moves by a half.
    assert adaptive.sum_multiplier**-2 + (0.5 / adaptive.count_noise) ** 2 == pytest.approx(1.1**-2)
    assert AdaptiveClip.of(0.5, 0.2, 4, 1.1, None).count_noise == 1.1, "m / 20 would not do in a small cohort"
    with pytest.raises(ConfigurationError, match=r"count_noise = 0.5 must be > half"):
        AdaptiveClip.of(0.5, 0.2, 100, 1.0, 0.5)
