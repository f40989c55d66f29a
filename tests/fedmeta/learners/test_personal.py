"""pFedMe and Ditto: the Moreau envelope in closed form, both objectives by autograd, personal steps in training."""

import pytest
import torch
from torch import nn

from fedmeta.cohort import LocalPlan
from fedmeta.learners import make_learner
from fedmeta.learners.personal import PERSONAL
from fedmeta.optimisers import Adam
from fedmeta.params import ParamSpec
from fedmeta.tasks import Batch, Episode
from fedmeta.training import train_cohort

LAMBDA = 3.0


@pytest.fixture
def quadratic():
    """Least squares in four dimensions: shared and personal weights apart, and one task."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    task = Episode(Batch(draw(5, 4), draw(5, 1)), Batch(draw(4, 4), draw(4, 1)), torch.zeros(0).long())
    return {"weight": draw(1, 4), PERSONAL + "weight": draw(1, 4)}, task


def test_pfedme_descends_the_moreau_envelope(quadratic):
    """Envelope min_v f(v) + lambda/2 |v - w|^2 of a quadratic: gradient lambda (w - v*), and by differences."""
    params, task = quadratic
    learner = make_learner(
        "pfedme",
        nn.Linear(4, 1, bias=False).double(),
        "regression",
        inner_lr=0.08,
        inner_steps=800,
        regularisation=LAMBDA,
    )
    x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
    curvature = 2 * x.T @ x / len(x) + LAMBDA * torch.eye(4, dtype=torch.float64)

    def optimum(w):
        return torch.linalg.solve(curvature, 2 * x.T @ y[:, 0] / len(x) + LAMBDA * w)

    def envelope(w):
        v = optimum(w)
        return ((x @ v - y[:, 0]) ** 2).mean() + LAMBDA / 2 * ((v - w) ** 2).sum()

    grads, metrics = learner.meta_gradient(params, task)
    w, v = params["weight"][0], optimum(params["weight"][0])
    torch.testing.assert_close(grads["weight"][0], LAMBDA * (w - v), rtol=1e-12, atol=1e-12)
    moved = params[PERSONAL + "weight"] - grads[PERSONAL + "weight"]
    torch.testing.assert_close(moved[0], v, rtol=1e-12, atol=1e-12)
    steps = 1e-5 * torch.eye(4, dtype=torch.float64)
    differences = torch.stack([(envelope(w + e) - envelope(w - e)) / 2e-5 for e in steps])
    torch.testing.assert_close(grads["weight"][0], differences, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(metrics["loss"], ((x @ v - y[:, 0]) ** 2).mean())


def test_ditto_against_autograd(quadratic):
    params, task = quadratic
    learner = make_learner(
        "ditto", nn.Linear(4, 1, bias=False).double(), "regression", inner_lr=0.1, regularisation=LAMBDA
    )
    x, y = torch.cat([task.support.x, task.query.x]), torch.cat([task.support.y, task.query.y])
    w, v = (value.clone().requires_grad_() for value in params.values())
    [shared] = torch.autograd.grad(((x @ w.T - y) ** 2).mean(), w)
    [own] = torch.autograd.grad(((x @ v.T - y) ** 2).mean() + LAMBDA / 2 * ((v - w.detach()) ** 2).sum(), v)
    grads, metrics = learner.meta_gradient(params, task)
    torch.testing.assert_close(grads["weight"], shared, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[PERSONAL + "weight"], 0.1 * own, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(metrics["loss"], ((x @ v.T - y) ** 2).mean().detach())


def test_dittos_shared_model_is_fedavgs(quadratic):
    """What personal weights do is not seen in it."""
    params, task = quadratic
    learner = make_learner("ditto", nn.Linear(4, 1, bias=False).double(), "regression")
    joint = make_learner("fedavg", nn.Linear(4, 1, bias=False).double(), "regression")
    grads, _ = learner.meta_gradient(params, task)
    plain, _ = joint.meta_gradient({"weight": params["weight"]}, task)
    assert torch.equal(grads["weight"], plain["weight"])


def test_a_new_client_starts_at_the_shared_model_and_is_pulled_to_it(quadratic):
    params, task = quadratic
    far = make_learner("ditto", nn.Linear(4, 1, bias=False).double(), "regression", inner_lr=0.05, regularisation=0)
    near = make_learner("ditto", nn.Linear(4, 1, bias=False).double(), "regression", inner_lr=0.05, regularisation=9)
    fresh = {**params, **far.personal_start(params)}
    assert torch.equal(fresh[PERSONAL + "weight"], params["weight"])
    moves = [(learner.adapt(fresh, task.support, 1, 20)["weight"] - params["weight"]).norm() for learner in (far, near)]
    assert moves[0] > 2 * moves[1] > 0


@pytest.mark.parametrize("execution", ["loop", "vmap"])
def test_personal_entries_take_the_learners_step_whatever_the_optimiser(make_case, execution):
    """Two steps of training with Adam: the shared entries move by it, the personal ones as the learner says."""
    case = make_case("ditto")
    spec = ParamSpec.of(case.params, personal=[PERSONAL + "*"])
    plan = LocalPlan(2, 1, Adam(lr=0.01), execution=execution)
    result = train_cohort(
        case.learner,
        spec,
        spec.flatten(case.params),
        2,
        lambda client, step, count: [case.episodes[step]],
        plan,
        personal=spec.flatten(case.params, "personal").expand(2, -1),
    )
    assert not result.failures
    params, optimiser = dict(case.params), plan.optimiser
    state = optimiser.init(spec.flatten(params))
    for task in case.episodes[:2]:
        grads, _ = case.learner.meta_gradient(params, task)
        state, change = optimiser.step(state, spec.flatten(grads))
        own = spec.flatten(params, "personal") - spec.flatten(grads, "personal")
        params = {**spec.unflatten(spec.flatten(params) + change), **spec.unflatten(own, "personal")}
    for row in range(2):
        torch.testing.assert_close(result.personal[row], spec.flatten(params, "personal"), rtol=1e-10, atol=1e-12)
        moved = spec.flatten(params) - spec.flatten(case.params)
        torch.testing.assert_close(result.updates[row], moved, rtol=1e-9, atol=1e-12)
