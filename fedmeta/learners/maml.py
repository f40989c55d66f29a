"""MAML and its two closest relatives: FOMAML (first order) and ANIL (head only)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics, OuterLoss
from fedmeta.learners.functional import features, forward, outputs, query_loss, require_head
from fedmeta.learners.inner_loop import at, descend, last, step
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.privacy.example_level import ExampleGradient
from fedmeta.tasks import Batch, Episode, Task


@dataclass(frozen=True)
class MAML:
    """Model-agnostic meta-learning (Finn et al. 2017, algorithm 1).

    theta_0 = theta; theta_i = theta_{i-1} - inner_lr * d L_support(theta_{i-1}); the meta-gradient is
    d/dtheta L_query(theta_k(theta)), through all k steps (second order).
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression", "control")
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "ways"

    model: nn.Module
    task: Task
    inner_lr: float = parameter(0.4, doc="step size of the inner loop", gt=0)
    inner_steps: int = parameter(1, doc="inner steps in training", unit="steps", ge=0)
    test_steps: int | None = parameter(None, doc="inner steps in use; none: as in training", unit="steps", ge=0)

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation."""
        return initialise(self.model, generator)

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """The parameters after each of the ascending numbers of inner steps, detached."""
        return at(self._path(params, support, create_graph=False), steps)

    def unrolled(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """As `trajectory`, kept differentiable: a gradient passes through the inner loop to `params`."""
        return at(self._path(params, support, create_graph=True), steps)

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Params:
        """The parameters after `steps` inner steps, by default `test_steps`."""
        return last(self._path(params, support, create_graph=False), self.default_steps if steps is None else steps)

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """Outputs `[n, ways]` of the network with adapted parameters."""
        return forward(self.model, adapted, x)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """d/dtheta of the query loss at theta_k(theta)."""
        return self.query_gradient(params, episode, query_loss)

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """As `meta_gradient`, of another outer loss."""

        def objective(theta: Params) -> tuple[Tensor, Metrics]:
            adapted = last(self._path(theta, episode.support, create_graph=True), self.inner_steps)
            return outer(self, adapted, episode.query)

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
        def loss(p: Params) -> Tensor:
            return self.task.loss(forward(self.model, p, support.x), support.y)

        return descend(loss, params, self.inner_lr, create_graph=create_graph)


@dataclass(frozen=True)
class FOMAML(MAML):
    """First-order MAML (Finn et al. 2017, section 5.2; Nichol et al. 2018, equation 3).

    The meta-gradient is d L_query(phi)/dphi at phi = theta_k: the inner loop's Jacobian is taken for the identity.
    """

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """d/dphi of the outer loss at phi = theta_k."""
        adapted = last(self._path(params, episode.support, create_graph=False), self.inner_steps)

        def objective(phi: Params) -> tuple[Tensor, Metrics]:
            return outer(self, phi, episode.query)

        grads, _, metrics = value_and_grad(objective, adapted)
        return grads, metrics

    def private_meta_gradient(
        self, params: Params, episode: Episode, gradient: ExampleGradient
    ) -> tuple[Params, Metrics]:
        """DP-SGD on the support, then each query example's gradient clipped and noised at what it led to.

        phi is private for the support, and all after it is post-processing of that and of the query's release.
        """

        def loss(p: Params, batch: Batch) -> Tensor:
            return self.task.loss(self.predict(p, batch.x), batch.y)

        phi = params
        for _ in range(self.inner_steps):
            phi = step(phi, gradient(loss, phi, episode.support), self.inner_lr)
        return gradient(loss, phi, episode.query), {}

    @property
    def example_releases(self) -> int:
        """A task's support and query have no example in common: it is in the inner steps, or in the one outer one."""
        return max(self.inner_steps, 1)


@dataclass(frozen=True)
class ANIL(MAML):
    """Almost No Inner Loop (Raghu et al. 2020, section 4): the inner loop moves the head, the outer loop everything.

    The support's features do not change in the inner loop, so they are computed once.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __post_init__(self) -> None:
        require_head(self.model, "anil")

    def _path(self, params: Params, support: Batch, *, create_graph: bool) -> Iterator[Params]:
        z = features(self.model, params, support.x)
        body = {name: value for name, value in params.items() if not name.startswith("head.")}
        start = {name: value for name, value in params.items() if name not in body}

        def loss(head: Params) -> Tensor:
            return self.task.loss(outputs(head, z), support.y)

        for head in descend(loss, start, self.inner_lr, create_graph=create_graph):
            yield {**body, **head}
