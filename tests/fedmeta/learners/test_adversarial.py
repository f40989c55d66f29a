"""Adversarial meta-training: each objective against a hand-written computation, and under both executions."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from fedmeta.adversarial import OBJECTIVES, make_objective
from fedmeta.adversarial.base import Attack
from fedmeta.adversarial.check import judges_queries
from fedmeta.evasion.ball import Ball
from fedmeta.execution import over_tasks
from fedmeta.experiment import Experiment
from fedmeta.learners.draws import task_seed
from fedmeta.learners.functional import query_loss
from fedmeta.learners.maml import MAML
from fedmeta.tasks import Batch

SUPPORTED = [
    "maml",
    "fomaml",
    "anil",
    "metasgd",
    "boil",
    "imaml",
    "perfedavg",
    "protonet",
    "matchingnet",
    "lstm_meta",
    "abml",
]  # fmt: skip
BALL = Ball("linf", 0.3, -9, 9)
ATTACK = Attack(BALL, steps=2, step=0.7, salt=12345)
TRAINED = [name for name in OBJECTIVES.entries() if name != "none"]


def start_of(x, stream=0):
    return BALL.random(x, task_seed(x) + ATTACK.salt, stream)


def climbed(loss, x, stream=0):
    """Two signed steps up a loss of the inputs, by autograd alone."""
    point = start_of(x, stream)
    for _ in range(2):
        point = point.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(point), point)
        point = x + (point.detach() + 0.7 * 0.3 * slope.sign() - x).clamp(-0.3, 0.3)
    return point.detach()


def kl(p, q):
    return F.kl_div(q.log_softmax(1), p.log_softmax(1), reduction="batchmean", log_target=True)


def maml_by_hand(by_hand, theta, support, inner_lr, steps):
    for _ in range(steps):
        slopes = torch.autograd.grad(
            F.cross_entropy(by_hand(theta, support.x), support.y), list(theta.values()), create_graph=True
        )
        theta = {name: value - inner_lr * slope for (name, value), slope in zip(theta.items(), slopes, strict=True)}
    return lambda x: by_hand(theta, x)


def protonet_by_hand(by_hand, theta, support):
    z = by_hand(theta, support.x)
    means = torch.stack([z[support.y == k].mean(dim=0) for k in range(3)])
    return lambda x: -((by_hand(theta, x).unsqueeze(1) - means) ** 2).sum(dim=2)


@pytest.mark.parametrize("name", ["maml", "protonet"])
@pytest.mark.parametrize("objective", TRAINED)
def test_gradients_by_hand(make_case, by_hand, relative_error, name, objective) -> None:
    case = make_case(name)
    theta = {key: value.clone().requires_grad_() for key, value in case.params.items()}
    support, query = case.episode.support, case.episode.query

    def adapted(support):
        return (
            maml_by_hand(by_hand, theta, support, 0.5, 2)
            if name == "maml"
            else protonet_by_hand(by_hand, theta, support)
        )

    def loss(batch, model):
        return F.cross_entropy(model(batch.x), batch.y)

    model = adapted(support)
    clean = model(query.x).detach()
    if objective == "trades":
        moved = climbed(lambda x: kl(clean, model(x)) * len(x), query.x)
        expected = loss(query, model) + 6 * kl(model(query.x), model(moved))
    else:
        moved = climbed(lambda x: loss(Batch(x, query.y), model), query.x)
        expected = loss(Batch(moved, query.y), model)
    if objective == "rmaml":
        expected = loss(query, model) + 2 * expected
    if objective == "adml":
        bad = climbed(lambda x: loss(Batch(x, support.y), model), support.x, stream=1)
        expected = (loss(query, adapted(Batch(bad, support.y))) + expected) / 2
    slopes = torch.autograd.grad(expected, list(theta.values()))
    more = {"weight": 2.0} if objective == "rmaml" else {}
    found, metrics = make_objective(objective, **more).meta_gradient(case.learner, case.params, case.episode, ATTACK)
    assert relative_error(found, dict(zip(theta, slopes, strict=True))) < 1e-12
    assert metrics["loss"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert metrics["accuracy"].item() == pytest.approx((clean.argmax(1) == query.y).double().mean().item())


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_learners_own_loss_gives_its_own_gradient(make_case, relative_error, name) -> None:
    case = make_case(name)
    own, metrics = case.learner.meta_gradient(case.params, case.episode)
    found, told = case.learner.query_gradient(case.params, case.episode, query_loss)
    assert relative_error(found, own) < 1e-15
    assert name == "abml" or {key: value.item() for key, value in told.items()} == {
        k: v.item() for k, v in metrics.items()
    }


@pytest.mark.parametrize(
    ("name", "objective"),
    [(name, "aq") for name in SUPPORTED] + [(n, o) for n in ("maml", "abml") for o in TRAINED[1:]],
)
def test_loop_and_vmap_agree(make_case, relative_error, name, objective) -> None:
    """Draws come from the task, so that both see the same random starts."""
    case = make_case(name)
    made = make_objective(objective)
    results = [
        over_tasks(lambda p, e: made.meta_gradient(case.learner, p, e, ATTACK), case.params, case.episodes, way)
        for way in ("loop", "vmap")
    ]
    (loop, told), (vmap, batched) = results
    assert relative_error(vmap, loop) < (1e-9 if name == "perfedavg" else 1e-12)
    assert told.keys() == batched.keys() == {"loss", "accuracy"}


def test_the_attack_stays_in_its_ball_and_raises_the_loss(make_case) -> None:
    case = make_case("maml")
    adapted = case.learner.adapt(case.params, case.episode.support, 3)
    query = case.episode.query
    for norm in ("linf", "l2"):
        ball = Ball(norm, 0.5, -9, 9)
        moved = Attack(ball, 5, 0.4, 1)(case.learner, adapted, query)
        assert ball.distance(moved.x, query.x).max() <= 0.5 + 1e-12
        before, after = (query_loss(case.learner, adapted, each)[0] for each in (query, moved))
        assert after > before
        assert not torch.equal(moved.x, Attack(ball, 5, 0.4, 2)(case.learner, adapted, query).x)


def test_a_ball_of_no_size_is_plain_training(make_case, relative_error) -> None:
    case, nothing = make_case("protonet"), Attack(Ball("linf", 0.0, -9, 9), 2, 0.5, 1)
    own, _ = case.learner.meta_gradient(case.params, case.episode)
    for name, factor in (("aq", 1), ("adml", 1), ("trades", 1), ("rmaml", 2)):
        found, _ = make_objective(name).meta_gradient(case.learner, case.params, case.episode, nothing)
        assert relative_error(found, {key: factor * value for key, value in own.items()}) < 1e-12


def test_the_radius_grows_over_the_warm_up_and_starts_differ_by_round() -> None:
    experiment = Experiment.model_validate({"server": {"rounds": 30}})
    objective = make_objective("aq", eps=0.2, warm_up=0.5)
    radii = [objective.attack(experiment, round).ball.eps for round in (1, 3, 15, 16, 30)]
    assert radii == pytest.approx([0.2 / 15, 0.2 / 5, 0.2, 0.2, 0.2])
    assert make_objective("aq", warm_up=0.0).attack(experiment, 1).ball.eps == 0.1
    salts = {objective.attack(experiment, round).salt for round in range(1, 31)}
    assert len(salts) == 30
    assert objective.attack(experiment.model_copy(update={"seed": 1}), 1).salt not in salts


@pytest.mark.parametrize("seed", range(5))
def test_a_share_of_the_clients_is_close_to_its_number_and_grows(seed: int) -> None:
    sets = [
        {client for client in range(30) if make_objective("aq", share=share).trains(seed, client)}
        for share in (0.1, 0.25, 0.5, 0.75, 1.0)
    ]
    assert [len(each) for each in sets] == pytest.approx([3, 7.5, 15, 22.5, 30], abs=3)
    assert all(small <= large for small, large in itertools.pairwise(sets))


def test_who_can_train_so(case) -> None:
    assert judges_queries(case.learner) is (case.name in SUPPORTED)


def test_a_subclass_with_another_gradient_is_not_trained_as_its_parent(make_case) -> None:
    class Other(MAML):
        def meta_gradient(self, params, episode):
            return super().meta_gradient(params, episode)

    case = make_case("maml")
    assert not judges_queries(Other(case.model, case.learner.task))
