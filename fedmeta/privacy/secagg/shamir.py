"""Shamir's t-of-n secret sharing (Shamir, CACM 1979) over the integers modulo p = 2^256 + 297.

Holder number x (1, 2, ...) gets f(x) of a random polynomial f of degree t - 1 with f(0) the secret. Any t shares give
the secret by Lagrange's formula, fewer tell nothing. p is the smallest prime above 2^256, so that any 32 bytes are a
secret; a share takes 33.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.messages import SHARE_BYTES

PRIME = 2**256 + 297
SECRET_BYTES = 32


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Shares of a secret for holders 1 to `count`, 33 bytes each.

    Args:
        secret: 32 bytes.
        threshold: shares that rebuild it, 1 <= threshold <= count.
        count: holders.

    Raises:
        ValueError: a secret of another length, or a threshold that `count` holders cannot reach.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= count:
        raise ValueError(f"cannot share {len(secret)} bytes {threshold}-of-{count}")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    constant = int.from_bytes(secret, "little")
    found = []
    for x in range(1, count + 1):
        value = 0
        for coefficient in coefficients:  # Horner's rule; one reduction at the end is cheaper than one a step
            value = (value + coefficient) * x
        found.append(((value + constant) % PRIME).to_bytes(SHARE_BYTES, "little"))
    return found


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret of which these are shares; all that are given are used.

    Args:
        shares: holder number -> share, as many as the threshold.

    Raises:
        Refused: shares that are not of one 32-byte secret, or a share that is no number below p.
    """
    holders = tuple(sorted(shares))
    values = [to_number(shares[holder]) for holder in holders]
    secret = sum(w * v for w, v in zip(weights(holders), values, strict=True)) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise Refused("shares do not fit together: they give no 32-byte secret")
    return secret.to_bytes(SECRET_BYTES, "little")


@lru_cache(maxsize=4096)
def weights(holders: tuple[int, ...], at: int = 0) -> tuple[int, ...]:
    """Lagrange's weights: f(at) = sum of weight_i f(x_i) for every polynomial of degree below `len(holders)`.

    Args:
        holders: the x_i, distinct and not `at`. Groups ask for the same few sets again and again.
        at: where the polynomial is wanted; 0 is the secret.
    """
    found = []
    for x in holders:
        above, below = 1, 1
        for other in holders:
            if other != x:
                above = above * (at - other) % PRIME
                below = below * (x - other) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(found)


def to_number(share: bytes) -> int:
    """A share's number.

    Raises:
        Refused: another length than 33 bytes, or a number of p or more.
    """
    value = int.from_bytes(share, "little")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise Refused("a share is not a number below 2^256 + 297 in 33 bytes")
    return value


def forgers(shares: Mapping[int, bytes], honest: Sequence[int]) -> set[int]:
    """The holders whose share does not lie on the polynomial through those of `honest` (threshold many)."""
    points = tuple(sorted(honest))
    values = [to_number(shares[x]) for x in points]
    found = set()
    for x in set(shares) - set(points):
        expected = sum(w * v for w, v in zip(weights(points, x), values, strict=True)) % PRIME
        if int.from_bytes(shares[x], "little") != expected:
            found.add(x)
    return found
