"""Which pixels speak for an answer: integrated gradients of the margin over the runner-up."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmeta.learners.base import Adapted, MetaLearner

STEPS = 32
"""Points of the path on which gradients are taken."""

Function = Callable[[Tensor], Tensor]
"""Inputs `[b, *input_shape]` to `[b]` numbers, each of its own input only."""


def integrated_gradients(function: Function, x: Tensor, baseline: Tensor | None = None, steps: int = STEPS) -> Tensor:
    """(x - x0) times the mean gradient on the straight way from x0 to x (Sundararajan et al. 2017, equation 1).

    By the midpoint rule. The attributions sum to f(x) - f(x0) but for the rule's error (completeness); of a linear
    function they are w (x - x0) exactly.

    Args:
        function: is differentiated.
        x: `[*input_shape]`.
        baseline: x0, the same shape; None for zeros: blank paper.
        steps: points on the way.

    >>> integrated_gradients(lambda x: 2 * x[:, 0] - x[:, 1], torch.tensor([1.0, 3.0])).tolist()
    [2.0, -3.0]
    """
    start = torch.zeros_like(x) if baseline is None else baseline
    places = (torch.arange(steps, dtype=x.dtype) + 0.5) / steps
    with torch.enable_grad():
        along = (start + places.view(-1, *[1] * x.dim()) * (x - start)).requires_grad_()
        (slopes,) = torch.autograd.grad(function(along).sum(), along)
    return (x - start) * slopes.mean(dim=0)


@dataclass(frozen=True)
class Saliency:
    """What speaks for the answer to one query.

    Attributes:
        slot, runner_up: the predicted class and the next one.
        margin: the predicted logit above the runner-up's.
        blank: the same margin on the baseline.
        map: `[*input_shape]`, attributions: positive speaks for `slot`. Their sum is `margin - blank`, nearly.
    """

    slot: int
    runner_up: int
    margin: float
    blank: float
    map: Tensor


def explain_query(learner: MetaLearner, adapted: Adapted, queries: Tensor, row: int, steps: int = STEPS) -> Saliency:
    """Integrated gradients of one query's margin, from blank paper.

    Not of the logit itself: what all classes have in common (with prototypes the length of the embedding) says
    nothing of the answer. Where queries are judged together the others stay as they are.

    Args:
        learner: of classes, at least two.
        adapted: as `learner.adapt` gives it.
        queries: `[m, *input_shape]`.
        row: of the query.
        steps: see `integrated_gradients`.
    """
    with torch.no_grad():
        logits = learner.predict(adapted, queries)[row]
    slot, runner_up = (int(place) for place in logits.topk(2).indices)

    def margin(inputs: Tensor) -> Tensor:
        if not getattr(learner.model, "transductive", False):
            outputs = learner.predict(adapted, inputs)
        else:
            judged = []
            for one in inputs:
                beside = torch.cat([queries[:row], one.unsqueeze(0), queries[row + 1 :]])
                judged.append(learner.predict(adapted, beside)[row])
            outputs = torch.stack(judged)
        return outputs[:, slot] - outputs[:, runner_up]

    x = queries[row]
    with torch.no_grad():
        blank = float(margin(torch.zeros_like(x).unsqueeze(0))[0])
    found = integrated_gradients(margin, x, steps=steps)
    return Saliency(slot, runner_up, float(logits[slot] - logits[runner_up]), blank, found.detach())
