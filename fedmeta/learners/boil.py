"""BOIL, Body Only update in Inner Loop (Oh et al. 2021): the mirror of ANIL."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fedmeta.learners.functional import forward, require_head
from fedmeta.learners.inner_loop import descend
from fedmeta.learners.maml import MAML
from fedmeta.params import Params
from fedmeta.tasks import Batch


@dataclass(frozen=True)
class BOIL(MAML):
    """MAML whose inner loop moves everything but the head (Oh et al. 2021, section 3.1).

    Inner step size 0 on `head.*` and `inner_lr` on the rest; the outer loop moves everything. What changes with a task
    is then the representation, and not how it is read.
    """

    serves: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __post_init__(self) -> None:
        require_head(self.model, "boil")

    def _path(self, params: Params, support: Batch, *, create_graph: bool) -> Iterator[Params]:
        head = {name: value for name, value in params.items() if name.startswith("head.")}
        start = {name: value for name, value in params.items() if name not in head}

        def loss(body: Params) -> Tensor:
            return self.task.loss(forward(self.model, {**body, **head}, support.x), support.y)

        for body in descend(loss, start, self.inner_lr, create_graph=create_graph):
            yield {name: head[name] if name in head else body[name] for name in params}
