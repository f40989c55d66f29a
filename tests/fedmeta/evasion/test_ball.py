"""The ball: no attack leaves it or the range of inputs; projections are what they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedmeta.errors import ConfigurationError
from fedmeta.evasion import EVASIONS, make_evasion
from fedmeta.evasion.ball import Ball, check_inputs

QUICK = {
    "pgd": {"steps": 3, "restarts": 2},
    "apgd_ce": {"steps": 4},
    "apgd_dlr": {"steps": 4},
    "square": {"queries": 6},
}
LINF_ONLY = ("square",)


@pytest.mark.parametrize("name", list(EVASIONS.entries()))
@settings(max_examples=8, deadline=None)
@given(
    eps=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1e-9, 1.0])),
    norm=st.sampled_from(["linf", "l2"]),
    lead=st.integers(1, 2),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**40),
)
def test_every_attack_stays_in_the_ball_and_in_the_range(name, eps, norm, lead, scale, seed) -> None:
    norm = "linf" if name in LINF_ONLY else norm
    generator = torch.Generator().manual_seed(seed % 2**31)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 4)).requires_grad_(False)
    # A third of all pixels lie at either end of the range, as those of glyphs do.
    x = (3 * torch.rand((3, 5, 2, 4, 4)[2 - lead :], generator=generator) - 1).clamp(0, 1)
    y = torch.randint(4, x.shape[:lead], generator=generator)

    def logits_of(moved: torch.Tensor) -> torch.Tensor:
        return scale * net(moved.reshape(-1, 32)).reshape(*moved.shape[:lead], 4)

    ball, kept = Ball(norm, eps, lead=lead), x.clone()
    found = make_evasion(name, **QUICK.get(name, {}))(logits_of, x, y, ball, torch.tensor(seed))
    assert torch.equal(x, kept), "inputs are never changed"
    assert found.shape == x.shape and not found.requires_grad and torch.isfinite(found).all()
    assert float(ball.distance(found, x).max()) <= eps + 1e-6
    assert float(found.min()) >= -1e-6 and float(found.max()) <= 1 + 1e-6
    before, after = ((logits_of(point).argmax(-1) != y).double().flatten(1 if lead == 2 else 0) for point in (x, found))
    assert (after.sum(-1) >= before.sum(-1)).all(), "an attacker may leave an input alone"


def test_random_points_fill_the_ball() -> None:
    """Linf: uniform in every pixel. L2: the radius of a point of d dimensions is distributed as u^(1/d)."""
    centre = torch.full((20_000, 3), 0.5, dtype=torch.float64)
    cube = Ball("linf", 0.2).random(centre, torch.tensor(5), 0) - centre
    assert abs(float(cube.mean())) < 2e-3 and float(cube.std()) == pytest.approx(0.4 / np.sqrt(12), rel=0.02)
    for dimensions in (1, 3):
        centre = torch.full((20_000, dimensions), 0.5, dtype=torch.float64)
        radii = (Ball("l2", 0.2).random(centre, torch.tensor(6), 0) - centre).norm(dim=1) / 0.2
        assert float(radii.max()) <= 1 and float((radii**dimensions).mean()) == pytest.approx(0.5, abs=0.01)
    one, other = (Ball().random(centre, torch.tensor(6), stream) for stream in (0, 1))
    assert not torch.equal(one, other)
    assert torch.equal(one, Ball().random(centre, torch.tensor(6), 0)), "from the seed alone"


def test_projections_are_the_nearest_points() -> None:
    x = torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64)
    away = torch.tensor([[2.0, 0.55, -3.0]], dtype=torch.float64)
    assert torch.allclose(Ball("linf", 0.2).project(away, x), torch.tensor([[1.0, 0.55, 0.0]], dtype=torch.float64))
    inside = torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64)
    moved = inside + torch.tensor([[0.3, 0.0, 0.4]], dtype=torch.float64)
    assert torch.allclose(Ball("l2", 0.25).project(moved, inside), inside + torch.tensor([[0.15, 0.0, 0.2]]).double())
    assert torch.allclose(Ball("l2", 0.6).project(moved, inside), moved), "within the ball nothing moves"
    sets = torch.stack([inside, moved])  # [2, 1, 3]: two sets of one example each
    assert Ball("l2", 1.0, lead=2).distance(sets, inside.expand(2, 1, 3)).tolist() == [[0.0], [pytest.approx(0.5)]]


@pytest.mark.parametrize("eps", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(eps: float) -> None:
    with pytest.raises(ConfigurationError, match="eps = "):
        Ball("linf", eps)


def test_other_bad_balls_and_inputs_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown norm 'lnf'; did you mean 'linf'"):
        Ball("lnf")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="low must be below high"):
        Ball(low=1.0, high=1.0)
    with pytest.raises(ConfigurationError, match=r"inputs lie in \[-1, 1\].*scale the data"):
        check_inputs(torch.tensor([-1.0, 1.0]), Ball())
    assert Ball("l2", 2.0).eps == 2.0, "a change of many pixels may be longer than one"
