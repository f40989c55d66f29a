"""Which support examples drove a prediction: exact for prototypes, by the gradient through an inner loop, or by trial.

A positive value raises the explained output: without the example it would be lower.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fedmeta.learners.base import MetaLearner
from fedmeta.learners.functional import forward
from fedmeta.learners.protonet import Prototypes, class_means
from fedmeta.params import Params
from fedmeta.tasks import Batch, Task

Method = Literal["prototype", "gradient", "leave-one-out"]


@dataclass(frozen=True)
class Influence:
    """What each support example does to each query's output.

    Attributes:
        method: `prototype` (`prototype_influence`), `gradient` through the inner loop, or exact `leave-one-out`.
        values: `[n, m]`, of support example i on the explained output of query q, in units of that output.
        slots: `[m]`, which output is explained: the predicted class; 0 in regression.
        outputs: `[m, outputs]`, the adapted model's.
        shares: `[n, m]`, with prototypes each example's share of its own class's logit (`prototype_shares`); else None.
    """

    method: Method
    values: Tensor
    slots: Tensor
    outputs: Tensor
    shares: Tensor | None = None


def prototype_shares(support: Tensor, y: Tensor, ways: int, query: Tensor) -> Tensor:
    """Each support example's share of its own prototype's logit, exactly.

    The logit of class k is -||q - c_k||^2 with c_k the mean of K embeddings z_i, and so the sum over i in k of
    -(q - c_k).(q - z_i) / K. These shares do not depend on where the embedding's origin lies. By Euler's theorem for
    a form of degree two they are also each example's Aumann-Shapley value.

    Args:
        support: `[n, features]` embeddings z.
        y: `[n]` slots in [0, ways).
        ways: class slots.
        query: `[m, features]` embeddings q.

    Returns:
        `[n, m]`: summed over the examples of a class they are that class's logits.

    >>> prototype_shares(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 0]), 1, torch.tensor([[1.0]])).tolist()
    [[0.5], [-1.5]]
    """
    away, _, counts = _geometry(support, y, ways, query)
    reach = query.unsqueeze(0) - support.unsqueeze(1)
    return -(away * reach).sum(dim=-1) / counts[y].unsqueeze(1)


def prototype_influence(support: Tensor, y: Tensor, ways: int, query: Tensor) -> Tensor:
    """d logit / d w_i of an example's own class, the prototype being a weighted mean with w_i = 1 (`[n, m]`).

    2 (q - c_k).(z_i - c_k) / K: the effect of leaving i out, to first order in 1 / K, and twice what its share lies
    above the mean share of its class. Zero where an example is the only one of its class: weights are relative.

    >>> prototype_influence(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 0]), 1, torch.tensor([[1.0]])).tolist()
    [[2.0], [-2.0]]
    """
    away, means, counts = _geometry(support, y, ways, query)
    return 2 * (away * (support - means[y]).unsqueeze(1)).sum(dim=-1) / counts[y].unsqueeze(1)


def relative_shares(shares: Tensor, y: Tensor, ways: int) -> Tensor:
    """Shares `[n, m]` of logits from which each query's mean logit over the classes is taken away.

    Probabilities know logits only up to a constant of the query, the distance to all prototypes. What is left sums over
    a class to its logit above the mean; positive: the example draws the query to its class.
    """
    members = _members(y, ways, shares.dtype)
    counts = members.sum(dim=1)
    logits = members @ shares
    present = counts > 0
    return shares - logits[present].mean(dim=0) / counts[y].unsqueeze(1)


def explain_support(learner: MetaLearner, params: Params, support: Batch, ways: int, x: Tensor) -> Influence:
    """What each support example did to the predictions of queries, by the best method that the learner allows.

    Prototypes have a closed form. Where the inner loop can be unrolled the gradient passes through it. Any other
    learner (Reptile, fine-tuning, attention) is adapted once more without each example.

    Args:
        learner: its `default_steps` are taken.
        params: meta-parameters.
        support: n examples.
        ways: class slots; 1 for regression.
        x: `[m, *input_shape]`, the queries.
    """
    with torch.no_grad():
        adapted = learner.adapt(params, support, ways)
        outputs = learner.predict(adapted, x)
    slots = _explained(learner.task, outputs)
    if isinstance(adapted, Prototypes):
        with torch.no_grad():
            z, q = (forward(learner.model, params, part) for part in (support.x, x))
            own = support.y.unsqueeze(1) == slots.unsqueeze(0)
            values = prototype_influence(z, support.y, ways, q) * own
            return Influence("prototype", values, slots, outputs, prototype_shares(z, support.y, ways, q))
    found = gradient_influence(learner, params, support, ways, x, slots)
    if found is not None:
        return Influence("gradient", found, slots, outputs)
    return Influence("leave-one-out", leave_one_out(learner, params, support, ways, x, slots), slots, outputs)


def gradient_influence(
    learner: MetaLearner, params: Params, support: Batch, ways: int, x: Tensor, slots: Tensor
) -> Tensor | None:
    """d output_{q, slot} / d w_i `[n, m]`, the support loss being the mean weighted by w, at w = 1.

    The whole inner loop is differentiated, second order and all (the infinitesimal jackknife of Jaeckel 1972, carried
    through the steps instead of an optimum as in Koh and Liang 2017). With one step of a linear model leaving i
    out changes the output by exactly n / (n - 1) times this.

    Returns:
        None where the learner cannot be unrolled, or its inner loop does not descend the task's loss.
    """
    unrolled = getattr(learner, "unrolled", None)
    if unrolled is None or not dataclasses.is_dataclass(learner):
        return None
    dtype = next(iter(params.values())).dtype  # inputs may be codes of characters
    weights = torch.ones(len(support.y), dtype=dtype, requires_grad=True)
    weighted: Any = dataclasses.replace(learner, task=_WeightedTask(learner.task, weights))
    with torch.enable_grad():
        adapted = next(iter(weighted.unrolled(params, support, ways, (learner.default_steps,))))
        outputs = learner.predict(adapted, x)
        if not outputs.requires_grad:
            return None if learner.default_steps else torch.zeros(len(support.y), len(slots), dtype=dtype)
        explained = outputs.gather(1, slots.unsqueeze(1)).squeeze(1)
        rows = [torch.autograd.grad(one, weights, retain_graph=True)[0] for one in explained]
    return torch.stack(rows, dim=1)


def leave_one_out(learner: MetaLearner, params: Params, support: Batch, ways: int, x: Tensor, slots: Tensor) -> Tensor:
    """The explained outputs minus those of a model adapted without example i, exactly: `[n, m]`.

    Costs one adaptation an example. Where an example is its class's only one the class goes with it.

    Raises:
        ValueError: a support of one example, without which there is nothing to adapt to.
    """
    if len(support.y) < 2:
        raise ValueError("a support of one example cannot be left without it")

    def explained(kept: Sequence[int]) -> Tensor:
        rows = torch.tensor(kept)
        adapted = learner.adapt(params, Batch(support.x[rows], support.y[rows]), ways)
        return learner.predict(adapted, x).gather(1, slots.unsqueeze(1)).squeeze(1)

    everybody = range(len(support.y))
    with torch.no_grad():
        whole = explained(list(everybody))
        return torch.stack([whole - explained([row for row in everybody if row != left]) for left in everybody])


@dataclass(frozen=True)
class _WeightedTask:
    """A task whose loss on the support is a weighted mean of single examples' losses."""

    task: Task
    weights: Tensor

    @property
    def kind(self) -> Any:
        return self.task.kind

    @property
    def score_name(self) -> str:
        return self.task.score_name

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        losses = torch.stack([self.task.loss(output[i : i + 1], y[i : i + 1]) for i in range(len(y))])
        return (self.weights * losses).sum() / self.weights.sum()

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        return self.task.score(output, y)


def _explained(task: Task, outputs: Tensor) -> Tensor:
    if task.kind == "classification":
        return outputs.argmax(dim=1)
    return torch.zeros(len(outputs), dtype=torch.int64)


def _geometry(support: Tensor, y: Tensor, ways: int, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q - c of each support example's own class `[n, m, features]`, the class means, and the classes' counts."""
    means = class_means(support, y, ways)
    return query.unsqueeze(0) - means[y].unsqueeze(1), means, _members(y, ways, support.dtype).sum(dim=1)


def _members(y: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
    """`[ways, n]`, 1 where an example is of a class."""
    return (y.unsqueeze(0) == torch.arange(ways).unsqueeze(1)).to(dtype)
