"""The checks for masked gradients (Carlini et al. 2019; Athalye et al. 2018) on models that really learnt."""

from itertools import pairwise

import pytest
import torch

from fedmeta.evasion.plan import Plan, attacks_of
from fedmeta.evasion.robustness import attack_episode, robustness

NOISE = 0.015
"""Of 400 queries; the same ones are compared, so that chance is less than an accuracy's."""


@pytest.fixture(scope="module", params=["protonet", pytest.param("hardened", marks=pytest.mark.slow)])
def trained(request: pytest.FixtureRequest):
    """A plainly trained model, and one that was trained to withstand attacks."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def accuracies(trained) -> dict[tuple[str, float], float]:
    """Accuracy of the model by attack and radius."""
    plan = Plan(
        eps=(0.02, 0.1),
        attacks=attacks_of(
            ["noise", "fgsm", "pgd", "apgd", "square"],
            {"apgd_ce": {"steps": 12}, "apgd_dlr": {"steps": 12}, "square": {"queries": 60}},
        ),
    )
    found = robustness(trained.learner, trained.params, trained.episodes, plan)
    assert found.zero_gradients == 0.0, "no input without a gradient"
    known = {(figure.attack, figure.eps): figure.accuracy.mean for figure in found.figures}
    known |= {("worst", figure.eps): figure.accuracy.mean for figure in found.worst}
    known |= {(name, 0.0): found.clean.mean for name in (*plan.attacks, "worst")}
    return known


WHITE = ("fgsm", "pgd", "apgd_ce", "apgd_dlr")
RADII = (0.0, 0.02, 0.1)


def test_the_model_has_learnt(accuracies) -> None:
    assert accuracies["pgd", 0.0] > 0.5, "chance is 0.2"


@pytest.mark.parametrize("name", ["noise", *WHITE, "square", "worst"])
def test_more_eps_never_helps_the_model(accuracies, name: str) -> None:
    values = [accuracies[name, eps] for eps in RADII]
    assert all(later <= earlier + NOISE for earlier, later in pairwise(values))


@pytest.mark.slow
def test_training_on_attacks_is_what_makes_the_difference(protonet, hardened) -> None:
    """What the checks are for: robust accuracy that these attacks do not take away."""
    plan = Plan(eps=(0.03,), attacks=attacks_of(["pgd", "apgd"]))
    plain, robust = (
        robustness(each.learner, each.params, protonet.episodes, plan).worst[0].accuracy.mean
        for each in (protonet, hardened)
    )
    print(f"worst of PGD-20 and APGD at eps .03: {100 * plain:.1f} % plain, {100 * robust:.1f} % hardened")
    assert robust > plain + 0.05


def test_everything_is_within_reach_at_eps_one(trained) -> None:
    plan = Plan(eps=(1.0,), attacks=attacks_of(["pgd", "apgd"], {"apgd_ce": {"steps": 12}, "apgd_dlr": {"steps": 12}}))
    found = robustness(trained.learner, trained.params, trained.episodes[:6], plan)
    assert [figure.accuracy.mean for figure in found.figures] == [0, 0, 0]


@pytest.mark.parametrize("eps", RADII[1:])
def test_noise_is_weaker_than_fgsm_is_weaker_than_pgd(accuracies, eps: float) -> None:
    assert accuracies["noise", eps] > accuracies["fgsm", eps] - NOISE
    assert accuracies["fgsm", eps] >= accuracies["pgd", eps] - NOISE
    assert accuracies["noise", eps] > accuracies["pgd", eps]


@pytest.mark.parametrize("eps", RADII[1:])
def test_the_black_box_is_no_better_than_the_white_box(accuracies, eps: float) -> None:
    best = min(accuracies[name, eps] for name in ("pgd", "apgd_ce", "apgd_dlr"))
    assert accuracies["square", eps] >= best - NOISE
    assert accuracies["worst", eps] <= best


def test_more_steps_and_restarts_never_help_the_model(trained) -> None:
    def accuracy(**settings) -> float:
        plan = Plan(eps=(0.03,), attacks=attacks_of(["pgd"], {"pgd": settings}))
        return robustness(trained.learner, trained.params, trained.episodes, plan).worst[0].accuracy.mean

    values = [accuracy(steps=2, step=1.0), accuracy(steps=5, step=0.5), accuracy(steps=20)]
    assert all(later <= earlier + NOISE for earlier, later in pairwise(values))
    assert accuracy(steps=20, restarts=3) <= values[2] + NOISE


def test_what_fools_another_model_fools_this_one_less(trained, twin) -> None:
    """Transfer: queries moved for the model of another seed, shown to this one."""
    plan = Plan(eps=(0.1,), attacks=attacks_of(["pgd"]))
    ball, pgd = plan.ball(0.1), plan.attacks["pgd"]
    own, borrowed, clean = [], [], []
    for episode in trained.episodes:
        y = episode.query.y
        adapted = trained.learner.adapt(trained.params, episode.support, 5)
        moved = attack_episode(twin.learner, twin.params, episode, pgd, ball, plan)
        with torch.no_grad():
            answers = trained.learner.predict(adapted, moved.x).argmax(1)
        borrowed.append((answers == y).double())
        for where, evasion in ((own, pgd), (clean, None)):
            found = attack_episode(trained.learner, trained.params, episode, evasion, ball, plan)
            where.append((found.answers == y).double())
    a, b, c = (torch.cat(each).mean().item() for each in (own, borrowed, clean))
    assert a <= b + NOISE and b < c
