"""The server's release itself: the noise that is accounted, on sum and count, over a cohort that is fixed."""

import math

import pytest
import torch

from fedmeta.privacy.central import CentralGaussian
from fedmeta.privacy.clipping import AdaptiveClip
from fedmeta.privacy.noise import seeded_noise

SIZE, CLIP, EXPECTED, Z = 20_000, 0.3, 8.0, 1.5


def mechanism(**given) -> CentralGaussian:
    return CentralGaussian(
        **{
            "clip_norm": CLIP,
            "noise_multiplier": Z,
            "expected": EXPECTED,
            "noise_of": lambda round: seeded_noise(0, round, 0, "test"),
            **given,
        }
    )


def adaptive(z: float = Z) -> AdaptiveClip:
    return AdaptiveClip.of(0.5, 0.2, EXPECTED, z, count_noise=1.6)


@pytest.mark.parametrize("adapts", [False, True])
@pytest.mark.parametrize("count", [0, 1, 11])
def test_noise_has_the_deviation_that_is_accounted_whoever_came(adapts: bool, count: int) -> None:
    """On the sum z C, or more where the count is to be paid for: z_sum C, as z^-2 = z_sum^-2 + (2 count_noise)^-2."""
    z_sum = (Z**-2 - (2 * 1.6) ** -2) ** -0.5 if adapts else Z
    rows = torch.randn(count, SIZE, generator=torch.Generator().manual_seed(1))
    quiet = mechanism(noise_multiplier=0.0).release(rows, 1).vector
    found = mechanism(adaptive=adaptive() if adapts else None).release(rows, 1)
    assert found.clip_norm == CLIP
    noise = (found.vector - quiet) * EXPECTED
    assert noise.std().item() == pytest.approx(z_sum * CLIP, rel=5 / (2 * SIZE) ** 0.5)
    again = mechanism(adaptive=adaptive() if adapts else None).release(rows, 2)
    rounds = torch.stack([noise, (again.vector - quiet) * EXPECTED])
    assert torch.corrcoef(rounds)[0, 1].abs() < 5 / SIZE**0.5, "every round has noise of its own"


def test_clipped_summed_and_divided_by_the_expected_cohort() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.1, 0.0]])
    found = mechanism(noise_multiplier=0.0).release(rows, 1)
    assert found.vector.tolist() == pytest.approx([(0.18 + 0.1) / EXPECTED, 0.24 / EXPECTED])
    assert found.clipped == pytest.approx(1 / 3)
    layers = mechanism(noise_multiplier=0.0, layers=[1, 1]).release(rows, 1)
    part = CLIP / math.sqrt(2)
    assert layers.vector.tolist() == pytest.approx([(part + 0.1) / EXPECTED, part / EXPECTED])
    trusted = mechanism(noise_multiplier=0.0, unclipped=True).release(rows, 1)
    assert trusted.vector.tolist() == pytest.approx([3.1 / EXPECTED, 4.0 / EXPECTED])


def test_the_count_behind_the_next_norm_is_noised_and_not_by_the_sums_draws() -> None:
    """Nobody comes: log C moves by -rate (count_noise / m N(0, 1) + 1/2 - quantile), and by nothing without noise."""
    moves, firsts = [], []
    for round in range(2000):
        release = mechanism(adaptive=adaptive(), noise_of=lambda _, round=round: seeded_noise(0, round, 0, "count"))
        firsts.append(float(release.release(torch.zeros(0, 3), 1).vector[0]))
        moves.append(math.log(release.clip_norm / CLIP))
    both = torch.tensor([moves, firsts], dtype=torch.float64)
    assert both[0].std().item() == pytest.approx(0.2 * 1.6 / EXPECTED, rel=5 / (2 * 2000) ** 0.5)
    assert torch.corrcoef(both)[0, 1].abs() < 5 / 2000**0.5
    still = mechanism(noise_multiplier=0.0, adaptive=AdaptiveClip.of(0.5, 0.2, EXPECTED, 0.0, None))
    still.release(torch.zeros(0, 3), 1)
    assert still.clip_norm == CLIP


def test_the_norm_moves_after_the_release_that_was_clipped_to_it() -> None:
    moving = mechanism(noise_multiplier=0.0, adaptive=AdaptiveClip.of(0.5, 0.2, EXPECTED, 0.0, None))
    rows = torch.full((8, 4), 5.0)
    found = moving.release(rows, 1)
    assert found.clip_norm == CLIP and (found.vector * EXPECTED).norm().item() == pytest.approx(8 * CLIP)
    assert moving.clip_norm == pytest.approx(CLIP * math.exp(0.2 * 0.5)), "all were clipped: it grows"
