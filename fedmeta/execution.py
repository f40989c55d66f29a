"""How a function of one task is applied to many: in a loop, or batched by `vmap` over tasks and clients.

The two give the same numbers to rounding (float64: 2e-15 relative, 4e-14 under group normalisation). `loop` needs the
memory of one task, runs any model (recurrent ones too), and is bitwise the same whichever other tasks and clients are
present. `vmap` is what a GPU needs, and pays on a CPU for nets so narrow that Python costs more than arithmetic.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedmeta.errors import ConfigurationError
from fedmeta.gradients import vectorised
from fedmeta.params import Params
from fedmeta.tasks import Batch, Episode

Execution = Literal["auto", "loop", "vmap"]
Way = Literal["loop", "vmap"]

TaskFunction = Callable[[Params, Episode], Any]
"""A function of parameters and one episode that returns a nest of tensors (tuples, dicts)."""

NARROW = 60_000
"""Parameters up to which `auto` batches a fully connected net on a CPU."""

ONE_BY_ONE = "tasks are trained one after the other (loop)"
BATCHED = "tasks are trained in batches (vmap)"
EXACT = "a loop gives the same bits in every run"
"""Words of the reasons for an execution."""


def resolve(execution: Execution, model: nn.Module, device: torch.device) -> Way:
    """What `auto` means: a rule of model and device alone, so that every worker of a run decides alike.

    vmap on a GPU, but for recurrent nets, which it cannot batch, and what says so itself (`batchable = False`). On a
    CPU vmap for nets of at most `NARROW` parameters without convolutions, else loop. Measured on one CPU thread, MAML
    and FOMAML, 5-way 1-shot, time of loop over time of vmap: 1,900 parameters 5 to 12 (8 to 32 clients of 4 tasks),
    25,000 3 to 4, 55,000 2.3 to 2.9; 0.8 to 1 for one client of 4 tasks; 0.3 for a single task. An MLP of 247,000: 0.6
    to 1.6. conv4: 0.8 to 1.5, best for 32 filters, one query a class and 16 tasks at once, for 1.5 to 3 times the
    memory, so that a loop's bitwise reproducibility is worth more; ask for `vmap` where it is not.
    """
    return resolved_with_reason(execution, model, device)[0]


def resolved_with_reason(execution: Execution, model: nn.Module, device: torch.device) -> tuple[Way, str]:
    """As `resolve`, and why, in one sentence for who wonders at it.

    Raises:
        ConfigurationError: `vmap` is asked of a model that cannot be batched.
    """
    layers = list(model.modules())
    if not all(getattr(layer, "batchable", True) for layer in layers):
        if execution == "vmap":
            raise ConfigurationError(
                f"execution = 'vmap' cannot batch a {type(model).__name__}, which steps outside of torch: use auto"
            )
        return "loop", f"{ONE_BY_ONE}: a {type(model).__name__} steps outside of torch and cannot be batched"
    if execution != "auto":
        return execution, f"{ONE_BY_ONE if execution == 'loop' else BATCHED}: client.execution asks for it"
    if any(isinstance(layer, nn.RNNBase) for layer in layers):
        return "loop", f"{ONE_BY_ONE}: a recurrent net cannot be batched"
    if device.type != "cpu":
        return "vmap", f"{BATCHED}: a GPU is fast only when it has many at once"
    size = sum(value.numel() for value in model.parameters())
    if any(isinstance(layer, nn.modules.conv._ConvNd) for layer in layers):
        return "loop", f"{ONE_BY_ONE}: on a CPU a net with convolutions gains little from batches, and {EXACT}"
    if size > NARROW:
        return "loop", f"{ONE_BY_ONE}: on a CPU a net of {size:,} parameters gains little from batches, and {EXACT}"
    return "vmap", f"{BATCHED}: a net of {size:,} parameters is so small that batches are faster, on a CPU too"


def stackable(episodes: Sequence[Episode]) -> bool:
    """Whether all episodes have equal shapes, as vmap needs."""
    return len({tuple(tuple(tensor.shape) for tensor in _leaves(episode)) for episode in episodes}) == 1


def over_tasks(
    function: TaskFunction,
    params: Params,
    episodes: Sequence[Episode],
    execution: Literal["loop", "vmap"],
    chunk_size: int | None = None,
) -> Any:
    """Apply `function(params, episode)` to T episodes; results are stacked to `[T, ...]`.

    Args:
        function: of one task; must be pure.
        params: the same for all tasks.
        episodes: at least one; moved to the device of `params`.
        execution: `loop` or `vmap`.
        chunk_size: tasks batched at once under vmap, which bounds memory; None for all.

    Raises:
        ConfigurationError: vmap over episodes of unequal shapes.
    """
    device = next(iter(params.values())).device
    if execution == "loop":
        return stack([function(params, to_device(episode, device)) for episode in episodes])
    batch = to_device(_stack_episodes(episodes), device)
    with vectorised():
        return torch.vmap(function, in_dims=(None, 0), chunk_size=chunk_size)(params, batch)


def over_clients(
    function: TaskFunction,
    params: Params,
    episodes: Sequence[Sequence[Episode]],
    chunk_size: int | None = None,
) -> Any:
    """As `over_tasks` by vmap, for C clients with parameters `[C, ...]` of their own and T tasks each: `[C, T, ...]`.

    `chunk_size` bounds the tasks of one client at a time; the caller bounds the clients.

    Raises:
        ConfigurationError: episodes of unequal shapes, or clients with unequal numbers of tasks.
    """
    device = next(iter(params.values())).device
    if len({len(own) for own in episodes}) != 1:
        raise ConfigurationError(
            "execution = 'vmap' needs the same number of tasks from every client. Use loop or auto"
        )
    flat = _stack_episodes([episode for own in episodes for episode in own])
    batch = _map(lambda tensor: tensor.unflatten(0, (len(episodes), len(episodes[0]))).to(device), flat)
    with vectorised():
        return torch.vmap(torch.vmap(function, in_dims=(None, 0), chunk_size=chunk_size))(params, batch)


def stack(results: Sequence[Any]) -> Any:
    """Nests of equal structure to one nest of stacked tensors.

    >>> stack([(torch.tensor(1), {"a": torch.tensor(2)}), (torch.tensor(3), {"a": torch.tensor(4)})])
    (tensor([1, 3]), {'a': tensor([2, 4])})
    """
    first = results[0]
    if isinstance(first, Tensor):
        return torch.stack(list(results))
    if isinstance(first, Mapping):
        return {name: stack([result[name] for result in results]) for name in first}
    return tuple(stack(column) for column in zip(*results, strict=True))


def _map(function: Callable[[Tensor], Tensor], episode: Episode) -> Episode:
    def batch(part: Batch) -> Batch:
        return Batch(function(part.x), function(part.y))

    return Episode(batch(episode.support), batch(episode.query), function(episode.classes))


def to_device(episode: Episode, device: torch.device) -> Episode:
    """An episode on a device; itself where it is there."""
    return episode if episode.support.x.device == device else _map(lambda tensor: tensor.to(device), episode)


def _leaves(episode: Episode) -> tuple[Tensor, ...]:
    return (*episode.support, *episode.query, episode.classes)


def _stack_episodes(episodes: Sequence[Episode]) -> Episode:
    if not stackable(episodes):
        raise ConfigurationError(
            "execution = 'vmap' needs episodes of equal shapes, and these differ in ways, shots or queries. "
            "Use loop or auto"
        )
    support_x, support_y, query_x, query_y, classes = (
        torch.stack(column) for column in zip(*map(_leaves, episodes), strict=True)
    )
    return Episode(Batch(support_x, support_y), Batch(query_x, query_y), classes)
