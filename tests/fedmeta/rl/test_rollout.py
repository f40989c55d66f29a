"""Policies rolled out: against numpy, against the definition of a policy's likelihood, in both executions."""

import numpy as np
import pytest
import torch

from fedmeta.data.base import EpisodeShape
from fedmeta.data.cartpole import CartPoles
from fedmeta.data.nav2d import Nav2D
from fedmeta.execution import over_tasks
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.rl.baselines import fit_baseline
from fedmeta.rl.cartpole import CartPole
from fedmeta.rl.control import Control
from fedmeta.rl.environment import Row
from fedmeta.rl.trajectories import Trajectories
from fedmeta.tasks import Batch, Episode

SHAPE = EpisodeShape(1, 4, 3)
DATA = {"nav2d": Nav2D(horizon=5), "cartpole": CartPoles(horizon=12)}


def network(data, seed=0):
    model = make_model("policy", input_shape=data.input_shape, ways=data.outputs, hidden=[8])
    return data.network(model)


def episodes(data, count=1, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    drawn = [data.everything().sample(SHAPE, rng) for _ in range(count)]
    double = lambda batch: Batch(batch.x.to(dtype), batch.y.to(dtype))  # noqa: E731
    return [Episode(double(one.support), double(one.query), one.classes) for one in drawn]


def start(learner, seed=0):
    """Double parameters whose actions are not all alike: a fresh head hardly depends on what is seen."""
    generator = torch.Generator().manual_seed(seed)
    params = {name: value.double() for name, value in learner.init(generator).items()}
    return {
        name: 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64) if "head" in name else value
        for name, value in params.items()
    }


def test_a_navigation_is_what_numpy_makes_of_the_same_draws():
    data, [episode] = DATA["nav2d"], episodes(DATA["nav2d"])
    net = network(data)
    learner = make_learner("maml", net, task=data.task, inner_lr=0.1)
    params = start(learner)
    found = Trajectories.of(learner.predict(params, episode.query.x))
    row = Row(*(part.numpy() for part in net.layout.unpack(episode.query.x)))
    w = {name.removeprefix("policy."): value.numpy() for name, value in params.items()}
    for i in range(SHAPE.queries):
        place = np.zeros(2)
        for t in range(data.horizon):
            hidden = np.tanh(w["body.1.weight"] @ place + w["body.1.bias"])
            mean, std = w["head.weight"] @ hidden + w["head.bias"], np.exp(w["log_std"])
            action = mean + std * row.draws[i, t]
            density = np.exp(-(row.draws[i, t] ** 2) / 2) / (std * np.sqrt(2 * np.pi))
            assert found.observations[i, t].numpy() == pytest.approx(place)
            assert found.log_probs[i, t].item() == pytest.approx(np.log(density).sum())
            place = place + 0.1 * np.clip(action, -1, 1)
            assert found.rewards[i, t].item() == pytest.approx(-np.hypot(*(place - row.physics[i])))
    assert found.alive.min() == 1


def test_a_pole_falls_as_in_gymnasium():
    """1,000 random pushes on CartPole-v1 itself, with masses of our own."""
    gymnasium = pytest.importorskip("gymnasium", reason="pip install 'fedmeta[gymnasium]'")
    theirs, ours = gymnasium.make("CartPole-v1").unwrapped, CartPole()
    rng, falls = np.random.default_rng(0), 0
    while falls < 20:
        cart, pole, length = rng.uniform(0.3, 3, 3)
        theirs.masscart, theirs.masspole, theirs.length = cart, pole, length
        theirs.total_mass, theirs.polemass_length = cart + pole, pole * length
        theirs.reset(seed=int(rng.integers(2**31)))
        physics = torch.tensor([[cart, pole, length]], dtype=torch.float64)
        mine = torch.tensor(np.array(theirs.state), dtype=torch.float64)[None]
        over = False
        while not over:
            action = int(rng.integers(2))
            _, _, over, _, _ = theirs.step(action)
            step = ours.step(mine, torch.tensor([action]), physics)
            mine = step.state
            assert mine[0].numpy() == pytest.approx(np.array(theirs.state)) and bool(step.over) == over
        falls += 1


def test_nothing_counts_after_a_fall():
    data, [episode] = CartPoles(horizon=60), episodes(CartPoles(horizon=60))
    net = network(data)
    learner = make_learner("fomaml", net, task=data.task)
    output = learner.predict(start(learner), episode.query.x)
    found = Trajectories.of(output)
    assert (found.alive.diff(dim=1) <= 0).all() and found.alive[:, 0].min() == 1 and found.alive.min() == 0
    assert data.task.score(output, episode.query.y).item() == pytest.approx(found.alive.sum(1).mean().item())
    later = found.alive == 0
    spoilt = found._replace(rewards=torch.where(later, 7.0, found.rewards), log_probs=found.log_probs - 9 * later)
    assert torch.allclose(data.task.loss(spoilt.packed(), episode.query.y), data.task.loss(output, episode.query.y))


def test_discrete_actions_follow_the_policy():
    data = DATA["cartpole"]
    net, count = network(data).double(), 20_000
    logits = torch.tensor([0.3, -0.4], dtype=torch.float64)
    net.policy.head.weight.data.zero_()
    net.policy.head.bias.data.copy_(logits)
    draws = torch.rand(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        share = net._act(torch.zeros(count, 4, dtype=torch.float64), draws).double().mean().item()
    assert share == pytest.approx(logits.softmax(-1)[1].item(), abs=0.01)


@pytest.mark.parametrize("name", ["maml", "fomaml", "emaml", "reptile", "fedavg", "metasgd"])
@pytest.mark.parametrize("data", list(DATA))
def test_loop_and_vmap_agree(name, data):
    data, batch = DATA[data], episodes(DATA[data], 3)
    learner = make_learner(name, network(data), task=data.task, inner_lr=0.05)
    loop, vmap = (over_tasks(learner.meta_gradient, start(learner), batch, way) for way in ("loop", "vmap"))
    for key in loop[0]:
        assert torch.allclose(loop[0][key], vmap[0][key], rtol=1e-9, atol=1e-9), key
    assert torch.allclose(loop[1]["return"], vmap[1]["return"])


def test_mamls_meta_gradient_is_the_derivative_with_actions_held():
    """Autograd through one written-out inner step, whose rollouts are constants, against the learner."""
    data = Nav2D(horizon=4, estimator="dice")
    [episode] = episodes(data)
    net = network(data)
    learner = make_learner("maml", net, task=data.task, inner_lr=0.05)
    params = {name: value.requires_grad_() for name, value in start(learner).items()}

    def loss(p, batch):
        return data.task.loss(torch.func.functional_call(net, p, (batch.x,)), batch.y)

    inner = torch.autograd.grad(loss(params, episode.support), tuple(params.values()), create_graph=True)
    adapted = {name: value - 0.05 * slope for (name, value), slope in zip(params.items(), inner, strict=True)}
    expected = torch.autograd.grad(loss(adapted, episode.query), tuple(params.values()))
    found, _ = learner.meta_gradient(params, episode)
    for name, value in zip(params, expected, strict=True):
        assert torch.allclose(found[name], value, rtol=1e-8, atol=1e-10), name


def test_emaml_adds_the_score_of_the_support():
    data = Nav2D(horizon=4, estimator="plain")
    [episode] = episodes(data)
    net = network(data)
    maml, emaml = (make_learner(name, net, task=data.task, inner_lr=0.05) for name in ("maml", "emaml"))
    params = {name: value.requires_grad_() for name, value in start(maml).items()}
    played = Trajectories.of(torch.func.functional_call(net, params, (episode.support.x,)))
    score = torch.autograd.grad(played.log_probs.sum(), tuple(params.values()))
    losses = [
        data.task.loss(maml.predict(p, episode.query.x), episode.query.y)
        for p in (params, maml.adapt(params, episode.support, 1))
    ]
    without, together = (learner.meta_gradient(params, episode)[0] for learner in (maml, emaml))
    for name, slope in zip(params, score, strict=True):
        assert torch.allclose(together[name] - without[name], (losses[1] - losses[0]) * slope, rtol=1e-6), name


def test_rewards_multiplied_by_minus_one_turn_the_gradient_and_leave_the_score():
    data, [episode] = DATA["nav2d"], episodes(DATA["nav2d"])
    learner = make_learner("fedavg", network(data), task=data.task)
    params = start(learner)
    honest, seen = learner.meta_gradient(params, episode)
    flipped = episode._replace(
        support=episode.support._replace(y=-episode.support.y), query=episode.query._replace(y=-episode.query.y)
    )
    turned, told = learner.meta_gradient(params, flipped)
    assert all(torch.allclose(turned[name], -honest[name]) for name in honest)
    assert told["return"] == seen["return"] and torch.allclose(told["loss"], -seen["loss"])


def test_baselines():
    generator = torch.Generator().manual_seed(0)
    returns = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    seen = torch.randn(6, 4, 2, generator=generator, dtype=torch.float64)
    alive = torch.ones(6, 4, dtype=torch.float64)
    assert not fit_baseline("none", returns, seen, alive).any()
    others = fit_baseline("time", returns, seen, alive)
    assert torch.allclose(others[2], torch.cat([returns[:2], returns[3:]]).mean(0))
    assert not fit_baseline("time", returns[:1], seen[:1], alive[:1]).any()
    time = torch.linspace(0, 1, 4, dtype=torch.float64)
    features = torch.cat([seen, seen**2, torch.stack([time**k for k in range(4)], -1).expand(6, -1, -1)], -1)
    truth = features @ torch.arange(1.0, 9.0, dtype=torch.float64)
    assert torch.allclose(fit_baseline("linear", truth, seen, alive), truth, atol=1e-2)


def test_an_attackers_success_is_to_do_worse_than_all_others():
    rewards = torch.tensor([[3.0], [2.0], [1.0], [2.5]])
    output = Trajectories(torch.zeros(4, 1), rewards, torch.ones(4, 1), torch.zeros(4, 1, 2)).packed()
    assert Control().answers(output, torch.tensor([1.0, 1.0, -1.0, -1.0])).tolist() == [0, 0, 1, 0]
