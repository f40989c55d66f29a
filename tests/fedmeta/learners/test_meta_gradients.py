"""Gradients are proved: each meta-gradient against finite differences, and against an unroll written out by hand.

The twin below shares no line with the library: the net is written out, cross-entropy too, and the inner loops are plain
`torch.autograd.grad(create_graph=True)`. Whose derivative a meta-gradient is, differs:

- MAML, ANIL, BOIL, Meta-SGD: of theta -> query loss at theta_k(theta), with respect to all meta-parameters, alpha
  included;
- FOMAML: of phi -> query loss at phi, at the point phi = theta_k;
- ProtoNet: of theta -> query loss; FedAvg: of theta -> loss on support and query;
- Reptile: of nothing (its field is no gradient). The finite-difference check replaces every inner gradient by
  differences and follows the path.
"""

import pytest
import torch

LEARNERS_WITH_INNER_GRADIENTS = ("maml", "anil", "boil", "metasgd")


@pytest.fixture(params=["maml", "fomaml", "anil", "boil", "metasgd", "reptile", "protonet", "fedavg"])
def case(request, make_case):
    """The others have files of their own."""
    return make_case(request.param)


def cross_entropy(logits, y):
    return -(logits - logits.logsumexp(dim=1, keepdim=True))[torch.arange(len(y)), y].mean()


class ByHand:
    """The learners written out once more."""

    def __init__(self, case, net):
        self.case, self.net = case, net
        self.support, self.query, self.classes = case.episode

    def support_loss(self, p):
        return cross_entropy(self.net(p, self.support.x), self.support.y)

    def query_loss(self, p):
        return cross_entropy(self.net(p, self.query.x), self.query.y)

    def adapted(self, p):
        """theta_k, with its graph."""
        lr, steps = self.case.learner.inner_lr, self.case.learner.inner_steps
        theta = {name: value for name, value in p.items() if not name.startswith("alpha.")}
        heads = {"anil": (True,), "boil": (False,)}.get(self.case.name, (True, False))
        moving = [name for name in theta if name.startswith("head.") in heads]
        for _ in range(steps):
            grads = torch.autograd.grad(self.support_loss(theta), [theta[name] for name in moving], create_graph=True)
            for name, grad in zip(moving, grads, strict=True):
                rate = p[f"alpha.{name}"] if self.case.name == "metasgd" else lr
                theta = {**theta, name: theta[name] - rate * grad}
        return theta

    def objective(self, p):
        if self.case.name in LEARNERS_WITH_INNER_GRADIENTS:
            return self.query_loss(self.adapted(p))
        if self.case.name == "fomaml":
            return self.query_loss(p)
        if self.case.name == "fedavg":
            x, y = torch.cat([self.support.x, self.query.x]), torch.cat([self.support.y, self.query.y])
            return cross_entropy(self.net(p, x), self.classes[y])
        embedded = self.net(p, self.support.x)
        means = torch.stack([embedded[self.support.y == k].mean(dim=0) for k in range(3)])
        distances = ((self.net(p, self.query.x)[:, None] - means[None]) ** 2).sum(dim=2)
        return cross_entropy(-distances, self.query.y)

    def point(self):
        """Where the objective is differentiated."""
        start = {name: value.clone().requires_grad_() for name, value in self.case.params.items()}
        if self.case.name != "fomaml":
            return start
        return {name: value.detach().requires_grad_() for name, value in self.adapted(start).items()}

    def reptile(self, gradient_of):
        """theta - theta_k by SGD on minibatches of 4 of the 15 examples of support and query."""
        x, y = torch.cat([self.support.x, self.query.x]), torch.cat([self.support.y, self.query.y])
        theta = self.case.params
        for k in range(self.case.learner.inner_steps):
            batch = [(4 * k + i) % len(y) for i in range(4)]
            grads = gradient_of(lambda p, b=batch: cross_entropy(self.net(p, x[b]), y[b]), theta)
            theta = {name: theta[name] - self.case.learner.inner_lr * grads[name] for name in theta}
        return {name: value - theta[name] for name, value in self.case.params.items()}


def by_autograd(function, point):
    point = {name: value.detach().clone().requires_grad_() for name, value in point.items()}
    grads = torch.autograd.grad(function(point), list(point.values()))
    return dict(zip(point, grads, strict=True))


def by_differences(function, point, h=1e-5):
    """Central differences, element by element."""
    result = {}
    for name, value in point.items():
        grad = torch.zeros_like(value)
        for index in range(value.numel()):
            sides = []
            for sign in (1, -1):
                moved = {key: tensor.detach().clone() for key, tensor in point.items()}
                moved[name].view(-1)[index] += sign * h
                sides.append(function({key: tensor.requires_grad_() for key, tensor in moved.items()}).item())
            grad.view(-1)[index] = (sides[0] - sides[1]) / (2 * h)
        result[name] = grad
    return result


def expected(case, net, differentiate):
    twin = ByHand(case, net)
    return twin.reptile(differentiate) if case.name == "reptile" else differentiate(twin.objective, twin.point())


def test_equals_finite_differences(case, by_hand, relative_error):
    grads, _ = case.learner.meta_gradient(case.params, case.episode)
    assert relative_error(grads, expected(case, by_hand, by_differences)) < 1e-6


def test_equals_unroll_by_hand(case, by_hand, relative_error):
    grads, metrics = case.learner.meta_gradient(case.params, case.episode)
    assert relative_error(grads, expected(case, by_hand, by_autograd)) < 1e-12
    assert all(not value.requires_grad for value in (*grads.values(), *metrics.values()))


def test_alpha_gradient_by_itself(make_case, by_hand, relative_error):
    case = make_case("metasgd")
    grads, _ = case.learner.meta_gradient(case.params, case.episode)
    found, want = (
        {name: value for name, value in source.items() if name.startswith("alpha.")}
        for source in (grads, expected(case, by_hand, by_differences))
    )
    assert relative_error(found, want) < 1e-6
    assert all(value.abs().max() > 0 for value in found.values())


def test_maml_and_fomaml_differ(make_case, relative_error):
    full, first = make_case("maml"), make_case("fomaml")
    a, _ = full.learner.meta_gradient(full.params, full.episode)
    b, _ = first.learner.meta_gradient(first.params, first.episode)
    assert relative_error(b, a) > 0.01


def test_boil_leaves_the_head_as_it_is(make_case):
    case = make_case("boil")
    adapted = case.learner.adapt(case.params, case.episode.support, 3, 4)
    same = {name: torch.equal(adapted[name], case.params[name]) for name in adapted}
    assert same == {name: name.startswith("head.") for name in case.params}


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil", "metasgd"])
def test_without_inner_steps_it_is_the_query_gradient(make_case, relative_error, name):
    case = make_case(name, inner_steps=0)
    reference = make_case("fomaml", inner_steps=0)
    grads, _ = case.learner.meta_gradient(case.params, case.episode)
    plain, _ = reference.learner.meta_gradient(reference.params, case.episode)
    assert relative_error({key: grads[key] for key in plain}, plain) < 1e-12
    assert all(value.abs().max() == 0 for key, value in grads.items() if key.startswith("alpha."))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_reptile_inner_optimiser_is_torch_optim(make_case, relative_error, optimiser):
    case = make_case("reptile", inner_optimiser=optimiser, inner_lr=0.01, inner_batch=None)
    grads, _ = case.learner.meta_gradient(case.params, case.episode)
    case.model.load_state_dict(case.params)
    kinds = {"sgd": torch.optim.SGD, "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(0.0, 0.999))}
    inner = kinds[optimiser](case.model.parameters(), lr=0.01)
    support, query, _ = case.episode
    for _ in range(3):
        inner.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            case.model(torch.cat([support.x, query.x])), torch.cat([support.y, query.y])
        )
        loss.backward()
        inner.step()
    moved = {name: case.params[name] - value.detach() for name, value in case.model.named_parameters()}
    assert relative_error(grads, moved) < 1e-12


@pytest.mark.parametrize("name", ["maml", "fomaml", "metasgd", "reptile", "anil", "fedavg"])
def test_regression_gradient_is_finite_and_not_zero(make_case, name):
    case = make_case(name, "regression")
    grads, metrics = case.learner.meta_gradient(case.params, case.episode)
    assert set(metrics) == {"loss", "mse"} and metrics["loss"] == metrics["mse"]
    assert all(torch.isfinite(value).all() and value.abs().max() > 0 for value in grads.values())
