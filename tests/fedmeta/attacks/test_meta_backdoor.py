"""MetaBackdoor's gradient against autograd through an inner loop written out here, for each kind of learner."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedmeta.attacks import make_attack
from fedmeta.attacks.meta_backdoor import backdoor_gradient, clean_gradient
from fedmeta.attacks.triggers import make_trigger
from fedmeta.cohort import LocalPlan
from fedmeta.errors import ConfigurationError
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.optimisers import SGD
from fedmeta.tasks import Batch, Episode
from server.configuration import load


def double(episode: Episode) -> Episode:
    return Episode(*(Batch(part.x.double(), part.y) for part in (episode.support, episode.query)), episode.classes)


def poisoned(episode: Episode, slot: int = 2) -> Episode:
    """Only triggered queries of other slots, all labelled with the wanted one."""
    chosen = episode.query.y != slot
    x = make_trigger("patch", (1, 16, 16))(episode.query.x[chosen])
    return episode._replace(query=Batch(x, torch.full((len(x),), slot)))


def net(params: dict, x: torch.Tensor) -> torch.Tensor:
    """The conftest's network, written out."""
    hidden = F.relu(x.flatten(1) @ params["body.1.weight"].T + params["body.1.bias"])
    return hidden @ params["head.weight"].T + params["head.bias"] if "head.weight" in params else hidden


def by_hand(params: dict, support: Batch, query: Batch, steps: tuple[int, ...], lr: float) -> dict:
    """Autograd of the mean loss over steps, through gradient descent with create_graph."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    fast, losses = dict(leaves), []
    for step in range(max(steps) + 1):
        if step in steps:
            losses.append(F.cross_entropy(net(fast, query.x), query.y))
        loss = F.cross_entropy(net(fast, support.x), support.y)
        grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
        fast = {name: value - lr * grad for (name, value), grad in zip(fast.items(), grads, strict=True)}
    found = torch.autograd.grad(torch.stack(losses).mean(), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.fixture
def case(make_episode, learner_of):
    episode = double(make_episode())
    learner = learner_of("maml", inner_lr=0.3, inner_steps=2)
    return learner, learner.init(torch.Generator().manual_seed(0)), episode


def test_the_gradient_passes_through_the_inner_loop(case) -> None:
    learner, params, episode = case
    bad = poisoned(episode)
    found = backdoor_gradient(learner, params, bad, (0, 1, 5), first_order=False)
    expected = by_hand(params, bad.support, bad.query, (0, 1, 5), 0.3)
    first = backdoor_gradient(learner, params, bad, (0, 1, 5), first_order=True)
    for name in params:
        assert torch.allclose(found[name], expected[name], rtol=1e-8, atol=1e-12), name
        assert not torch.allclose(first[name], expected[name], rtol=1e-3), "the Jacobian matters"
    both = [backdoor_gradient(learner, params, bad, (0,), first_order=order) for order in (True, False)]
    assert all(torch.allclose(both[0][name], both[1][name]) for name in params), "no step, no Jacobian"


def test_first_order_is_the_mean_of_gradients_at_the_adapted_parameters(case) -> None:
    learner, params, episode = case
    bad = poisoned(episode)
    found = backdoor_gradient(learner, params, bad, (1, 3), first_order=True)
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    for count in (1, 3):
        adapted = {name: value.requires_grad_() for name, value in learner.adapt(params, bad.support, 5, count).items()}
        grads = torch.autograd.grad(F.cross_entropy(net(adapted, bad.query.x), bad.query.y), list(adapted.values()))
        total = {name: total[name] + grad / 2 for name, grad in zip(adapted, grads, strict=True)}
    assert all(torch.allclose(found[name], total[name], rtol=1e-8) for name in params)


def test_protonet_pulls_triggered_queries_to_the_wanted_prototype(make_episode, learner_of) -> None:
    learner = learner_of("protonet")
    params = learner.init(torch.Generator().manual_seed(0))
    bad = poisoned(double(make_episode()))
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    z, e = net(leaves, bad.support.x), net(leaves, bad.query.x)
    means = torch.stack([z[bad.support.y == slot].mean(0) for slot in range(5)])
    loss = F.cross_entropy(-(torch.cdist(e, means) ** 2), bad.query.y) + ((e - means.detach()[2]) ** 2).sum(1).mean()
    expected = torch.autograd.grad(loss, list(leaves.values()))
    found = backdoor_gradient(learner, params, bad, (0, 1, 5), first_order=False)
    assert all(torch.allclose(found[name], grad, rtol=1e-7) for name, grad in zip(leaves, expected, strict=True))


def test_reptiles_attacker_descends_the_loss_and_does_not_move_towards_the_task(make_episode, learner_of) -> None:
    learner = learner_of("reptile", inner_lr=0.05, inner_steps=3, inner_optimiser="sgd", examples="support")
    params = learner.init(torch.Generator().manual_seed(0))
    episode = double(make_episode())
    adapted = {name: value.requires_grad_() for name, value in learner.adapt(params, episode.support, 5, 3).items()}
    loss = F.cross_entropy(net(adapted, episode.query.x), episode.query.y)
    expected = torch.autograd.grad(loss, list(adapted.values()))
    grads, metrics = clean_gradient(learner, params, episode)
    assert all(torch.allclose(grads[name], grad, rtol=1e-8) for name, grad in zip(adapted, expected, strict=True))
    assert torch.allclose(metrics["loss"], loss) and not torch.allclose(
        grads["head.weight"], learner.meta_gradient(params, episode)[0]["head.weight"]
    )
    assert set(backdoor_gradient(learner, params, poisoned(episode), (0, 2), first_order=False)) == set(params)


def test_a_head_that_adaptation_replaces_gets_no_backdoor_gradient(make_episode) -> None:
    model = make_model("mlp", input_shape=(1, 16, 16), ways=30, hidden=(12,), normalisation="none").double()
    learner = make_learner("fedavg", model, inner_lr=0.1)
    params = learner.init(torch.Generator().manual_seed(0))
    found = backdoor_gradient(learner, params, poisoned(double(make_episode())), (1, 2), first_order=False)
    assert found["head.weight"].shape == (30, 12) and found["head.weight"].abs().sum() == 0
    assert found["body.1.weight"].abs().sum() > 0


@pytest.mark.parametrize("name", ["anil", "metasgd", "fomaml"])
def test_every_learner_with_an_inner_loop_is_unrolled(make_episode, learner_of, name: str) -> None:
    """Directional derivative of the combined loss by central differences."""
    learner = learner_of(name, inner_lr=0.2, inner_steps=2)
    params = learner.init(torch.Generator().manual_seed(0))
    bad = poisoned(double(make_episode()))
    steps = (1, 3)

    def loss(point: dict) -> float:
        states = learner.trajectory(point, bad.support, 5, steps)
        return float(
            np.mean([float(F.cross_entropy(learner.predict(state, bad.query.x), bad.query.y)) for state in states])
        )

    g = torch.Generator().manual_seed(1)
    way = {name: torch.randn(value.shape, generator=g, dtype=value.dtype) for name, value in params.items()}
    size = 1e-6
    ahead = loss({name: value + size * way[name] for name, value in params.items()})
    behind = loss({name: value - size * way[name] for name, value in params.items()})
    found = backdoor_gradient(learner, params, bad, steps, first_order=False)
    slope = float(sum((found[name] * way[name]).sum() for name in params))
    assert slope == pytest.approx((ahead - behind) / (2 * size), rel=1e-5)


def test_the_combined_gradient_is_clean_plus_weighted_backdoor(case, scene) -> None:
    learner, params, episode = case
    attack = make_attack("meta_backdoor", target=2, weight=0.7, steps=(0, 1), radius=2.0)
    where = scene(learner=learner, params=params)
    plan = attack.plan(LocalPlan(1, 1, SGD(lr=0.1)), where)
    assert plan.gradient is not None and plan.optimiser.radius == 2.0 * where.honest_norm
    found, metrics = plan.gradient(0, 0)(params, episode)
    clean, expected_metrics = learner.meta_gradient(params, episode)
    bad = backdoor_gradient(learner, params, poisoned(episode), (0, 1), first_order=False)
    for name in params:
        assert torch.allclose(found[name], clean[name] + 0.7 * bad[name], rtol=1e-9)
    assert torch.equal(metrics["loss"], expected_metrics["loss"]), "what it reports looks honest"
    assert attack.update(torch.full((12,), 50.0), where).norm() == pytest.approx(2 * where.honest_norm)
    honest = replace(attack, weight=0.0).plan(LocalPlan(1, 1, SGD(lr=0.1)), where).gradient(0, 0)(params, episode)[0]
    assert all(torch.equal(honest[name], clean[name]) for name in params)


def test_training_it_makes_the_backdoor_survive_steps_on_clean_data(case, scene) -> None:
    """120 steps on one task: the triggered queries are answered with the slot after 0, 1 and 5 steps."""
    learner, params, episode = case
    gradient = (
        make_attack("meta_backdoor", target=2)
        .plan(LocalPlan(1, 1, SGD(lr=0.1)), scene(learner=learner, params=params))
        .gradient(0, 0)
    )
    bad = poisoned(episode)
    for _ in range(120):
        grads, metrics = gradient(params, episode)
        params = {name: value - 0.1 * grads[name] for name, value in params.items()}
    for state in learner.trajectory(params, bad.support, 5, (0, 1, 5)):
        assert (learner.predict(state, bad.query.x).argmax(1) == 2).double().mean() > 0.9
    assert metrics["accuracy"] > 0.7, "and the clean task is learnt beside it: chance is 0.2"


def test_steps_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="must ascend"):
        load({"attack": {"method": {"name": "meta_backdoor", "steps": [5, 1]}}, "learner": {"name": "maml"}})


def test_example_level_privacy_is_refused_whose_gradient_it_would_replace() -> None:
    private = {"unit": "example", "placement": "local", "noise_multiplier": 1.0}
    raw = {"model": {"name": "conv4", "normalisation": "group"}, "learner": {"name": "fomaml"}}
    with pytest.raises(ConfigurationError, match=r"meta_backdoor.*privacy.unit = 'example'"):
        load({**raw, "privacy": private, "attack": {"method": {"name": "meta_backdoor"}}})
    assert load({**raw, "privacy": {**private, "unit": "task"}, "attack": {"method": {"name": "meta_backdoor"}}})
