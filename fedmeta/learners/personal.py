"""What learners with personal weights share: a network for all, and beside it one that never leaves the client."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fedmeta.learners.functional import forward, part
from fedmeta.learners.inner_loop import at, descend, last
from fedmeta.models.initialise import initialise
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch, Task

PERSONAL = "personal."
"""Prefix of a client's own weights among the parameters: `personal.head.weight` stands beside `head.weight`."""


@dataclass(frozen=True)
class PersonalWeights:
    """A shared model w, and personal weights v near it: argmin F_k(v) + regularisation/2 ||v - w||^2.

    The entries `personal.*` are personal whatever `sharing.personal` says. They start at the shared model that a
    client is first sent, and move by what the learner says, not by the client's optimiser: where `meta_gradient` gives
    a shared entry's gradient, it gives a personal entry's step. A client keeps them from round to round; one that never
    trained fits them to its support. Classes need a meaning that lasts: `task.kind = "own"`.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression")
    head: ClassVar[Literal["ways", "embedding", "classes"]] = "ways"
    personal: ClassVar[str] = PERSONAL

    model: nn.Module
    task: Task
    inner_lr: float = parameter(0.1, doc="step size of the personal weights", gt=0)
    regularisation: float = parameter(1.0, doc="lambda, of the pull towards the shared model", ge=0)
    test_steps: int = parameter(10, doc="steps on the support in use", unit="steps", ge=0)

    def init(self, generator: torch.Generator) -> Params:
        """The network's own initialisation, shared, and a personal copy."""
        shared = initialise(self.model, generator)
        return {**shared, **self.personal_start(shared)}

    def personal_start(self, shared: Params) -> Params:
        """The personal entries of a client that has none yet."""
        return {PERSONAL + name: value.clone() for name, value in shared.items() if not name.startswith(PERSONAL)}

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        """The personal weights, by the network's own names, after each of the ascending numbers of steps."""
        return at(self._path(params, support), steps)

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Params:
        """The personal weights after `steps` steps on the support, by default `test_steps`."""
        return last(self._path(params, support), self.default_steps if steps is None else steps)

    def predict(self, adapted: Params, x: Tensor) -> Tensor:
        """Outputs `[n, ways]` of the network with personal weights."""
        return forward(self.model, adapted, x)

    @property
    def default_steps(self) -> int:
        """Steps in use."""
        return self.test_steps

    def _path(self, params: Params, data: Batch) -> Iterator[Params]:
        """Gradient descent on F_k(v) + regularisation/2 ||v - w||^2 from the personal weights."""
        shared = {name: value.detach() for name, value in params.items() if not name.startswith(PERSONAL)}

        def loss(v: Params) -> Tensor:
            away = torch.stack([((v[name] - shared[name]) ** 2).sum() for name in v]).sum()
            return self._loss(v, data) + self.regularisation / 2 * away

        return descend(loss, part(params, PERSONAL), self.inner_lr)

    def _loss(self, params: Params, batch: Batch) -> Tensor:
        return self.task.loss(forward(self.model, params, batch.x), batch.y)
