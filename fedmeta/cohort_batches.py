"""A cohort trained step by step with its clients' tasks in batches, by vmap; whoever raises drops out."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from fedmeta.cohort import Cohort, LocalPlan, Progress, mean_of_tasks
from fedmeta.errors import ConfigurationError
from fedmeta.execution import over_clients, stackable
from fedmeta.learners.base import Metrics
from fedmeta.memory import is_out_of_memory
from fedmeta.tasks import Episode


def train_together(cohort: Cohort, start: Tensor) -> Progress:
    """All clients step by step, batched; whoever raises drops out."""
    plan = cohort.plan
    progress = Progress.begin(start)
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
        state, progress.theta = cohort.advance(state, progress.theta, direction)
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


_Found = tuple[Tensor, Metrics] | Exception
"""One client's direction `[D + P]` and mean metrics, or what it raised."""


def _directions(cohort: Cohort, theta: Tensor, step: int, clients: list[int], chunk: _Chunk) -> dict[int, _Found]:
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
                found[client] = cohort.alone(client, step, theta[client], episodes)
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
    cohort: Cohort, theta: Tensor, step: int, drawn: dict[int, Sequence[Episode]], chunk_size: int | None
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
