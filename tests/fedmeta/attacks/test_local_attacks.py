"""How malicious clients train and what they send: formulas against plain loops, identities, and bounds that hold."""

import numpy as np
import pytest
import torch

from fedmeta.attacks import make_attack
from fedmeta.attacks.local import Scene
from fedmeta.attacks.neurotoxin import quiet_coordinates
from fedmeta.attacks.tether import Tethered, projected
from fedmeta.cohort import LocalPlan
from fedmeta.errors import ConfigurationError
from fedmeta.optimisers import SGD, Adam
from server.configuration import load

D = 12


def colluding(scene) -> Scene:
    experiment = load(
        {
            "attack": {"method": {"name": "model_replacement"}, "knowledge": "colluding"},
            "server": {"optimiser": {"name": "sgd", "lr": 0.5}},
        }
    )
    return scene(experiment=experiment)


def descend(optimiser, gradient_of, steps: int, start: torch.Tensor) -> list[torch.Tensor]:
    theta, state, path = start, optimiser.init(start), []
    for _ in range(steps):
        state, change = optimiser.step(state, gradient_of(theta))
        theta = theta + change
        path.append(theta)
    return path


def test_projection_shortens_what_is_long_and_leaves_the_rest() -> None:
    rows = torch.tensor([[3.0, 4.0, 100.0], [0.3, 0.4, 1.0], [0.0, 0.0, 7.0]])
    found = projected(rows, 1.0, size=2)
    assert torch.allclose(found, torch.tensor([[0.6, 0.8, 100.0], [0.3, 0.4, 1.0], [0.0, 0.0, 7.0]]))
    assert projected(torch.randn(1000), 2.0).norm() <= 2.0 + 1e-5


def test_pgd_projects_every_second_step_against_a_plain_loop() -> None:
    goal, start, radius = torch.full((D,), 10.0), torch.randn(D, generator=torch.Generator().manual_seed(0)), 0.7
    path = descend(Tethered(SGD(lr=0.2), D, radius=radius, every=2), lambda theta: theta - goal, 7, start)
    phi = start
    for number, theta in enumerate(path, 1):
        phi = phi - 0.2 * (phi - goal)
        if number % 2 == 0:
            x = phi - start
            phi = start + x * min(1.0, radius / float(x.norm()))
        assert torch.allclose(theta, phi, atol=1e-5), number
    assert (path[5] - start).norm() <= radius * 1.0001 < (path[6] - start).norm()


def test_constrain_and_scale_descends_the_mixed_loss() -> None:
    """alpha * loss + (1 - alpha) ||phi - theta||^2 by autograd, beside the tether, whose base is Adam."""
    goal, start, alpha = torch.full((D,), 2.0), torch.zeros(D), 0.6

    def mixed(theta: torch.Tensor) -> torch.Tensor:
        point = theta.detach().requires_grad_()
        loss = alpha * ((point - goal) ** 2).sum() + (1 - alpha) * ((point - start) ** 2).sum()
        return torch.autograd.grad(loss, point)[0]

    found = descend(Tethered(Adam(lr=0.1), D, alpha=alpha), lambda theta: 2 * (theta - goal), 9, start)
    expected = descend(Adam(lr=0.1), mixed, 9, start)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


def test_the_tether_leaves_personal_entries_free() -> None:
    tether = Tethered(SGD(lr=1.0), 2, alpha=0.5, radius=0.1)
    path = descend(tether, lambda theta: torch.ones(4), 3, torch.zeros(4))
    # alpha weighs the whole gradient, that of personal entries too; only the pull is not for them.
    assert torch.allclose(path[-1][2:], torch.tensor([-1.5, -1.5]))
    assert path[-1][:2].norm() <= 0.1001


def test_model_replacement_identity(scene) -> None:
    """theta + eta * mean of the round's updates is X, where the other nine send nothing new; n is of the round."""
    theta, x = torch.randn(D), torch.randn(D)
    sent = make_attack("model_replacement").update(x - theta, scene())
    assert torch.allclose(theta + 0.5 * torch.stack([sent, *[torch.zeros(D)] * 9]).mean(0), x, atol=1e-5)
    each = make_attack("model_replacement").update(x - theta, colluding(scene))
    assert torch.allclose(theta + 0.5 * torch.stack([each, each, *[torch.zeros(D)] * 8]).mean(0), x, atol=1e-5)


def test_model_replacement_scale_cap_and_what_it_must_be_told(scene) -> None:
    update = torch.ones(D)
    assert torch.allclose(make_attack("model_replacement", scale=3.0).update(update, scene()), 3 * update)
    capped = make_attack("model_replacement", scale=100.0, cap=0.5).update(update, scene())
    assert capped.norm() == pytest.approx(0.5) and torch.allclose(capped / capped.norm(), update / update.norm())
    with pytest.raises(ConfigurationError, match="does not tell how many"):
        make_attack("model_replacement").update(update, scene(participants=None))


def test_edge_case_stays_in_a_ball_of_median_honest_length(scene) -> None:
    """Honest lengths 5, 10 and 1: the median is 5."""
    attack = make_attack("edge_case", radius=0.5)
    assert attack.update(torch.full((D,), 9.0), scene()).norm() == pytest.approx(2.5)
    short = torch.full((D,), 0.1)
    assert torch.equal(attack.update(short, scene()), short)
    tether = attack.plan(LocalPlan(4, 1, SGD(lr=0.1)), scene()).optimiser
    assert (tether.radius, tether.every, tether.size) == (2.5, 2, D)


@pytest.mark.parametrize("told", [True, False])
def test_neurotoxin_moves_only_quiet_coordinates(scene, told: bool) -> None:
    """The mask is by magnitude (a large negative entry is loud), and every gradient is masked, momentum or not."""
    g = torch.tensor([-9.0, 0.1, 3.0, -0.2, 0.3, 8.0, 0.0, 1.0, -1.5, 0.5, 0.6, -7.0])
    where = scene(last_update=g) if told else scene(honest=lambda: torch.stack([g, g]))
    plan = make_attack("neurotoxin", keep_fraction=0.75).plan(LocalPlan(3, 2, SGD(lr=1.0, momentum=0.9)), where)
    loud = sorted(np.argsort(-np.abs(g.numpy()))[:3].tolist())
    rows = torch.randn(2, D + 1)
    direction = plan.reduce(rows, 0, 0)
    assert direction[loud].abs().sum() == 0 and loud == [0, 5, 11]
    quiet = [i for i in range(D + 1) if i not in loud]
    assert torch.allclose(direction[quiet], rows.mean(0)[quiet]), "the last entry is personal and free"


def test_the_share_of_quiet_coordinates_is_exact_also_under_ties() -> None:
    assert quiet_coordinates(torch.zeros(10), 0.3).tolist() == [True] * 3 + [False] * 7
    assert int(quiet_coordinates(torch.randn(1000), 0.95).sum()) == 950
    assert int(quiet_coordinates(torch.randn(5), 0.01).sum()) == 1


def test_dba_trains_parts_and_is_judged_by_their_union(scene, make_episode) -> None:
    attack = make_attack("dba", parts=4, scale=7.0)
    black = torch.zeros(1, 1, 16, 16)
    seen = {client: attack.training_trigger(scene(client=client))(black) for client in (1, 3, 7)}
    assert [int(x.sum()) for x in seen.values()] == [6, 6, 6]
    assert len({tuple(x.flatten().tolist()) for x in seen.values()}) == 3
    whole = attack.whole_trigger(scene())(black)
    assert whole.sum() == 24 and all((whole >= x).all() for x in seen.values())
    assert attack.update(torch.ones(D), scene()).tolist() == [7.0] * D
    poisoned = attack.poison(make_episode(), scene(), np.random.default_rng(0))
    changed = (poisoned.query.x != make_episode().query.x).flatten(1).any(dim=1)
    assert changed.any() and torch.equal(
        poisoned.query.x[changed], seen[3].clone().maximum(make_episode().query.x[changed])
    )


def with_attack(scene, **attack) -> Scene:
    return scene(experiment=load({"attack": {"method": {"name": "badnets"}, **attack}}))


@pytest.mark.parametrize("where", ["query", "support", "both"])
def test_where_the_trigger_appears(scene, make_episode, where: str) -> None:
    episode, attack = make_episode(), make_attack("badnets", poison_fraction=1.0, target=2)
    found = attack.poison(episode, with_attack(scene, trigger_in=where), np.random.default_rng(0))
    stamped = {
        "query": (found.query.x != episode.query.x).flatten(1).any(dim=1),
        "support": (found.support.x != episode.support.x).flatten(1).any(dim=1),
    }
    assert bool(stamped["query"].any()) == (where != "support") and bool(stamped["support"].any()) == (where != "query")
    assert (episode.support.y[stamped["support"]] == 2).all() and (found.query.y == 2).all()


def test_episodes_that_do_not_fit_the_target_stay_honest(scene, make_episode) -> None:
    episode, rng = make_episode(), np.random.default_rng(0)
    present, elsewhere = make_attack("badnets", target=12), make_attack("badnets", target=99)
    assert elsewhere.poison(episode, with_attack(scene, target="class"), rng) is episode
    assert (present.poison(episode, with_attack(scene, target="class"), rng).query.y != episode.query.y).any()
    assert present.poison(episode, with_attack(scene, target="absent"), rng) is episode
    moved = elsewhere.poison(episode, with_attack(scene, target="absent"), rng).query.y
    changed = moved != episode.query.y
    assert changed.any() and torch.equal(moved[changed], (episode.query.y[changed] + 1) % 5)


def test_support_poisoning_trains_honestly(scene, make_episode) -> None:
    episode, attack = make_episode(), make_attack("support_poisoning")
    assert attack.poison(episode, with_attack(scene, trigger_in="both"), np.random.default_rng(0)) is episode
    assert attack.kind == "deployment"
