"""Amortised Bayesian meta-learning (Ravi and Beatson 2019): a Gaussian over the weights is adapted, not the weights."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics, OuterLoss
from fedmeta.learners.draws import normal, task_seed
from fedmeta.learners.functional import forward, joined, measure, part
from fedmeta.learners.inner_loop import at, last, step
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode, Task

SIGMA = "log_sigma."
"""Prefix of the logarithms of the standard deviations among the meta-parameters; the others are the means."""
IN_USE, OUTER = 1 << 20, 1 << 21
"""Streams of a task's draws: the inner steps count from 0."""


@dataclass(frozen=True)
class ABML:
    """A variational posterior of every weight, initialised at the prior (Ravi and Beatson 2019, algorithms 1 and 2).

    theta = (mu0, log sigma0) is the prior p_theta of the weights and where lambda = (mu, log sigma) starts;
    `inner_steps` of gradient descent on E_q[loss of the support] + kl_inner KL(q_lambda || p_theta) adapt it; the outer
    loss is E_q[loss of support and query] + kl_outer KL + prior_weight (-log p(theta)), with N(0, 1) on mu0 and
    Gamma(gamma_shape, gamma_rate) on the precision; the meta-gradient is of second order.

    The loss is a mean over examples: a KL weight of 1 / (their number) is the bound itself. A smaller one tempers the
    bound, and what it leaves is no posterior; but with tens of thousands of weights nothing is learnt at 1e-3, and much
    at 1e-5 (docs/results.md). Expectations are means over
    `samples` of the weights, drawn from the task itself (`fedmeta.learners.draws`). In use the probabilities, or the
    outputs in regression, are means over `test_samples`.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression")
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "ways"

    model: nn.Module
    task: Task
    inner_lr: float = parameter(0.4, doc="step size of the inner loop, for mean and log standard deviation", gt=0)
    inner_steps: int = parameter(1, doc="inner steps in training", unit="steps", ge=0)
    test_steps: int | None = parameter(None, doc="inner steps in use; none: as in training", unit="steps", ge=0)
    initial_sigma: float = parameter(math.exp(-4), doc="standard deviation that every weight starts with", gt=0)
    kl_inner: float = parameter(1e-5, doc="weight of the KL in the inner loss", ge=0)
    kl_outer: float = parameter(1e-5, doc="weight of the KL in the outer loss", ge=0)
    prior_weight: float = parameter(0.0, doc="weight of the hyper-prior in the outer loss; 0 leaves it away", ge=0)
    gamma_shape: float = parameter(1.0, doc="of the hyper-prior on the precision", gt=0)
    gamma_rate: float = parameter(0.01, doc="of the hyper-prior on the precision", gt=0)
    samples: int = parameter(1, doc="weights drawn for an expectation in training", unit="samples", ge=1)
    test_samples: int = parameter(10, doc="weights drawn in use", unit="samples", ge=1)

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation as mu0, and `log_sigma.<name>` for each of its parameters."""
        mean = initialise(self.model, generator)
        start = math.log(self.initial_sigma)
        return {**mean, **{SIGMA + name: torch.full_like(value, start) for name, value in mean.items()}}

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """Weights `[test_samples, *shape]` by name, drawn from q after each of the ascending numbers of inner steps."""
        return self._drawn(params, support, steps, create_graph=False)

    def unrolled(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """As `trajectory`, kept differentiable: a gradient passes through the inner loop to `params`."""
        return self._drawn(params, support, steps, create_graph=True)

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Params:
        """Weights drawn from q after `steps` inner steps, by default `test_steps`."""
        return next(self.trajectory(params, support, ways, (self.default_steps if steps is None else steps,)))

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """The predictive mean over the drawn weights: logarithms of probabilities `[n, ways]`, or outputs."""
        return mean_prediction([self._outputs(weights, x) for weights in unstacked(adapted)], self.task)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """d/dtheta of the outer loss, through the inner loop; the metrics are those of the query's predictive mean."""
        seed = task_seed(episode.support.x, episode.query.x)
        data = joined(episode)

        def objective(theta: Params) -> tuple[Tensor, Metrics]:
            adapted = last(self._path(theta, episode.support, create_graph=True), self.inner_steps)
            predictions = [self._outputs(weights, data.x) for weights in self._sample(adapted, seed, OUTER)]
            fit = torch.stack([self.task.loss(output, data.y) for output in predictions]).mean()
            # Support first: what comes after it is the query's.
            own = [output[episode.support.y.shape[0] :] for output in predictions]
            _, metrics = measure(self.task, mean_prediction(own, self.task), episode.query.y)
            prior = self.prior_weight * self._hyper_prior(theta) if self.prior_weight else 0.0
            return fit + self.kl_outer * divergence(adapted, theta) + prior, metrics

        grads, _, metrics = value_and_grad(objective, params)
        return grads, metrics

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """As `meta_gradient`, of another outer loss on the query, a mean over drawn weights like the metrics."""
        support, query = episode.support, episode.query
        seed = task_seed(support.x, query.x)
        share = query.y.shape[0] / (query.y.shape[0] + support.y.shape[0])

        def objective(theta: Params) -> tuple[Tensor, Metrics]:
            adapted = last(self._path(theta, support, create_graph=True), self.inner_steps)
            losses, told = [], []
            for weights in self._sample(adapted, seed, OUTER):
                own, metrics = outer(self, {name: value.unsqueeze(0) for name, value in weights.items()}, query)
                seen = self.task.loss(self._outputs(weights, support.x), support.y)
                losses.append((1 - share) * seen + share * own)
                told.append(metrics)
            prior = self.prior_weight * self._hyper_prior(theta) if self.prior_weight else 0.0
            means = {name: torch.stack([each[name] for each in told]).mean() for name in told[0]}
            return torch.stack(losses).mean() + self.kl_outer * divergence(adapted, theta) + prior, means

        grads, _, metrics = value_and_grad(objective, params)
        return grads, metrics

    @property
    def training_steps(self) -> int:
        """Inner steps in training."""
        return self.inner_steps

    @property
    def default_steps(self) -> int:
        """Inner steps in use."""
        return self.inner_steps if self.test_steps is None else self.test_steps

    def _path(self, params: Params, support: Batch, *, create_graph: bool) -> Iterator[Params]:
        seed = task_seed(support.x)
        prior = params if create_graph else {name: value.detach() for name, value in params.items()}
        state = params
        for count in itertools.count():
            yield state

            def loss(q: Params, stream: int = count) -> tuple[Tensor, tuple[()]]:
                losses = [
                    self.task.loss(self._outputs(weights, support.x), support.y)
                    for weights in self._sample(q, seed, stream)
                ]
                return torch.stack(losses).mean() + self.kl_inner * divergence(q, prior), ()

            grads, _, _ = value_and_grad(loss, state, create_graph=create_graph)
            state = step(state, grads, self.inner_lr)

    def _drawn(self, params: Params, support: Batch, steps: Sequence[int], *, create_graph: bool) -> Iterator[Params]:
        seed = task_seed(support.x)
        for q in at(self._path(params, support, create_graph=create_graph), steps):
            # The same noise after every number of steps, so that a curve over steps shows the steps.
            weights = self._sample(q, seed, IN_USE, self.test_samples)
            yield {name: torch.stack([each[name] for each in weights]) for name in weights[0]}

    def _sample(self, q: Params, seed: Tensor, stream: int, count: int | None = None) -> list[Params]:
        """Weights by name, `count` times (by default `samples`): mu + sigma times noise, differentiable in both."""
        count = self.samples if count is None else count
        means = {name: value for name, value in q.items() if not name.startswith(SIGMA)}
        sizes = [value.numel() for value in means.values()]
        found = []
        for index in range(count):
            noise = normal(seed, (stream << 16) + index, sum(sizes)).split(sizes)
            found.append(
                {
                    name: value + q[SIGMA + name].exp() * piece.to(value.dtype).reshape(value.shape)
                    for (name, value), piece in zip(means.items(), noise, strict=True)
                }
            )
        return found

    def _outputs(self, weights: Params, x: Tensor) -> Tensor:
        return forward(self.model, weights, x)

    def _hyper_prior(self, theta: Params) -> Tensor:
        """-log p(theta) but for a constant."""
        total = torch.zeros((), dtype=next(iter(theta.values())).dtype, device=next(iter(theta.values())).device)
        for name, value in theta.items():
            if name.startswith(SIGMA):  # the precision's logarithm is -2 log sigma
                total = total + 2 * (self.gamma_shape - 1) * value.sum() + self.gamma_rate * (-2 * value).exp().sum()
            else:
                total = total + (value**2).sum() / 2
        return total


def divergence(q: Params, p: Params) -> Tensor:
    """KL(q || p) of two factorised Gaussians in nats, each given as means and `log_sigma.<name>`.

    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> divergence({"w": one, "log_sigma.w": zero}, {"w": zero, "log_sigma.w": zero}).item()
    0.5
    """
    scales, centres = part(q, SIGMA), part(p, SIGMA)
    terms = [
        kl_divergence(
            Normal(q[name], scale.exp(), validate_args=False), Normal(p[name], centres[name].exp(), validate_args=False)
        ).sum()
        for name, scale in scales.items()
    ]
    return torch.stack(terms).sum()


def mean_prediction(outputs: Sequence[Tensor], task: Task) -> Tensor:
    """What several sampled networks say together: the logarithm of the mean probability, or the mean output."""
    stacked = torch.stack(list(outputs))
    if task.kind == "regression":
        return stacked.mean(dim=0)
    return stacked.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))


def unstacked(weights: Params) -> list[Params]:
    """`[count, *shape]` by name to a list of weights."""
    pieces = {name: value.unbind() for name, value in weights.items()}
    return [dict(zip(pieces, each, strict=True)) for each in zip(*pieces.values(), strict=True)]
