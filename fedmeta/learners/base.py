"""What every meta-learner offers, and the two gradient engines beneath it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode, Task

Adapted = Any
"""What a client keeps after adaptation: fast weights (`Params`) or prototypes; a nest of tensors."""

Metrics = dict[str, Tensor]
"""Scalars of one task: `loss` and the task's score name, before the outer step."""


class MetaLearner(Protocol):
    """A meta-learner as pure functions of one task; nothing here changes its arguments or keeps state.

    The functions run in a Python loop or under `torch.func.vmap`, so they contain no data-dependent control flow; they
    take gradients through `fedmeta.gradients.value_and_grad`, which serves both.

    Attributes:
        model: the network, used as a function of parameters (`torch.func.functional_call`); its own are never changed.
        task: how outputs are judged.
        serves: the task kinds it can learn.
        head: what the network must end in: `ways` outputs, an `embedding`, or all training `classes`.
    """

    serves: ClassVar[tuple[str, ...]]
    head: ClassVar[Literal["ways", "embedding", "classes"]]

    @property
    def model(self) -> nn.Module:
        """The network."""
        ...

    @property
    def task(self) -> Task:
        """How outputs are judged."""
        ...

    @property
    def default_steps(self) -> int:
        """Inner steps that `adapt` takes when not told."""
        ...

    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters: the model's own initialisation and, for some, more (Meta-SGD's alpha)."""
        ...

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Adapted]:
        """What a client would keep after each of the ascending numbers of `steps` (0: nothing seen of the support).

        `ways` is the number of class slots (1 for regression). A learner without inner steps (ProtoNet) has two states:
        0, before it saw the support, and any other number, after.
        """
        ...

    def adapt(self, params: Params, support: Batch, ways: int, steps: int | None = None) -> Adapted:
        """What a client keeps; `steps` inner steps, by default the learner's `test_steps`."""
        ...

    def predict(self, adapted: Adapted, x: Tensor) -> Tensor:
        """Logits `[n, ways]`, or outputs `[n, outputs]`, of inputs `[n, *input_shape]`."""
        ...

    def meta_gradient(self, params: Params, episode: Episode) -> tuple[Params, Metrics]:
        """The direction of one task that an outer optimiser descends, shaped as `params`; zero where unused."""
        ...


OuterLoss = Callable[[MetaLearner, Adapted, Batch], tuple[Tensor, Metrics]]
"""(learner, what the support led to, query) -> the loss that the outer step descends, a scalar, and metrics."""


class QueryLearner(MetaLearner, Protocol):
    """A learner whose outer step descends the loss of the query after adaptation: another loss can take its place."""

    @property
    def training_steps(self) -> int:
        """Steps of adaptation before the query is judged in training."""
        ...

    def query_gradient(self, params: Params, episode: Episode, outer: OuterLoss) -> tuple[Params, Metrics]:
        """As `meta_gradient`, of `outer` in place of the query's own loss."""
        ...


def personal_prefix(learner: MetaLearner) -> str | None:
    """What the names of entries begin with that a learner keeps for the client itself; None for most.

    Such a learner has `personal`, the prefix, and `personal_start(shared)`, where a new client's entries start; of
    these entries its `meta_gradient` gives the step that they take, not a gradient (`fedmeta.learners.personal`).
    """
    found: str | None = getattr(learner, "personal", None)
    return found
