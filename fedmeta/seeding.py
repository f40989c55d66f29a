"""Random generators by purpose: the same (seed, round, client, purpose) gives the same draws in any process.

Nothing in fedmeta draws from a global generator, so results do not depend on who ran before on the same worker.
Draws that protect somebody (noise, keys, masks) do not come from here in a deployment: the server knows the seed.
"""

import hashlib

import numpy as np

SERVER = -1
"""The client id under which the server itself draws."""


def derive(seed: int, round: int, client: int, purpose: str) -> int:
    """A 64-bit seed from the four coordinates by SHA-256; distinct coordinates give independent seeds.

    >>> derive(0, 1, 2, "episodes") == derive(0, 1, 2, "episodes"), derive(0, 1, 2, "a") == derive(0, 12, -1, "a")
    (True, False)
    """
    digest = hashlib.sha256(f"{seed}|{round}|{client}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def numpy_generator(seed: int, round: int, client: int, purpose: str) -> np.random.Generator:
    """A numpy generator for index draws (episodes, client sampling, partitions)."""
    return np.random.Generator(np.random.PCG64(derive(seed, round, client, purpose)))


def torch_generator(seed: int, round: int, client: int, purpose: str):  # type: ignore[no-untyped-def]
    """A CPU `torch.Generator` for tensor draws (initialisation)."""
    import torch

    return torch.Generator().manual_seed(derive(seed, round, client, purpose) % 2**63)
