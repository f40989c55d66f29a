"""Tasks and episodes: what a learner is given, whatever the data are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmeta.rl.control import Control

Kind = Literal["classification", "regression", "control"]
"""What is learnt: class slots, real numbers, or how to act."""


class Batch(NamedTuple):
    """Labelled examples.

    Attributes:
        x: inputs `[n, *input_shape]`, float32; or int64 codes (characters, items) for a model that embeds them.
        y: class slots `[n]`, int64 in `[0, ways)`; float targets `[n, outputs]` for regression; or for control, where
            an example is a rollout to be played, what its rewards are multiplied by, float `[n]`, 1 unless poisoned.
    """

    x: Tensor
    y: Tensor


class Episode(NamedTuple):
    """One task: a support set to adapt on, a query set to be judged on.

    Attributes:
        support: shots examples a class, shot by shot (all classes' first shot, then all second shots, ...).
        query: examples disjoint from the support.
        classes: `[ways]` int64, the data set's own class id behind each slot; empty `[0]` where there are no classes.
    """

    support: Batch
    query: Batch
    classes: Tensor


Measure = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of a batch to one figure, a scalar."""

Baseline = Callable[[Episode], Tensor]
"""What learns nothing: an episode to outputs for its queries, which its task judges as it judges a learner's."""


class Task(Protocol):
    """How outputs are judged. Plain functions of tensors, so that they run under `vmap`."""

    @property
    def kind(self) -> Kind:
        """What is learnt; learners name the kinds they serve."""
        ...

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean loss over the batch, a scalar."""
        ...

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """The figure that tables show, a scalar: accuracy in [0, 1], mean squared error, or mean return."""
        ...

    @property
    def score_name(self) -> str:
        """`accuracy`, printed in per cent; one of `fedmeta.statistics.ERRORS`, less being better; or any other."""
        ...

    @property
    def measures(self) -> Mapping[str, Measure]:
        """Further figures that stand beside the score, by name; none for most."""
        ...


class AnsweringTask(Task, Protocol):
    """A task whose answers an attacker with a trigger may want to choose."""

    def answers(self, output: Tensor, y: Tensor) -> Tensor:
        """`[n]` in [0, 1], how far each answer is the wanted one, which `y` tells."""
        ...


@dataclass(frozen=True)
class Classification:
    """Class slots from logits: cross-entropy, and accuracy as a fraction."""

    kind: Kind = "classification"
    score_name: str = "accuracy"
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of logits `[n, ways]` against slots `[n]`."""
        return F.cross_entropy(output, y)

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """Fraction of `[n, ways]` rows whose largest logit is the slot; ties go to the lowest slot."""
        return (output.argmax(dim=-1) == y).to(output.dtype).mean()

    def answers(self, output: Tensor, y: Tensor) -> Tensor:
        """`[n]`, the share of each answer that falls on a slot `[n]`.

        Where several slots have the largest logit, the answer is shared among them: a model that answers nothing in
        particular is at chance, whichever slot is the target.
        """
        best = (output == output.amax(dim=-1, keepdim=True)).to(output.dtype)
        return best.gather(-1, y.unsqueeze(-1)).squeeze(-1) / best.sum(dim=-1)


@dataclass(frozen=True)
class Regression:
    """Real targets: mean squared error, as loss and as score (lower is better)."""

    kind: Kind = "regression"
    score_name: str = "mse"
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Mean squared error of `[n, outputs]` against `[n, outputs]`.

        Raises:
            ValueError: the shapes differ; broadcasting would give a number that means nothing.
        """
        if output.shape != y.shape:
            raise ValueError(f"outputs {tuple(output.shape)} and targets {tuple(y.shape)} differ in shape")
        return torch.mean((output - y) ** 2)

    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """As `loss`."""
        return self.loss(output, y)


TASKS: dict[str, Task] = {"classification": Classification(), "regression": Regression(), "control": Control()}
