"""Through the adaptation: gradients on the support against differences, and who is refused."""

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.errors import ConfigurationError
from fedmeta.evasion.losses import cross_entropy
from fedmeta.evasion.pgd import input_gradient
from fedmeta.evasion.plan import Plan, attacks_of
from fedmeta.evasion.robustness import robustness
from fedmeta.evasion.target import check_differentiable, target_of
from fedmeta.execution import over_tasks
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.models.network import Network
from fedmeta.tasks import Batch, Episode

SETTINGS: dict[str, dict] = {
    "maml": {"inner_lr": 0.5, "inner_steps": 2},
    "fomaml": {"inner_lr": 0.5, "inner_steps": 2},
    "anil": {"inner_lr": 0.5, "inner_steps": 2},
    "boil": {"inner_lr": 0.5, "inner_steps": 2},
    "metasgd": {"inner_lr": 0.5, "inner_steps": 2},
    "imaml": {"inner_lr": 0.3, "inner_steps": 3},
    "protonet": {},
    "matchingnet": {},
}
FLAT: dict[str, dict] = {
    "reptile": {"test_steps": 3},
    "fedavg": {},
    "perfedavg": {},
    "lstm_meta": {},
    "pfedme": {},
    "ditto": {},
}


def smooth(name: str, **settings):
    """A learner around a net without kinks in float64, its parameters, and an episode of three classes."""
    outputs = {"protonet": None, "matchingnet": None, "fedavg": 8}.get(name, 3)
    body = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh())
    model = Network(body, None if outputs is None else torch.nn.Linear(5, outputs), features=5).double()
    learner = make_learner(name, model, **settings)
    generator = torch.Generator().manual_seed(5)
    params = {key: value.double() for key, value in learner.init(generator).items()}

    def batch(shots: int) -> Batch:
        y = torch.arange(3).repeat(shots)
        return Batch(torch.rand(len(y), 6, generator=generator, dtype=torch.float64), y)

    return learner, params, Episode(batch(2), batch(3), torch.tensor([4, 2, 7]))


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("part", ["support", "both"])
def test_gradients_pass_through_the_adaptation(name: str, part) -> None:
    """Against central differences of the query's loss as a function of the support: through all inner steps."""
    learner, params, episode = smooth(name, **SETTINGS[name])
    target = target_of(learner, params, episode, part)
    check_differentiable(learner, params, episode)
    slope = input_gradient(target.logits_of, target.x, target.y)
    assert slope.shape == target.x.shape
    for place in ((0, 0, 1), (0, 5, 4), (0, -1, 2)):
        ends = []
        for sign in (1, -1):
            moved = target.x.clone()
            moved[place] += sign * 1e-5
            ends.append(cross_entropy(target.logits_of(moved).detach(), target.y).mean())
        assert float(slope[place]) == pytest.approx(float((ends[0] - ends[1]) / 2e-5), rel=1e-4, abs=1e-9), place


@pytest.mark.parametrize(
    ("name", "part"),
    [("maml", "query"), ("maml", "both"), ("protonet", "query"), ("protonet", "support"), ("matchingnet", "support")],
)
def test_loop_and_vmap_find_the_same_points(name: str, part) -> None:
    learner, params, episode = smooth(name, **SETTINGS[name])
    plan = Plan(
        eps=(0.1,), attacks=attacks_of(["pgd", "apgd"], {"apgd_ce": {"steps": 6}, "apgd_dlr": {"steps": 6}}), on=part
    )
    other = Episode(Batch(episode.query.x[:6], episode.query.y[:6]), episode.query, episode.classes)
    ball = plan.ball(0.1)

    def moved(evasion):
        def run(params, episode):
            target = target_of(learner, params, episode, part)
            return evasion(target.logits_of, target.x, target.y, ball, torch.tensor(1))

        return run

    for evasion in plan.attacks.values():
        loop, batched = (over_tasks(moved(evasion), params, [episode, other], way) for way in ("loop", "vmap"))
        assert torch.allclose(loop, batched, atol=1e-9), evasion


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_a_moved_support_spoils_clean_queries(name: str, request: pytest.FixtureRequest) -> None:
    """It is stronger than noise on it, moving both is stronger still, and more eps never helps the model."""
    trained, quick, by, clean = request.getfixturevalue(name), {"pgd": {"steps": 5, "step": 0.4}}, {}, 0.0
    for on in ("query", "support", "both"):
        plan = Plan(eps=(0.05, 0.2), attacks=attacks_of(["noise", "pgd"], quick), on=on)
        found = robustness(trained.learner, trained.params, trained.episodes[:8], plan)
        clean = found.clean.mean
        assert found.zero_gradients == 0
        by |= {(on, figure.attack, figure.eps): figure.accuracy.mean for figure in found.figures}
        assert by[on, "pgd", 0.2] < by[on, "noise", 0.2]
        assert by[on, "pgd", 0.2] <= by[on, "pgd", 0.05] + 0.02
    assert by["support", "pgd", 0.2] < clean - 0.1
    assert by["both", "pgd", 0.2] <= min(by["support", "pgd", 0.2], by["query", "pgd", 0.2]) + 0.02


@pytest.mark.parametrize("name", list(FLAT))
def test_a_learner_without_gradients_on_its_support_is_refused(name: str) -> None:
    learner, params, episode = smooth(name, **FLAT[name])
    plan = Plan(eps=(0.1,), attacks=attacks_of(["pgd"]), on="support")
    with pytest.raises(ConfigurationError, match=rf"'{name}' gives none.*--on query"):
        robustness(learner, params, [episode], plan)
    robustness(learner, params, [episode], Plan(eps=(0.1,), attacks=attacks_of(["pgd"], {"pgd": {"steps": 2}})))
    blind = Plan(eps=(0.1,), attacks=attacks_of(["noise"]), on="support")
    assert robustness(learner, params, [episode], blind).zero_gradients is None, "a black box asks for none"


def test_no_inner_step_sees_no_support() -> None:
    learner, params, episode = smooth("maml", **SETTINGS["maml"])
    with pytest.raises(ConfigurationError, match="constant to its gradients"):
        check_differentiable(learner, params, episode, steps=0)


def test_regression_is_refused() -> None:
    model = make_model("sinusoid")
    learner = make_learner("maml", model, "regression", inner_lr=0.01)
    federation = load_dataset("sinusoid").federate(PARTITIONS.make("iid", clients=3, validation_clients=0), 0)
    episode = federation.source(0).sample(EpisodeShape(1, 5, 5), np.random.default_rng(0))
    params = learner.init(torch.Generator().manual_seed(0))
    with pytest.raises(ConfigurationError, match="this task is regression"):
        robustness(learner, params, [episode], Plan(eps=(0.1,), attacks=attacks_of(["pgd"])))
