"""Reptile (Nichol et al. 2018)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics
from fedmeta.learners.functional import forward, joined, measure
from fedmeta.learners.inner_loop import at, last
from fedmeta.models.initialise import initialise
from fedmeta.optimisers import SGD, Adam
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.privacy.example_level import ExampleGradient
from fedmeta.tasks import Batch, Episode, Task


@dataclass(frozen=True)
class Reptile:
    """Move towards the parameters that k inner steps on a task lead to (Nichol et al. 2018, algorithm 1).

    The meta-gradient is theta - theta_k: plain SGD of step size epsilon on it is the paper's meta-step. Inner steps
    take minibatches of `inner_batch` examples in their shot-by-shot order, one after the other and round again,
    without randomness. The paper trains with more shots than it tests with, and has no query: here the query serves as
    further shots (`examples = "episode"`). Its inner Adam keeps its moments from task to task; here a task starts
    afresh, so that it does not depend on the one before.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression", "control")
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "ways"

    model: nn.Module
    task: Task
    inner_lr: float = parameter(1e-3, doc="step size of the inner loop", gt=0)
    inner_steps: int = parameter(5, doc="inner steps in training", unit="steps", ge=1)
    test_steps: int | None = parameter(50, doc="inner steps in use; none: as in training", unit="steps", ge=0)
    inner_batch: int | None = parameter(None, doc="examples an inner step; none: all", unit="examples", ge=1)
    inner_optimiser: Literal["sgd", "adam"] = parameter(
        "adam", doc="of the inner loop; Adam with beta1 = 0, as in the paper"
    )
    examples: Literal["episode", "support"] = parameter(
        "episode", doc="train on support and query, or the support only"
    )

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation."""
        return initialise(self.model, generator)

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """The parameters after each of the ascending numbers of inner steps."""
        return at(self._path(params, support), steps)

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Params:
        """The parameters after `steps` inner steps on the support, by default `test_steps`."""
        return last(self._path(params, support), self.default_steps if steps is None else steps)

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """Outputs `[n, ways]` of the network with adapted parameters."""
        return forward(self.model, adapted, x)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """theta - theta_k; the metrics are the query's at theta_k, which has seen it if `examples = "episode"`."""
        data = joined(episode) if self.examples == "episode" else episode.support
        adapted = last(self._path(params, data), self.inner_steps)
        with torch.no_grad():
            _, metrics = measure(self.task, self.predict(adapted, episode.query.x), episode.query.y)
        return {name: value.detach() - adapted[name] for name, value in params.items()}, metrics

    def private_meta_gradient(
        self, params: Params, episode: Episode, gradient: ExampleGradient
    ) -> tuple[Params, Metrics]:
        """theta - theta_k with DP-SGD as the inner loop (Li et al. 2020); all after a noised gradient is free."""
        data = joined(episode) if self.examples == "episode" else episode.support
        adapted = last(self._path(params, data, gradient), self.inner_steps)
        return {name: value.detach() - adapted[name] for name, value in params.items()}, {}

    @property
    def example_releases(self) -> int:
        """An example may be in the minibatch of every inner step."""
        return self.inner_steps

    @property
    def default_steps(self) -> int:
        """Inner steps in use."""
        return self.inner_steps if self.test_steps is None else self.test_steps

    def _path(self, params: Params, data: Batch, gradient: ExampleGradient | None = None) -> Iterator[Params]:
        rule = SGD(lr=self.inner_lr) if self.inner_optimiser == "sgd" else Adam(lr=self.inner_lr, beta1=0.0)
        states = {name: rule.init(value) for name, value in params.items()}
        for batch in minibatches(data, self.inner_batch):
            yield params
            if gradient is None:
                grads, _, _ = value_and_grad(self._loss_on(batch), params)
            else:
                grads = gradient(self._loss, params, batch)
            moved = {}
            for name, value in params.items():
                states[name], change = rule.step(states[name], grads[name])
                moved[name] = value.detach() + change
            params = moved

    def _loss_on(self, batch: Batch) -> Callable[[Params], tuple[Tensor, tuple[()]]]:
        return lambda p: (self._loss(p, batch), ())

    def _loss(self, params: Params, batch: Batch) -> Tensor:
        return self.task.loss(forward(self.model, params, batch.x), batch.y)


def minibatches(data: Batch, size: int | None) -> Iterator[Batch]:
    """Endless contiguous minibatches of `size` (at most all) examples, starting over at the end.

    >>> data = Batch(torch.arange(3), torch.arange(3))
    >>> batches = minibatches(data, 2)
    >>> [next(batches).x.tolist() for _ in range(3)]
    [[0, 1], [2, 0], [1, 2]]
    """
    count = data.y.shape[0]
    if size is None or size >= count:
        while True:
            yield data
    position, order = 0, torch.arange(size, device=data.y.device)
    while True:
        chosen = (position + order) % count
        yield Batch(data.x[chosen], data.y[chosen])
        position = (position + size) % count
