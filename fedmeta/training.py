"""Local meta-training: a cohort of clients takes outer steps on its own tasks and returns updates.

For every client c and step: G = mean over its tasks of meta_gradient(theta_c, task); theta_c = optimiser(theta_c, G).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedmeta.cohort import Cohort, LocalPlan, Progress, Sample
from fedmeta.cohort_batches import train_together
from fedmeta.execution import resolve
from fedmeta.learners.base import MetaLearner, Metrics
from fedmeta.params import Params, ParamSpec
from fedmeta.precision import computing_in


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
    cohort = Cohort(learner, spec, sample, plan, {name: value.detach() for name, value in (frozen or {}).items()})
    alone = plan.gradient is not None or plan.may_be_empty  # no equal tasks to batch
    looped = alone or resolve(plan.execution, learner.model, shared.device) == "loop"
    with computing_in(plan.precision, shared.device):
        progress = _one_by_one(cohort, start) if looped else train_together(cohort, start)
    return _collect(progress, start, spec.size())


def _one_by_one(cohort: Cohort, start: Tensor) -> Progress:
    progress = Progress.begin(start.clone())
    for client, theta in enumerate(start):
        try:
            # A copy, since a BLAS may round differently where a row starts at another alignment in memory.
            progress.theta[client] = _train_one(cohort, client, theta.clone(), progress)
        except Exception as error:
            progress.failures[client] = error
    return progress


def _train_one(cohort: Cohort, client: int, theta: Tensor, progress: Progress) -> Tensor:
    # The optimiser sees one row, never the cohort's: how a kernel splits a larger tensor could show in the last bit.
    plan = cohort.plan
    state = plan.optimiser.init(theta)
    for step in range(plan.steps):
        direction, metrics = cohort.alone(client, step, theta, cohort.episodes(client, step))
        state, theta = cohort.advance(state, theta, direction)
        progress.add(client, metrics)
    return theta


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


def _collect(progress: Progress, start: Tensor, size: int) -> CohortResult:
    """Updates and personal rows; a failed client's are NaN."""
    theta, failed = progress.theta.clone(), list(progress.failures)
    theta[failed] = torch.nan
    metrics = {name: total / progress.counted for name, total in progress.metrics.items()}
    for values in metrics.values():
        values[failed] = torch.nan
    return CohortResult(theta[:, :size] - start[:, :size], theta[:, size:], metrics, progress.failures)
