"""Local meta-training: a cohort of clients takes outer steps on its own tasks and returns updates.

For every client c and step: G = mean over its tasks of meta_gradient(theta_c, task); theta_c = optimiser(theta_c, G).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.execution import Execution, over_clients, over_tasks, resolve, stackable
from fedmeta.learners.base import MetaLearner, Metrics
from fedmeta.memory import is_out_of_memory
from fedmeta.optimisers import Optimiser
from fedmeta.params import Params, ParamSpec
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
        reduce: per-task gradients to one.
        gradient: what takes the place of the learner's `meta_gradient`; its tasks are then trained one by one.
        may_be_empty: a step may draw no task at all (Poisson sampling of tasks); `reduce` then gets `[0, D + P]`.
    """

    steps: int
    tasks_per_step: int
    optimiser: Optimiser
    scale: float = 1.0
    execution: Execution = "auto"
    chunk_size: int | None = None
    reduce: Reduction = mean_of_tasks
    gradient: TaskGradient | None = None
    may_be_empty: bool = False


@dataclass(frozen=True)
class CohortResult:
    """What a cohort of C clients trained.

    Attributes:
        updates: `[C, D]` shared parameters after minus before. A failed client's row is NaN, so that no one uses it.
        personal: `[C, P]` personal parameters after training; NaN rows as above.
        metrics: name -> `[C]`, means over all tasks of the values before each outer step: `loss` and the task's score.
        failures: client's index -> what it raised.
    """

    updates: Tensor
    personal: Tensor
    metrics: Metrics
    failures: dict[int, Exception] = field(default_factory=dict)


def train_cohort(
    learner: MetaLearner,
    spec: ParamSpec,
    shared: Tensor,
    clients: int,
    sample: Sample,
    plan: LocalPlan,
    *,
    personal: Tensor | None = None,
    frozen: Params | None = None,
) -> CohortResult:
    """Train every client of a cohort from the same or its own shared parameters.

    With `loop` a client's result is bitwise what it would be alone. One client's exception costs that client only.
    Roles concern the outer loop: an inner loop may move a copy of frozen entries, their meta-parameters never.

    Args:
        learner: whose `meta_gradient` is followed.
        spec: names, shapes and roles of all parameters.
        shared: `[D]` for all clients, or `[C, D]`; never modified. Its device is where training happens.
        clients: C >= 1.
        sample: draws tasks; called once for every client and step.
        plan: steps, tasks, optimiser, execution.
        personal: `[C, P]` in the order of `spec.select("personal")`; needed where the spec has such entries.
        frozen: the entries that never move, by name; needed where the spec has such entries.

    Raises:
        ValueError: shapes that do not fit the spec, or values of personal or frozen entries not given.
    """
    start = _start(spec, shared, clients, personal)
    missing = [entry.name for entry in spec.select("frozen") if entry.name not in (frozen or {})]
    if missing:
        raise ValueError(f"no value for the frozen parameters {', '.join(missing)}")
    cohort = _Cohort(learner, spec, sample, plan, {name: value.detach() for name, value in (frozen or {}).items()})
    alone = plan.gradient is not None or plan.may_be_empty  # no equal tasks to batch
    if alone or resolve(plan.execution, learner.model, shared.device) == "loop":
        progress = _one_by_one(cohort, start)
    else:
        progress = _together(cohort, start)
    return _collect(progress, start, spec.size())


@dataclass(frozen=True)
class _Cohort:
    """What stays the same for all clients and steps."""

    learner: MetaLearner
    spec: ParamSpec
    sample: Sample
    plan: LocalPlan
    frozen: Params

    def task_gradient(self, trained: Params, episode: Episode) -> tuple[Tensor, Metrics]:
        """One task's meta-gradient as a row `[D + P]`, and its metrics."""
        return self.row(self.learner.meta_gradient, trained, episode)

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

    def episodes(self, client: int, step: int) -> Sequence[Episode]:
        """A client's tasks of one step."""
        drawn = self.sample(client, step, self.plan.tasks_per_step)
        if not drawn and not self.plan.may_be_empty:
            raise ValueError(f"no task was drawn for step {step}")
        return drawn


@dataclass
class _Progress:
    """Where a cohort stands: rows of trained parameters, sums of metrics over steps, and who failed."""

    theta: Tensor
    metrics: Metrics
    failures: dict[int, Exception]
    counted: Tensor

    @property
    def alive(self) -> list[int]:
        return [client for client in range(len(self.theta)) if client not in self.failures]

    def add(self, client: int, metrics: Metrics) -> None:
        """Add one step's mean metrics of one client; a step without tasks has none."""
        self.counted[client] += bool(metrics)
        for name, value in metrics.items():
            if name not in self.metrics:
                self.metrics[name] = torch.zeros(len(self.theta), dtype=value.dtype, device=value.device)
            self.metrics[name][client] += value


def _one_by_one(cohort: _Cohort, start: Tensor) -> _Progress:
    progress = _begin(start.clone())
    for client, theta in enumerate(start):
        try:
            # A copy, since a BLAS may round differently where a row starts at another alignment in memory.
            progress.theta[client] = _train_one(cohort, client, theta.clone(), progress)
        except Exception as error:
            progress.failures[client] = error
    return progress


def _train_one(cohort: _Cohort, client: int, theta: Tensor, progress: _Progress) -> Tensor:
    # The optimiser sees one row, never the cohort's: how a kernel splits a larger tensor could show in the last bit.
    plan = cohort.plan
    state = plan.optimiser.init(theta)
    for step in range(plan.steps):
        direction, metrics = _alone(cohort, client, step, theta, cohort.episodes(client, step))
        state, change = plan.optimiser.step(state, direction, plan.scale)
        theta = theta + change
        progress.add(client, metrics)
    return theta


def _alone(
    cohort: _Cohort, client: int, step: int, theta: Tensor, episodes: Sequence[Episode]
) -> tuple[Tensor, Metrics]:
    """One client's direction `[D + P]` by a loop over its tasks, and its mean metrics."""
    plan, function = cohort.plan, cohort.task_gradient
    if not episodes:
        return plan.reduce(theta.new_zeros((0, len(theta))), client, step), {}
    if plan.gradient is not None:
        function = partial(cohort.row, plan.gradient(client, step))
    rows, metrics = over_tasks(function, cohort.unflatten(theta), episodes, "loop")
    return plan.reduce(rows, client, step), {name: value.mean() for name, value in metrics.items()}


def _together(cohort: _Cohort, start: Tensor) -> _Progress:
    """All clients step by step, batched; whoever raises drops out."""
    plan = cohort.plan
    progress = _begin(start)
    state = plan.optimiser.init(start)
    chunk = _Chunk(plan)
    for step in range(plan.steps):
        direction = torch.zeros_like(start)  # a failed client stays where it was; nobody reads its row
        waiting = progress.alive
        while waiting:
            size = chunk.clients or len(waiting)
            batch, rest = waiting[:size], waiting[size:]
            try:
                directions = _directions(cohort, progress.theta, step, batch, chunk)
            except Exception as error:
                chunk.halve(error, len(batch))
                continue
            waiting = rest
            for client, found in directions.items():
                if isinstance(found, Exception):
                    progress.failures[client] = found
                else:
                    direction[client] = found[0]
                    progress.add(client, found[1])
        state, change = plan.optimiser.step(state, direction, plan.scale)
        progress.theta = progress.theta + change
    return progress


class _Chunk:
    """How many tasks are batched at once, and so how many clients; may shrink once."""

    def __init__(self, plan: LocalPlan) -> None:
        self._per_client, self.may_shrink = plan.tasks_per_step, True
        self.tasks = plan.chunk_size
        """None for all."""

    @property
    def clients(self) -> int | None:
        """A batch's clients, at least one; None for all."""
        return None if self.tasks is None else max(1, self.tasks // self._per_client)

    def halve(self, error: Exception, clients: int) -> None:
        """Go on with half of a batch that did not fit; raises what is no want of memory."""
        if not (self.may_shrink and is_out_of_memory(error)):
            raise error
        tried = clients * self._per_client if self.tasks is None else min(self.tasks, clients * self._per_client)
        self.tasks, self.may_shrink = max(1, tried // 2), False
        warnings.warn(
            f"{tried} tasks at once do not fit into memory: going on with {self.tasks}. Set client.chunk_size to that",
            stacklevel=2,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _begin(theta: Tensor) -> _Progress:
    return _Progress(theta, {}, {}, torch.zeros(len(theta), dtype=torch.int64, device=theta.device))


_Found = tuple[Tensor, Metrics] | Exception
"""One client's direction `[D + P]` and mean metrics, or what it raised."""


def _directions(cohort: _Cohort, theta: Tensor, step: int, clients: list[int], chunk: _Chunk) -> dict[int, _Found]:
    """Every client's direction or fault. Raises only for want of memory, while the chunk may still shrink."""
    found: dict[int, _Found] = {}
    drawn: dict[int, Sequence[Episode]] = {}
    for client in clients:
        try:
            drawn[client] = cohort.episodes(client, step)
        except Exception as error:
            found[client] = error
    batchable = _batchable(cohort.plan, list(drawn.values()))
    if batchable:
        # One client's fault must not cost the others: below, each goes alone, which shows whose it was.
        try:
            return {**found, **_batched(cohort, theta, step, drawn, chunk.tasks)}
        except Exception as error:
            if chunk.may_shrink and is_out_of_memory(error):
                raise
    for client, episodes in drawn.items():
        try:
            if batchable:
                found |= _batched(cohort, theta, step, {client: episodes}, chunk.tasks)
            else:
                found[client] = _alone(cohort, client, step, theta[client], episodes)
        except Exception as error:
            found[client] = error
    return found


def _batchable(plan: LocalPlan, drawn: list[Sequence[Episode]]) -> bool:
    """Whether the clients' tasks form one batch; `auto` trains the others in a loop, `vmap` refuses them."""
    equal = bool(drawn) and len({*map(len, drawn)}) == 1 and stackable([episode for own in drawn for episode in own])
    if drawn and not equal and plan.execution == "vmap":
        raise ConfigurationError(
            "execution = 'vmap' needs equal numbers of tasks and equal ways, shots and queries from all clients. "
            "Use loop or auto"
        )
    return equal


def _batched(
    cohort: _Cohort, theta: Tensor, step: int, drawn: dict[int, Sequence[Episode]], chunk_size: int | None
) -> dict[int, _Found]:
    plan, clients = cohort.plan, list(drawn)
    params = cohort.unflatten(theta[clients])
    rows, metrics = over_clients(cohort.task_gradient, params, list(drawn.values()), chunk_size)
    if plan.reduce is mean_of_tasks:
        directions = rows.mean(dim=1)
    else:
        directions = torch.stack([plan.reduce(own, client, step) for client, own in zip(clients, rows, strict=True)])
    means = {name: value.mean(dim=1).unbind() for name, value in metrics.items()}
    return {
        client: (directions[row], {name: value[row] for name, value in means.items()})
        for row, client in enumerate(clients)
    }


def _start(spec: ParamSpec, shared: Tensor, clients: int, personal: Tensor | None) -> Tensor:
    """`[C, D + P]` detached, after checks."""
    rows, own = shared.detach(), spec.size("personal")
    if shared.dim() == 1:
        rows = rows.expand(clients, -1)
    if rows.shape != (clients, spec.size()):
        raise ValueError(f"shared parameters {list(shared.shape)} for {clients} clients of {spec.size()} each")
    if not own:
        return rows
    if personal is None or personal.shape != (clients, own):
        given = "none" if personal is None else str(list(personal.shape))
        raise ValueError(f"personal parameters must be [{clients}, {own}], not {given}")
    return torch.cat([rows, personal.detach()], dim=-1)


def _collect(progress: _Progress, start: Tensor, size: int) -> CohortResult:
    """Updates and personal rows; a failed client's are NaN."""
    theta, failed = progress.theta.clone(), list(progress.failures)
    theta[failed] = torch.nan
    metrics = {name: total / progress.counted for name, total in progress.metrics.items()}
    for values in metrics.values():
        values[failed] = torch.nan
    return CohortResult(theta[:, :size] - start[:, :size], theta[:, size:], metrics, progress.failures)
