"""A matching head at deployment (Chen et al. 2020, arXiv 2006.07026, section 4; Vinyals et al. 2016, equation 1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmeta.deployment.base import Deployed
from fedmeta.errors import ConfigurationError
from fedmeta.learners.abml import ABML
from fedmeta.learners.functional import embed, require_head
from fedmeta.parameters import parameter
from fedmeta.params import Params
from fedmeta.tasks import Batch


class Matched(NamedTuple):
    """What a client keeps.

    Attributes:
        params: of the embedding.
        directions: `[n, features]`, the support's embeddings at length one.
        members: `[ways, n]`, 1 where a support example is of the class.
        seen: 1, or 0 where nothing was seen of the support, so that every class is as likely.
    """

    params: Params
    directions: Tensor
    members: Tensor
    seen: Tensor


@dataclass(frozen=True)
class MatchingHead(Deployed):
    """P(y = k | x) = sum over the support of class k of softmax_i(temperature cos(e(x), e(x_i))).

    The head that came with the model is not used: a rule that maps features to the attacker's slot went with it. What a
    trigger does to the embedding stays. `body = "shared"` takes the embedding as it came, and no inner steps; "adapted"
    takes it after the learner's own. ProtoNet, which has no head, gets cosines for its squared distances.
    """

    temperature: float = parameter(10.0, gt=0, doc="factor of the cosines")
    body: Literal["shared", "adapted"] = parameter("shared", doc="the embedding as it came, or after the inner loop")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head != "embedding":
            require_head(self.model, "matching_head")
        if self.body == "adapted" and isinstance(self.learner, ABML):
            raise ConfigurationError(
                "evaluation.deployment: matching_head.body = 'adapted' takes one adapted body, and learner 'abml' "
                "draws several. Use body = 'shared'"
            )

    def trajectory(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Matched]:
        """The support's embeddings: unseen for 0 steps; of the adapted body where that is wanted."""
        members = (support.y == torch.arange(ways, device=support.y.device).unsqueeze(-1)).to(support.x.dtype)
        for count, own in zip(steps, self._bodies(params, support, ways, steps), strict=True):
            directions = F.normalize(embed(self.learner, own, support.x), dim=-1)
            yield Matched(own, directions, members, members.new_full((), float(count > 0)))

    def predict(self, adapted: Matched, x: Tensor) -> Tensor:
        """Logarithms `[n, ways]` of the unnormalised probabilities; a class without support has the lowest."""
        queries = F.normalize(embed(self.learner, adapted.params, x), dim=-1)
        attention = self.temperature * queries @ adapted.directions.transpose(-1, -2)
        own = torch.where(adapted.members > 0, attention.unsqueeze(-2), -torch.inf)
        # A finite floor: -inf would make a loss NaN.
        return own.logsumexp(dim=-1).clamp_min(-2.0 * self.temperature) * adapted.seen

    def _bodies(self, params: Params, support: Batch, ways: int, steps: Sequence[int]) -> Iterator[Params]:
        if self.body == "shared" or self.head == "embedding":
            return (params for _ in steps)
        return self.learner.trajectory(params, support, ways, steps)
