"""Fresh parameters from a generator of one's own, the global one left as it was."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from fedmeta.params import Params, trainable_parameters


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Within this block torch's global CPU generator starts from `seed`; afterwards it is where it was before.

    PyTorch's initialisers draw from that generator and take no other, so it is lent to them.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the generators of every GPU, which fork_rng does not restore here.
        torch.default_generator.manual_seed(seed)
        yield


def initialise(module: nn.Module, generator: torch.Generator) -> Params:
    """A module's parameters drawn anew by its layers' own `reset_parameters`, in the order of `module.modules()`.

    The same generator state gives the same parameters in any process. A parameter that no `reset_parameters` reaches
    keeps the value it has in `module`. The module is not changed.

    Args:
        module: any network without buffers.
        generator: a CPU generator; one number is drawn from it.

    Returns:
        name -> tensor on the module's device, detached, a tied parameter once.

    Raises:
        ConfigurationError: the module has buffers.

    >>> net = nn.Linear(2, 1)
    >>> a, b = (initialise(net, torch.Generator().manual_seed(0)) for _ in range(2))
    >>> torch.equal(a["weight"], b["weight"]), torch.equal(a["weight"], net.weight)
    (True, False)
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    devices = {name: value.device for name, value in module.named_parameters()}
    fresh = copy.deepcopy(module).cpu()
    with isolated_rng(seed):
        for layer in fresh.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
    return {name: value.to(devices[name]) for name, value in trainable_parameters(fresh).items()}
