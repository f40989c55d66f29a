"""The attacks against closed forms and against other ways to compute the same."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedmeta.errors import ConfigurationError
from fedmeta.evasion import make_evasion
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.losses import cross_entropy, dlr, margin, targeted_dlr, towards
from fedmeta.evasion.pgd import ascend, input_gradient
from fedmeta.evasion.square import Square

SEED = torch.tensor(3)


def linear(weights: torch.Tensor):
    return lambda x: x.flatten(1) @ weights.T


@pytest.fixture
def binary():
    """A linear model of two classes far from the ends of the range: the worst point is known."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(7, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (7,), generator=generator)
    return weights, x, y


@pytest.mark.parametrize("settings", [("fgsm", {}), ("pgd", {"steps": 100}), ("apgd_ce", {})])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_point_of_a_linear_model(binary, settings: tuple[str, dict], norm: str) -> None:
    """Two classes: max over the ball of (w_other - w_y) (x + d) is + eps ||w_other - w_y||_1, or _2."""
    weights, x, y = binary
    ball, logits_of = Ball(norm, 0.05), linear(weights)
    name, own = settings
    found = make_evasion(name, **own)(logits_of, x, y, ball, SEED)
    apart = weights[1 - y] - weights[y]
    best = margin(logits_of(x), y) + 0.05 * apart.norm(p=1 if norm == "linf" else 2, dim=1)
    assert torch.allclose(margin(logits_of(found), y), best, atol=1e-4)


def test_square_finds_the_worst_point_of_a_linear_model_too() -> None:
    """A weight for every pixel of one channel: squares of one pixel can set each sign."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 9, generator=generator)
    x, y = torch.full((2, 1, 3, 3), 0.5), torch.tensor([0, 1])
    found = Square(queries=600)(linear(weights), x, y, Ball("linf", 0.1), SEED)
    best = margin(linear(weights)(x), y) + 0.1 * (weights[0] - weights[1]).abs().sum()
    assert torch.allclose(margin(linear(weights)(found), y), best, atol=1e-3)
    sides = [Square(queries=10_000).side(query, (1, 28, 28)) for query in (1, 11, 51, 201, 501, 1001, 2001, 9000)]
    assert sides == [round(np.sqrt(0.8 / 2**halved) * 28) for halved in (0, 1, 2, 3, 4, 5, 6, 9)], "the paper's table"


def test_losses_against_numpy() -> None:
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.arange(50) % 5
    wanted = (y + 2) % 5
    for row, label, target, a, b, c in zip(
        logits.numpy(), y, wanted, dlr(logits, y), targeted_dlr(logits, y, wanted), margin(logits, y), strict=True
    ):
        ordered, other = np.sort(row)[::-1], np.delete(row, label).max()
        assert float(c) == pytest.approx(other - row[label])
        assert float(a) == pytest.approx(-(row[label] - other) / (ordered[0] - ordered[2]))
        scale = ordered[0] - (ordered[2] + ordered[3]) / 2
        assert float(b) == pytest.approx(-(row[label] - row[target]) / scale)
    assert torch.allclose(dlr(1e6 * logits, y), dlr(logits, y)), "whatever the scale of the logits"
    assert torch.allclose(cross_entropy(logits, y), F.cross_entropy(logits, y, reduction="none"))


def test_dlr_climbs_where_a_softmax_saturates() -> None:
    """Logits times 1e4 in float32: the cross-entropy has no gradient left, the ratio has."""
    generator = torch.Generator().manual_seed(2)
    weights, x = torch.randn(4, 6, generator=generator), 0.4 + 0.2 * torch.rand(60, 6, generator=generator)
    logits_of = linear(1e4 * (weights - weights.mean(dim=1, keepdim=True)))  # grey is on the border of all classes
    y = logits_of(x).argmax(dim=1)
    sure = margin(logits_of(x), y) < -200
    x, y = x[sure], y[sure]
    assert len(y) > 20
    assert (input_gradient(logits_of, x, y) == 0).all(), "masked"
    assert not (input_gradient(logits_of, x, y, dlr) == 0).all(dim=1).any()
    ball = Ball("linf", 0.2)  # twice what leads back to grey
    wrong = {
        name: (logits_of(make_evasion(name, steps=30)(logits_of, x, y, ball, SEED)).argmax(1) != y).double().mean()
        for name in ("apgd_ce", "apgd_dlr")
    }
    assert wrong["apgd_dlr"] == 1 and wrong["apgd_ce"] < 0.9


def test_a_targeted_run_reaches_its_class() -> None:
    """Targets are tried one by one: each raises its own class, and the worst of all points is given."""
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(4, 6, generator=generator)
    x = 0.5 * torch.ones(5, 6)
    logits_of, y = linear(weights), linear(weights)(x).argmax(dim=1)
    for wanted in range(4):
        label = torch.full_like(y, wanted)
        point = ascend(logits_of, x, label, Ball("linf", 0.5), start=x, steps=20, step=0.25, loss=towards)
        assert (logits_of(point).argmax(dim=1) == wanted).all()
    small = Ball("linf", 0.1)
    for name in ("pgd", "apgd_dlr"):
        plain, aimed = (
            margin(logits_of(make_evasion(name, targets=targets)(logits_of, x, y, small, SEED)), y)
            for targets in (0, 3)
        )
        assert (aimed >= plain - 0.05).all()


def test_too_few_classes_are_refused_with_the_reason() -> None:
    logits, y = torch.randn(3, 2), torch.tensor([0, 1, 0])
    with pytest.raises(ConfigurationError, match=r"2 classes are too few: the untargeted DLR.*3 or more"):
        dlr(logits, y)
    with pytest.raises(ConfigurationError, match=r"3 classes are too few: the targeted DLR.*4 or more"):
        targeted_dlr(torch.randn(3, 3), y, 1 - y)
    assert make_evasion("apgd_dlr").least_ways == 3 and make_evasion("apgd_dlr", targets=1).least_ways == 4
    assert make_evasion("pgd", targets=3).least_ways == 4


def test_square_says_what_it_is_not_made_for() -> None:
    x, y = torch.full((2, 6), 0.5), torch.tensor([0, 1])
    with pytest.raises(ConfigurationError, match=r"squares of images.*inputs are \[6\]"):
        Square()(linear(torch.randn(2, 6)), x, y, Ball("linf", 0.1), SEED)
    with pytest.raises(ConfigurationError, match="Linf form"):
        Square()(linear(torch.randn(2, 4)), x[:, :4].reshape(2, 1, 2, 2), y, Ball("l2", 0.1), SEED)
    with pytest.raises(ConfigurationError, match="unknown evasion 'pdg'; did you mean 'pgd'"):
        make_evasion("pdg")
    with pytest.raises(ConfigurationError, match=r"evasion pgd.steps = 0 must be >= 1"):
        make_evasion("pgd", steps=0)
