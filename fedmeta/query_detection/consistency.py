"""Self-consistency of support and query: does the query, taken for support, predict the support?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmeta.evasion.target import differentiable
from fedmeta.query_detection.base import NeedsNoFit, View
from fedmeta.tasks import Batch


@dataclass(frozen=True)
class Consistency(NeedsNoFit):
    """The cross-entropy of class k's own support under the model that adapts to x in its place, k being x's answer.

    An input that lies among the others of its class can stand for them. Needs a learner through whose adaptation
    gradients pass, since it is judged by an attacker who has them.
    """

    def scores(self, view: View, x: Tensor) -> Tensor:
        """See `Detector`. Costs one adaptation an input."""
        answers = view.logits(x).argmax(dim=-1)
        return torch.stack([self._score(view, one, answer) for one, answer in zip(x, answers, strict=True)])

    def _score(self, view: View, one: Tensor, answer: Tensor) -> Tensor:
        support, learner = view.support, view.learner
        members = support.y == answer
        shape = (-1, *[1] * one.dim())
        swapped = torch.where(members.reshape(shape), one, support.x)
        follow = differentiable(learner)
        [adapted] = follow(view.params, Batch(swapped, support.y), view.ways, (learner.default_steps,))
        losses = F.cross_entropy(learner.predict(adapted, support.x), support.y, reduction="none")
        return (losses * members).sum() / members.sum().clamp_min(1)
