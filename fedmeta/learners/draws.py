"""Random numbers that a task makes itself: a learner that samples stays a pure function of one task.

A hash of the task's data seeds a counter-based generator (SplitMix64, Steele et al. 2014) written in tensor operations.
So fresh tasks have fresh draws, the same task always the same ones, and the numbers are equal in a loop and under
`vmap`, whose own `randomness` knows no seed for a task. These draws serve learning. They protect nobody: noise for
privacy comes from elsewhere (`fedmeta.privacy.noise`).
"""

import torch
from torch import Tensor

_GOLDEN, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
"""The constants of SplitMix64 as signed 64-bit integers."""
_STREAM = 0x2545F4914F6CDD1D
_STEPS_OF_ONE = float(2**20)
"""Inputs are told apart down to a millionth of one."""


def task_seed(*tensors: Tensor) -> Tensor:
    """A 64-bit seed `[]` of the contents of tensors, in their order.

    >>> int(task_seed(torch.tensor([1.0, 2.0]))) == int(task_seed(torch.tensor([2.0, 1.0])))
    False
    """
    seed = torch.zeros((), dtype=torch.int64, device=tensors[0].device)
    for tensor in tensors:
        # Cut off, since what no integer can hold becomes another one on another device.
        values = (tensor.detach().double() * _STEPS_OF_ONE).clamp(-(2.0**62), 2.0**62).to(torch.int64).flatten()
        places = torch.arange(1, values.shape[0] + 1, device=values.device)
        seed = _mix(seed + _mix(values + places * _GOLDEN).sum())
    return seed


def uniform(seed: Tensor, stream: int, count: int) -> Tensor:
    """`[count]` float64 in (0, 1) of a seed `[]`; another `stream` is another sequence."""
    start = _mix(seed + stream * _STREAM % 2**63)
    words = _mix(start + torch.arange(1, count + 1, device=seed.device) * _GOLDEN)
    return (_shifted(words, 11).double() + 0.5) * 2.0**-53


def normal(seed: Tensor, stream: int, count: int) -> Tensor:
    """`[count]` standard normal float64, by the inverse of the distribution function."""
    return torch.special.ndtri(uniform(seed, stream, count))


def permutation(seed: Tensor, stream: int, count: int) -> Tensor:
    """A random order of `count` places, int64 `[count]`."""
    return uniform(seed, stream, count).argsort()


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """The logical shift to the right; torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
