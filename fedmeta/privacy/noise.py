"""Normal draws that protect somebody: from the operating system in a deployment, from the seed in a simulation.

Both are float64 approximations of the real-valued Gaussian that the accounting speaks of; neither is an exact sampler.
"""

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmeta.seeding import numpy_generator

Noise = Callable[[int], Tensor]
"""How many -> that many independent standard normal draws `[n]`, float64; every call gives fresh ones."""


def seeded_noise(seed: int, round: int, client: int, purpose: str) -> Noise:
    """Reproducible draws for simulations. Whoever knows the seed can subtract them: no privacy is given."""
    generator = numpy_generator(seed, round, client, f"noise/{purpose}")  # thrice as quick as torch's float64 draws
    return lambda count: torch.from_numpy(generator.standard_normal(count))


def system_noise() -> Noise:
    """Draws from the operating system's cryptographic generator, by inversion of 52-bit uniforms (within 8.3 sigma)."""
    return _from_system


def _from_system(count: int) -> Tensor:
    return _inverted(np.frombuffer(os.urandom(8 * count), dtype=np.uint64))


def _inverted(words: npt.NDArray[np.uint64]) -> Tensor:
    """Uniform 64-bit words to as many normal draws, symmetric and finite for every word."""
    from scipy.special import ndtri

    # 52 bits, so that k + 1/2 is exact: with 53 the largest k rounds up to 1, whose draw is infinite.
    return torch.from_numpy(ndtri(((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52))


def system_generator() -> np.random.Generator:
    """An index generator that nobody can foresee, seeded afresh by the operating system: for private sampling."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(os.urandom(32), "little")))
