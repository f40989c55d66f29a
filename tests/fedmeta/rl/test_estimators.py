"""Estimators against the exact derivatives of an enumerated MDP, which dynamic programming gives.

The table of the specification: all are exact in the gradient; of the Hessian, and so of MAML's meta-gradient, only
DiCE is, and loaded DiCE pays for less variance with a small bias.
"""

import itertools

import pytest
import torch
from torch.func import grad, hessian, vmap

from fedmeta.rl.estimators import score_term, surrogate

STATES, ACTIONS, HORIZON, DISCOUNT = 3, 2, 3, 0.9
ESTIMATORS = {"plain": 0.0, "lvc": 0.0, "dice": 1.0, "loaded_dice": 0.9}
RATE = 0.3


class MDP:
    """Random transitions and rewards; a policy is a softmax of a table `[states, actions]`; starts in state 0."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.moves = torch.rand(STATES, ACTIONS, STATES, generator=generator, dtype=torch.float64) ** 3
        self.moves = self.moves / self.moves.sum(-1, keepdim=True)
        self.rewards = torch.randn(STATES, ACTIONS, generator=generator, dtype=torch.float64)
        self.theta = torch.randn(STATES, ACTIONS, generator=generator, dtype=torch.float64)
        paths = list(itertools.product(*[range(ACTIONS), range(STATES)] * HORIZON))
        table = torch.tensor(paths).view(-1, HORIZON, 2)
        self.actions = table[..., 0]
        self.states = torch.cat([torch.zeros(len(table), 1, dtype=torch.int64), table[:, :-1, 1]], dim=1)
        self.last = table[:, -1, 1]

    def values(self, theta):
        """`[horizon, states]`, V_t(s) in units of time t, by dynamic programming; differentiable."""
        policy, found, after = theta.softmax(-1), [], torch.zeros(STATES, dtype=theta.dtype)
        for _ in range(HORIZON):
            after = (policy * (self.rewards + DISCOUNT * self.moves @ after)).sum(-1)
            found.append(after)
        return torch.stack(found[::-1])

    def value(self, theta):
        return self.values(theta)[0, 0]

    def log_probs(self, theta, paths=slice(None)):
        """`[paths, horizon]`."""
        return theta.log_softmax(-1)[self.states[paths], self.actions[paths]]

    def probabilities(self, theta):
        """`[paths]`, of whole paths; differentiable."""
        after = torch.cat([self.states[:, 1:], self.last[:, None]], dim=1)
        return self.log_probs(theta).exp().prod(-1) * self.moves[self.states, self.actions, after].prod(-1)

    def surrogates(self, name, at):
        """theta -> `[paths]`, each path's (or one's) surrogate with the exact values at `at` as baseline."""
        earned = self.rewards[self.states, self.actions]
        steps = torch.arange(HORIZON)
        baseline = self.values(at)[steps, self.states] * DISCOUNT**steps
        decay = ESTIMATORS[name]

        def each(theta, paths=slice(None)):
            log_probs = self.log_probs(theta, paths)
            return surrogate(name, log_probs, earned[paths], baseline[paths], discount=DISCOUNT, decay=decay)

        return each


def off(found, exact):
    return ((found - exact).norm() / exact.norm()).item()


@pytest.fixture(scope="module")
def table():
    """name -> relative errors of gradient, Hessian and meta-gradient, and the Hessian's sd over single rollouts."""
    mdp = MDP()
    theta, weight = mdp.theta, mdp.probabilities(mdp.theta).detach()
    assert weight.sum().item() == pytest.approx(1)
    exact, curved = grad(mdp.value)(theta), hessian(mdp.value)(theta).view(STATES * ACTIONS, -1)
    adapted = theta + RATE * exact
    meta = grad(lambda t: mdp.value(t + RATE * grad(mdp.value)(t)))(theta).flatten()
    slope = grad(mdp.value)(adapted).flatten()
    found = {"first order": {"meta-gradient": off(slope, meta)}}
    for name in ESTIMATORS:
        each = mdp.surrogates(name, theta)
        expected = lambda t, each=each: (weight * each(t)).sum()  # noqa: E731
        mean = hessian(expected)(theta).view(STATES * ACTIONS, -1)
        single = vmap(lambda i, each=each: hessian(lambda t: each(t, i))(theta))(torch.arange(0, len(weight)))
        spread = (weight * (single.flatten(1) - mean.flatten()).square().sum(-1)).sum().sqrt()
        found[name] = {
            "value": abs(expected(theta).item() - mdp.value(theta).item()),
            "gradient": off(grad(expected)(theta), exact),
            "hessian": off(mean, curved),
            "meta-gradient": off(slope + RATE * mean @ slope, meta),
            "sd": spread.item(),
        }
    return found


def test_the_gradient_and_the_value_of_every_estimator_are_exact(table):
    for name in ESTIMATORS:
        assert table[name]["gradient"] < 1e-12 and table[name]["value"] < 1e-12


def test_only_dice_is_exact_in_the_hessian_and_the_order_is_that_of_the_specification(table):
    errors = [table[name]["hessian"] for name in ("plain", "lvc", "loaded_dice", "dice")]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.7 and 0.1 < errors[1] < 0.7 and 0.005 < errors[2] < 0.1 and errors[3] < 1e-12


def test_the_meta_gradient_inherits_the_order(table):
    errors = [table[name]["meta-gradient"] for name in ("first order", "lvc", "loaded_dice", "dice")]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.02 and errors[2] < errors[1] / 5 and errors[3] < 1e-12


def test_loaded_dice_varies_less_than_dice_and_lvc_less_than_both(table):
    assert table["lvc"]["sd"] < table["loaded_dice"]["sd"] < table["dice"]["sd"]


def test_loaded_dice_without_decay_is_unbiased_and_with_full_decay_is_lvc():
    mdp = MDP(1)
    weight = mdp.probabilities(mdp.theta).detach()
    earned, zero = mdp.rewards[mdp.states, mdp.actions], torch.zeros(len(weight), HORIZON, dtype=torch.float64)

    def curvature(name, decay):
        def expected(t):
            each = surrogate(name, mdp.log_probs(t), earned, zero, discount=DISCOUNT, decay=decay)
            return (weight * each).sum()

        return hessian(expected)(mdp.theta)

    assert off(curvature("loaded_dice", 1.0), hessian(mdp.value)(mdp.theta)) < 1e-12
    assert off(curvature("loaded_dice", 0.0), curvature("lvc", 1.0)) < 1e-12


def test_a_baseline_changes_no_expectation():
    """Of DiCE and loaded DiCE without decay, in the gradient and the Hessian, whatever the baseline of the state."""
    mdp = MDP(2)
    weight = mdp.probabilities(mdp.theta).detach()
    earned = mdp.rewards[mdp.states, mdp.actions]
    arbitrary = torch.randn(HORIZON, STATES, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    baseline = arbitrary[torch.arange(HORIZON), mdp.states]
    for name in ("dice", "loaded_dice"):

        def expected(t, name=name):
            each = surrogate(name, mdp.log_probs(t), earned, baseline, discount=DISCOUNT, decay=1.0)
            return (weight * each).sum()

        assert off(grad(expected)(mdp.theta), grad(mdp.value)(mdp.theta)) < 1e-12
        assert off(hessian(expected)(mdp.theta), hessian(mdp.value)(mdp.theta)) < 1e-12


def test_the_expected_inner_objective_needs_the_score_term():
    """E over the support of J(theta + rate * its own gradient): exact with the score term, per cents off without."""
    mdp = MDP()
    each = mdp.surrogates("plain", mdp.theta)
    paths = torch.arange(len(mdp.actions))
    weight = mdp.probabilities(mdp.theta).detach()

    def outcomes(t):
        inner = vmap(lambda i: grad(lambda u: each(u, i))(t))(paths)
        return vmap(mdp.value)(t + RATE * inner)

    exact = grad(lambda t: (mdp.probabilities(t) * outcomes(t)).sum())(mdp.theta)
    without = grad(lambda t: (weight * outcomes(t)).sum())(mdp.theta)
    log_probs = lambda t: mdp.log_probs(t).unsqueeze(-2)  # noqa: E731
    score = grad(lambda t: (weight * score_term(log_probs(t), outcomes(t).detach() - 0.7)).sum())(mdp.theta)
    assert off(without + score, exact) < 1e-12
    assert off(without, exact) > 0.03
