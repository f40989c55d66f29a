"""How many tasks fit into memory at once: an estimate made before a cohort runs."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SPARE = 2.0
"""Over what autograd keeps for one task: room for gradients, for temporaries, and for a fragmented heap."""


def bytes_kept(function: Callable[[], Any]) -> int:
    """Bytes of the distinct tensors that autograd keeps for the backward passes within a call.

    >>> x = torch.ones(10, requires_grad=True)
    >>> bytes_kept(lambda: (x * x * x).sum())  # x, and x * x
    80
    """
    seen: dict[int, int] = {}
    held: list[Tensor] = []  # so that no address is used twice while it counts

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage.nbytes()
            held.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(seen.values())


def available_bytes(device: torch.device, share: float = 1.0) -> int:
    """Memory that a worker may use now [bytes].

    Args:
        device: a GPU, of whose free memory `share` is this worker's; or the CPU, of whose free memory each core may
            have an equal part.
        share: in (0, 1].
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * share)
    return int(_free_memory() / (os.cpu_count() or 1))


def _free_memory() -> int:
    """What the machine can give without swapping, caches of files included [bytes]."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fitting_tasks(task: Callable[[], Any], available: int) -> int:
    """How many tasks fit at once, at least 1.

    Args:
        task: takes one task's gradient, by eager autograd; run once.
        available: see `available_bytes`.
    """
    return max(1, int(available / (SPARE * max(1, bytes_kept(task)))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or by torch's CPU allocator, which has no exception of its own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
