"""Joint training of one network for all clients, fine-tuned at test: the baseline of every table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fedmeta.gradients import value_and_grad
from fedmeta.learners.base import Metrics
from fedmeta.learners.functional import features, forward, joined, measure, outputs, require_head
from fedmeta.learners.inner_loop import at, descend, last
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.privacy.example_level import ExampleGradient
from fedmeta.tasks import Batch, Episode, Task


@dataclass(frozen=True)
class FedAvg:
    """No inner loop in training (McMahan et al. 2017); fine-tuning at test (Chen et al. 2018, FedAvg(Meta)).

    The gradient is that of the loss over support and query together. In classification the network ends in one output
    per class of the *data set*, labels being `episode.classes[y]`. New classes have none, so adaptation puts a zero
    head of `ways` outputs in its place and takes `test_steps` steps of gradient descent on the support. In regression
    and control the network stays and everything is fine-tuned.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression", "control")
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "classes"

    model: nn.Module
    task: Task
    inner_lr: float = parameter(0.1, doc="step size of fine-tuning", gt=0)
    test_steps: int = parameter(10, doc="steps of fine-tuning", unit="steps", ge=0)
    finetune: Literal["head", "all"] = parameter("all", doc="what fine-tuning moves; without classes always all")

    def __post_init__(self) -> None:
        if self.task.kind == "classification":
            require_head(self.model, "fedavg")

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation, head of all classes included."""
        return initialise(self.model, generator)

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """The parameters, with a head of `ways` outputs, after each of the ascending numbers of fine-tuning steps."""
        return at(self._path(params, support, ways), steps)

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Params:
        """The fine-tuned parameters after `steps` steps, by default `test_steps`; `head.*` has `ways` outputs."""
        return last(self._path(params, support, ways), self.default_steps if steps is None else steps)

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """Outputs `[n, ways]` of the network with adapted parameters."""
        return forward(self.model, adapted, x)

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """d/dtheta of the mean loss over support and query; metrics over the data set's classes."""
        data = joined(episode)
        labels = episode.classes[data.y] if self.task.kind == "classification" else data.y

        def objective(theta: Params) -> tuple[Tensor, Metrics]:
            return measure(self.task, forward(self.model, theta, data.x), labels)

        grads, _, metrics = value_and_grad(objective, params)
        return grads, metrics

    def private_meta_gradient(
        self, params: Params, episode: Episode, gradient: ExampleGradient
    ) -> tuple[Params, Metrics]:
        """The noised mean of the clipped gradients of single examples, support and query alike."""
        data = joined(episode)
        labels = episode.classes[data.y] if self.task.kind == "classification" else data.y
        return gradient(self._loss, params, Batch(data.x, labels)), {}

    @property
    def example_releases(self) -> int:
        """An example is in one gradient."""
        return 1

    @property
    def default_steps(self) -> int:
        """Steps of fine-tuning."""
        return self.test_steps

    def _path(self, params: Params, support: Batch, ways: int) -> Iterator[Params]:
        if self.task.kind != "classification":
            return self._descend(params, support)
        head = {name: value for name, value in params.items() if name.startswith("head.")}
        fresh = {name: value.new_zeros((ways, *value.shape[1:])) for name, value in head.items()}
        if self.finetune == "all":
            return self._descend({**params, **fresh}, support)
        # The features do not change while only the head moves, so they are computed once.
        z = features(self.model, params, support.x).detach()
        heads = descend(lambda h: self.task.loss(outputs(h, z), support.y), fresh, self.inner_lr)
        return ({**params, **head} for head in heads)

    def _descend(self, params: Params, support: Batch) -> Iterator[Params]:
        return descend(lambda p: self._loss(p, support), params, self.inner_lr)

    def _loss(self, params: Params, batch: Batch) -> Tensor:
        return self.task.loss(forward(self.model, params, batch.x), batch.y)
