"""A cohort under local meta-training: how its clients train, what stays the same for all, and where they stand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from fedmeta.execution import Execution, over_tasks
from fedmeta.learners.base import MetaLearner, Metrics, personal_prefix
from fedmeta.optimisers import Optimiser
from fedmeta.params import Params, ParamSpec
from fedmeta.precision import Precision
from fedmeta.tasks import Episode

Sample = Callable[[int, int, int], Sequence[Episode]]
"""(client's index in the cohort, step, number of tasks) -> that client's episodes of that step; at least one."""

Reduction = Callable[[Tensor, int, int], Tensor]
"""(per-task gradients `[T, D + P]`, client's index, step) -> one direction `[D + P]`.

Rows hold shared entries, then personal ones. Task-level privacy clips rows and adds noise here, and must treat the
whole row: the next step's shared gradient depends on personal entries. Index and step let noise be seeded.
"""


Gradient = Callable[[Params, Episode], tuple[Params, Metrics]]
"""A function like `MetaLearner.meta_gradient`."""

TaskGradient = Callable[[int, int], Gradient]
"""(client's index, step) -> the gradient of that client's tasks of that step, which are taken in their order."""


def mean_of_tasks(rows: Tensor, client: int, step: int) -> Tensor:
    """The plain mean over tasks: `[T, D + P]` to `[D + P]`."""
    return rows.mean(dim=0)


@dataclass(frozen=True)
class LocalPlan:
    """How a client trains in one round.

    Attributes:
        steps: outer steps, >= 1.
        tasks_per_step: meta-batch, >= 1.
        optimiser: the outer optimiser, whose state is fresh every round.
        scale: multiplies its learning rate (a schedule over rounds).
        execution: `auto`, `loop` or `vmap`.
        chunk_size: tasks batched at once under vmap; None for all. Where memory runs out, half as many, once, with a
            warning.
        precision: of the arithmetic; parameters and updates are float32 in any.
        reduce: per-task gradients to one.
        objective: what takes the place of the learner's `meta_gradient`, of any task in the same way; batched like it.
        gradient: what takes the place of both, as client and step say; its tasks are then trained one by one.
        may_be_empty: a step may draw no task at all (Poisson sampling of tasks); `reduce` then gets `[0, D + P]`.
    """

    steps: int
    tasks_per_step: int
    optimiser: Optimiser
    scale: float = 1.0
    execution: Execution = "auto"
    chunk_size: int | None = None
    precision: Precision = "float32"
    reduce: Reduction = mean_of_tasks
    objective: Gradient | None = None
    gradient: TaskGradient | None = None
    may_be_empty: bool = False


@dataclass(frozen=True)
class Cohort:
    """What stays the same for all clients and steps."""

    learner: MetaLearner
    spec: ParamSpec
    sample: Sample
    plan: LocalPlan
    frozen: Params

    def task_gradient(self, trained: Params, episode: Episode) -> tuple[Tensor, Metrics]:
        """One task's meta-gradient as a row `[D + P]`, and its metrics."""
        return self.row(self.plan.objective or self.learner.meta_gradient, trained, episode)

    def row(self, gradient: Gradient, trained: Params, episode: Episode) -> tuple[Tensor, Metrics]:
        """A gradient of one task as a row `[D + P]`, and its metrics."""
        grads, metrics = gradient({**trained, **self.frozen}, episode)
        return self.flatten(grads), metrics

    def flatten(self, params: Params) -> Tensor:
        """Shared entries, then personal ones: `[D + P]`."""
        row = self.spec.flatten(params)
        return torch.cat([row, self.spec.flatten(params, "personal")], dim=-1) if self.spec.select("personal") else row

    def unflatten(self, theta: Tensor) -> Params:
        """The inverse of `flatten`, for `[D + P]` or `[C, D + P]`."""
        shared = self.spec.size()
        return {**self.spec.unflatten(theta[..., :shared]), **self.spec.unflatten(theta[..., shared:], "personal")}

    def advance(self, state: dict[str, Tensor], theta: Tensor, direction: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The optimiser's next state, and `[D + P]` or `[C, D + P]` after its step along `-direction`.

        Entries that the learner keeps for the client itself take the step that the direction holds.
        """
        state, change = self.plan.optimiser.step(state, direction, self.plan.scale)
        kept = self._kept
        return state, theta + (change if kept is None else torch.where(kept.to(theta.device), -direction, change))

    @cached_property
    def _kept(self) -> Tensor | None:
        """`[D + P]`, which entries the learner itself moves; None for none."""
        prefix = personal_prefix(self.learner)
        if prefix is None:
            return None
        entries = (*self.spec.select("shared"), *self.spec.select("personal"))
        return torch.cat([torch.full((entry.size,), entry.name.startswith(prefix)) for entry in entries])

    def episodes(self, client: int, step: int) -> Sequence[Episode]:
        """A client's tasks of one step."""
        drawn = self.sample(client, step, self.plan.tasks_per_step)
        if not drawn and not self.plan.may_be_empty:
            raise ValueError(f"no task was drawn for step {step}")
        return drawn

    def alone(self, client: int, step: int, theta: Tensor, episodes: Sequence[Episode]) -> tuple[Tensor, Metrics]:
        """One client's direction `[D + P]` by a loop over its tasks, and its mean metrics."""
        plan, function = self.plan, self.task_gradient
        if not episodes:
            return plan.reduce(theta.new_zeros((0, len(theta))), client, step), {}
        if plan.gradient is not None:
            function = partial(self.row, plan.gradient(client, step))
        rows, metrics = over_tasks(function, self.unflatten(theta), episodes, "loop")
        return plan.reduce(rows, client, step), {name: value.mean() for name, value in metrics.items()}


@dataclass
class Progress:
    """Where a cohort stands: rows of trained parameters, sums of metrics over steps, and who failed."""

    theta: Tensor
    metrics: Metrics
    failures: dict[int, Exception]
    counted: Tensor

    @classmethod
    def begin(cls, theta: Tensor) -> "Progress":
        """Before the first step, at `[C, D + P]`."""
        return cls(theta, {}, {}, torch.zeros(len(theta), dtype=torch.int64, device=theta.device))

    @property
    def alive(self) -> list[int]:
        """Indices of the clients that have not failed."""
        return [client for client in range(len(self.theta)) if client not in self.failures]

    def add(self, client: int, metrics: Metrics) -> None:
        """Add one step's mean metrics of one client; a step without tasks has none."""
        self.counted[client] += bool(metrics)
        for name, value in metrics.items():
            if name not in self.metrics:
                self.metrics[name] = torch.zeros(len(self.theta), dtype=value.dtype, device=value.device)
            self.metrics[name][client] += value
