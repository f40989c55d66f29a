"""Gymnasium through the adapter: the same rollouts as the tensor environment, and what it refuses."""

import numpy as np
import pytest
import torch

from fedmeta.data import load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.errors import ConfigurationError
from fedmeta.evaluation import evaluate
from fedmeta.execution import resolve
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.rl.cartpole import CartPole
from fedmeta.rl.rollout import Rollout
from fedmeta.rl.simulator import _KEPT, close_environments
from fedmeta.rl.trajectories import Trajectories

gymnasium = pytest.importorskip("gymnasium", reason="pip install 'fedmeta[gymnasium]'")
SHAPE = EpisodeShape(1, 3, 3)


def learner(data, name="fomaml"):
    model = make_model("policy", input_shape=data.input_shape, ways=data.outputs, hidden=[8])
    return make_learner(name, data.network(model), task=data.task, inner_lr=0.05)


def test_a_pole_is_balanced_as_by_the_tensor_environment():
    data = load_dataset("gymnasium", env="CartPole-v1", horizon=25)
    ours = learner(data)
    params = ours.init(torch.Generator().manual_seed(0))
    episode = data.everything().sample(SHAPE, np.random.default_rng(0))
    found = Trajectories.of(ours.predict(params, episode.query.x))
    again = Trajectories.of(ours.predict(params, episode.query.x))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    tensor = Rollout(ours.model.policy, CartPole(25))
    row = ours.model.layout.unpack(episode.query.x)
    same = row._replace(physics=torch.tensor([[1.0, 0.1, 0.5]]).expand(3, -1), start=found.observations[:, 0])
    played = Trajectories.of(torch.func.functional_call(tensor, params, (tensor.layout.pack(same),)))
    assert torch.equal(played.alive, found.alive)
    living = found.alive.unsqueeze(-1)
    assert torch.allclose(played.observations * living, found.observations * living, atol=1e-4)
    assert torch.allclose(played.log_probs * found.alive, found.log_probs * found.alive, atol=1e-4)


def test_attributes_are_a_tasks_own_and_boxes_are_acted_in():
    data = load_dataset("gymnasium", env="Pendulum-v1", horizon=6, vary=["g", "m"], range=2.0)
    ours = learner(data, "maml")
    rng = np.random.default_rng(0)
    tasks = data.family(rng)
    episodes = [tasks.sample(SHAPE, rng) for _ in range(2)]
    physics = [ours.model.layout.unpack(one.support.x).physics[0] for one in episodes]
    assert not torch.equal(*physics)
    assert all(0.4 < factor < 2.3 for one in physics for factor in (one / torch.tensor([10.0, 1.0])).tolist())
    params = ours.init(torch.Generator().manual_seed(0))
    grads, metrics = ours.meta_gradient(params, episodes[0])
    assert metrics["return"] < 0 and all(value.abs().sum() > 0 for value in grads.values())
    scores = evaluate(ours, params, episodes, (0, 1))
    assert scores.score.shape == (2, 2) and scores.score.isfinite().all()


def test_what_cannot_be_is_refused():
    data = load_dataset("gymnasium")
    model = learner(data).model
    assert resolve("auto", model, torch.device("cpu")) == "loop"
    with pytest.raises(ConfigurationError, match="steps outside of torch"):
        resolve("vmap", model, torch.device("cpu"))
    with pytest.raises(ConfigurationError, match=r"data\.env = 'Nowhere-v0'"):
        load_dataset("gymnasium", env="Nowhere-v0").input_shape  # noqa: B018
    with pytest.raises(ConfigurationError, match="has no such number"):
        load_dataset("gymnasium", vary=["colour"]).input_shape  # noqa: B018
    with pytest.raises(ConfigurationError, match="a flat vector"):
        load_dataset("gymnasium", env="Blackjack-v1").input_shape  # noqa: B018


def test_environments_are_made_once_a_process_and_closed():
    close_environments()
    data = load_dataset("gymnasium", env="CartPole-v1", horizon=2)
    ours = learner(data)
    params = ours.init(torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    played = [data.everything().sample(EpisodeShape(1, n, 1), rng).support.x for n in range(1, 7)]
    for rows in played:
        ours.predict(params, rows)
    kept = dict(_KEPT)
    assert [key[2] for key in kept] == [1, 2, 3, 4, 5, 6]
    for rows in played:
        ours.predict(params, rows)
    assert all(_KEPT[key] is made for key, made in kept.items()), "six sizes in turn, each made once"
    close_environments()
    assert not _KEPT and all(made.closed for made in kept.values())


def test_a_set_attribute_does_not_reach_another_experiment():
    def returns(data):
        ours = learner(data)
        params = ours.init(torch.Generator().manual_seed(0))
        return Trajectories.of(ours.predict(params, data.everything().sample(SHAPE, np.random.default_rng(3)).query.x))

    plain = load_dataset("gymnasium", env="Pendulum-v1", horizon=5)
    before = returns(plain)
    returns(load_dataset("gymnasium", env="Pendulum-v1", horizon=5, vary=["g"], range=4.0))
    assert torch.equal(returns(plain).rewards, before.rewards)


def test_choices_are_numbered_as_the_environment_numbers_them():
    class Shifted(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        action_space = gymnasium.spaces.Discrete(2, start=5)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, dtype=np.float32), {}

        def step(self, action):
            assert self.action_space.contains(action), action
            return np.zeros(1, dtype=np.float32), float(action), False, False, {}

    class Buttons(Shifted):
        action_space = gymnasium.spaces.MultiBinary(2)

    for name, env in (("Shifted-v0", Shifted), ("Buttons-v0", Buttons)):
        gymnasium.register(name, entry_point=env)
    data = load_dataset("gymnasium", env="Shifted-v0", horizon=4)
    ours = learner(data)
    params = ours.init(torch.Generator().manual_seed(0))
    found = Trajectories.of(ours.predict(params, data.everything().sample(SHAPE, np.random.default_rng(0)).query.x))
    assert set(found.rewards.flatten().tolist()) == {5.0, 6.0}
    with pytest.raises(ConfigurationError, match="acts by MultiBinary"):
        load_dataset("gymnasium", env="Buttons-v0").input_shape  # noqa: B018
