"""iMAML: the implicit gradient of a quadratic in closed form, of a net against an exact solve, and of the optimum."""

import pytest
import torch
from torch import nn

from fedmeta.learners import make_learner
from fedmeta.learners.imaml import conjugate_gradients, hessian_product
from fedmeta.tasks import Batch, Episode


def linear_task(generator, inputs=5):
    """Least squares in `inputs` dimensions: the loss is a quadratic of the weights, with H = 2 X^T X / n."""
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return Episode(Batch(draw(8, inputs), draw(8, 1)), Batch(draw(6, inputs), draw(6, 1)), torch.zeros(0).long())


def closed_form(theta, task, regularisation):
    """theta [5] -> query gradient at the exact optimum, solved against I + H / lambda; also the optimum."""
    (x, y), (query_x, query_y) = task.support, task.query
    hessian = 2 * x.T @ x / len(x)
    identity = torch.eye(len(theta), dtype=torch.float64)
    right = 2 * x.T @ y[:, 0] / len(x) + regularisation * theta
    optimum = torch.linalg.solve(hessian + regularisation * identity, right)
    slope = 2 * query_x.T @ (query_x @ optimum - query_y[:, 0]) / len(query_x)
    return torch.linalg.solve(identity + hessian / regularisation, slope), optimum


@pytest.fixture
def quadratic():
    generator = torch.Generator().manual_seed(0)
    task = linear_task(generator)
    theta = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    return task, theta


def learner(**settings):
    net = nn.Linear(5, 1, bias=False).double()
    return make_learner("imaml", net, "regression", inner_lr=0.1, regularisation=1.5, **settings)


def test_the_implicit_gradient_of_a_quadratic(quadratic):
    """Each conjugate gradient step brings it closer; five of them are exact in five dimensions."""
    task, theta = quadratic
    exact, optimum = closed_form(theta[0], task, 1.5)
    adapted = learner(inner_steps=600).adapt({"weight": theta}, task.support, 1)
    torch.testing.assert_close(adapted["weight"][0], optimum, rtol=1e-12, atol=1e-12)
    errors = []
    for steps in range(6):
        grads, _ = learner(inner_steps=600, cg_steps=steps).meta_gradient({"weight": theta}, task)
        errors.append(float((grads["weight"][0] - exact).norm() / exact.norm()))
    assert errors[5] < 1e-12 and errors == sorted(errors, reverse=True) and errors[2] < 0.2 * errors[0]


def test_it_is_the_derivative_of_the_query_loss_at_the_optimum(quadratic):
    """By central differences through the closed-form optimum: no line of the implicit formula is used."""
    task, theta = quadratic

    def query_loss(point):
        _, optimum = closed_form(point, task, 1.5)
        return ((task.query.x @ optimum - task.query.y[:, 0]) ** 2).mean()

    steps = torch.eye(5, dtype=torch.float64) * 1e-5
    differences = torch.stack([(query_loss(theta[0] + e) - query_loss(theta[0] - e)) / 2e-5 for e in steps])
    grads, metrics = learner(inner_steps=600, cg_steps=5).meta_gradient({"weight": theta}, task)
    torch.testing.assert_close(grads["weight"][0], differences, rtol=1e-7, atol=1e-8)
    assert set(metrics) == {"loss", "mse"}


def test_hessian_product_and_solve_on_a_net(make_case):
    """Against the Hessian that torch.func writes out, at the point that the inner loop reaches."""
    case = make_case("imaml", cg_steps=200)
    adapted = case.learner.adapt(case.params, case.episode.support, 3, case.learner.inner_steps)
    names, sizes = list(adapted), [value.numel() for value in adapted.values()]

    def unflat(vector):
        return {n: p.reshape(adapted[n].shape) for n, p in zip(names, vector.split(sizes), strict=True)}

    def loss(vector, batch):
        logits = torch.func.functional_call(case.model, unflat(vector), (batch.x,))
        return nn.functional.cross_entropy(logits, batch.y)

    point = torch.cat([adapted[name].flatten() for name in names])
    hessian = torch.func.hessian(loss)(point, case.episode.support)
    v = torch.randn(point.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = hessian_product(lambda p: case.learner._support_loss(p, case.episode.support), adapted, unflat(v))
    torch.testing.assert_close(torch.cat([found[n].flatten() for n in names]), hessian @ v, rtol=1e-10, atol=1e-12)
    slope = torch.func.grad(loss)(point, case.episode.query)
    system = torch.eye(len(point), dtype=torch.float64) + hessian / case.learner.regularisation
    assert torch.linalg.eigvalsh(system).min() > 0, "the pull makes the inner problem convex here"
    grads, _ = case.learner.meta_gradient(case.params, case.episode)
    exact = torch.linalg.solve(system, slope)
    torch.testing.assert_close(torch.cat([grads[n].flatten() for n in names]), exact, rtol=1e-8, atol=1e-10)


def test_no_step_is_taken_along_negative_curvature():
    b = {"x": torch.tensor([1.0, 2.0])}
    bent = conjugate_gradients(lambda x: {"x": -x["x"]}, b, 3)
    assert torch.equal(bent["x"], b["x"])
    solved = conjugate_gradients(lambda x: x, b, 3)
    assert torch.equal(solved["x"], b["x"])
