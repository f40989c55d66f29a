"""Per-FedAvg (Fallah et al. 2020): MAML as a client's own stochastic step, on three independent batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics, OuterLoss
from fedmeta.learners.functional import forward, query_loss
from fedmeta.learners.inner_loop import at, descend, last, step
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode, Task

BEST_STEP = {torch.float32: 1e-2, torch.float64: 1e-5}
"""Length of the difference that loses least: truncation against rounding (relative error 2e-5 and 1e-11 measured)."""


@dataclass(frozen=True)
class PerFedAvg:
    """Personalised federated averaging (Fallah et al. 2020, algorithm 1; section 5 names the two variants).

    w~ = w - alpha grad f(w; D); the step's direction is (I - alpha H(w; D'')) grad f(w~; D'). `fo` leaves H away; `hf`
    takes H v for (grad f(w + d v; D'') - grad f(w - d v; D'')) / (2 d), d being chosen so that d v has the length
    at which float32 or float64 loses least. D is the support; D' and D'' are the halves of the query, or both the
    whole of it where it is one example or `batches = "shared"`. With few local steps `fo` can be worse than FedAvg.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression")
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "ways"

    model: nn.Module
    task: Task
    inner_lr: float = parameter(0.1, doc="alpha, the step size of personalisation", gt=0)
    test_steps: int = parameter(1, doc="steps in use; training takes one", unit="steps", ge=0)
    variant: Literal["fo", "hf"] = parameter("hf", doc="without the Hessian, or with its product by differences")
    batches: Literal["independent", "shared"] = parameter(
        "independent", doc="halves of the query for gradient and Hessian, or the whole query for both"
    )

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation."""
        return initialise(self.model, generator)

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """The parameters after each of the ascending numbers of personalisation steps."""
        return at(self._path(params, support), steps)

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Params:
        """The personalised parameters after `steps` steps, by default `test_steps`."""
        return last(self._path(params, support), self.default_steps if steps is None else steps)

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """Outputs `[n, ways]` of the network with adapted parameters."""
        return forward(self.model, adapted, x)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """(I - alpha H(w; D'')) grad f(w~; D'), without H for `fo`; the metrics are those of D' at w~."""
        return self.query_gradient(params, episode, query_loss)

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """As `meta_gradient`, of another outer loss."""
        first, second = self._halves(episode.query)
        adapted = step(params, self._gradient(params, episode.support), self.inner_lr)

        def objective(w: Params) -> tuple[Tensor, Metrics]:
            return outer(self, w, first)

        slope, _, metrics = value_and_grad(objective, adapted)
        if self.variant == "hf":
            slope = step(slope, self._hessian_product(params, second, slope), self.inner_lr)
        return slope, metrics

    @property
    def training_steps(self) -> int:
        """1."""
        return 1

    @property
    def default_steps(self) -> int:
        """Steps in use."""
        return self.test_steps

    def _hessian_product(self, params: Params, batch: Batch, v: Params) -> Params:
        length = sum((value**2).sum() for value in v.values()).sqrt()  # type: ignore[union-attr]
        # A vector of zeros has the product zero: any d will do.
        d = BEST_STEP.get(length.dtype, 1e-2) / length.clamp(min=torch.finfo(length.dtype).tiny ** 0.5)
        sides = [
            self._gradient({name: value.detach() + sign * d * v[name] for name, value in params.items()}, batch)
            for sign in (1, -1)
        ]
        return {name: (sides[0][name] - sides[1][name]) / (2 * d) for name in v}

    def _gradient(self, params: Params, batch: Batch) -> Params:
        return value_and_grad(lambda w: (self._loss(w, batch), ()), params)[0]

    def _path(self, params: Params, support: Batch) -> Iterator[Params]:
        return descend(lambda w: self._loss(w, support), params, self.inner_lr)

    def _loss(self, params: Params, batch: Batch) -> Tensor:
        return self.task.loss(forward(self.model, params, batch.x), batch.y)

    def _halves(self, query: Batch) -> tuple[Batch, Batch]:
        """D' and D''. Shot by shot, so that halves hold the classes evenly."""
        count = query.y.shape[0]
        if self.batches == "shared" or count < 2:
            return query, query
        cut = math.ceil(count / 2)
        return Batch(query.x[:cut], query.y[:cut]), Batch(query.x[cut:], query.y[cut:])
