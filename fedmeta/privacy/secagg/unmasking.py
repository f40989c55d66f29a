"""Taking the masks off a sum: secrets are rebuilt from shares, checked, and their masks subtracted."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmeta.privacy.secagg.context import GroupContext
from fedmeta.privacy.secagg.failures import Aborted, Refused
from fedmeta.privacy.secagg.keys import Exchange, commitment, pairwise_mask_key, public_key, self_mask_key
from fedmeta.privacy.secagg.masks import add_masks
from fedmeta.privacy.secagg.shamir import combine, forgers

TRIES = 200
"""Random sets of shares tried where the first does not give the secret: with a tenth forged, 43 holders and a threshold
of 22, one set in twenty is clean, and all 200 fail once in 30,000."""


@dataclass(frozen=True)
class Masked:
    """A group whose vectors are summed under their masks.

    Args:
        context: what keys are bound to.
        threshold: shares that rebuild a secret.
        mask_keys: public mask key of each node that shared its secrets.
        commitments: commitment of each to its seed.
        holders: who got each node's shares, itself included; holder i (from 0) has share i + 1.
        neighbours: whom each masked with, if it masked.
        survivors: those whose vectors are in the sum.
    """

    context: GroupContext
    threshold: int
    mask_keys: Mapping[int, bytes]
    commitments: Mapping[int, bytes]
    holders: Mapping[int, tuple[int, ...]]
    neighbours: Mapping[int, tuple[int, ...]]
    survivors: frozenset[int]


def unmask(
    total: npt.NDArray[Any], group: Masked, shares: Mapping[int, Mapping[int, bytes]], generator: np.random.Generator
) -> set[int]:
    """Remove all masks from the sum, in place; nothing is changed unless every secret is rebuilt.

    Args:
        total: sum of the survivors' masked vectors.
        group: the group.
        shares: owner -> (share number -> share): of a survivor's seed, of a dropped node's mask key.
        generator: picks sets of shares where some are forged.

    Returns:
        The nodes whose shares were found to be forged.

    Raises:
        Aborted: a secret of which too few shares came, or whose shares do not give it.
    """
    rebuilder = _Rebuilder(group, shares, generator)
    binding = group.context.binding
    add: list[bytes] = []
    subtract: list[bytes] = []
    for node in sorted(group.neighbours):
        near = [peer for peer in group.neighbours[node] if peer in group.survivors]
        if node in group.survivors:
            seed = rebuilder.secret(node, lambda s, n=node: commitment(s, binding, n) == group.commitments[n])  # type: ignore[misc]
            subtract.append(self_mask_key(seed, binding, node))
        elif near:
            private = rebuilder.secret(node, lambda s, n=node: public_key(s) == group.mask_keys[n])  # type: ignore[misc]
            exchange = Exchange(private)
            for peer in near:
                key = pairwise_mask_key(exchange.shared(group.mask_keys[peer]), binding, node, peer)
                (subtract if node > peer else add).append(key)
    add_masks(total, add, subtract)
    return rebuilder.forgers


class _Rebuilder:
    """Rebuilds secrets, and remembers who forged shares, so that theirs are tried last."""

    def __init__(
        self, group: Masked, shares: Mapping[int, Mapping[int, bytes]], generator: np.random.Generator
    ) -> None:
        self._group, self._shares, self._generator = group, shares, generator
        self.forgers: set[int] = set()

    def secret(self, owner: int, is_right: Callable[[bytes], bool]) -> bytes:
        """A node's secret, checked against what it published."""
        shares, threshold = self._shares[owner], self._group.threshold
        if len(shares) < threshold:
            raise Aborted(f"{len(shares)} shares of node {owner}'s secret came, and {threshold} are needed")
        for chosen in self._candidates(owner):
            try:
                secret = combine({holder: shares[holder] for holder in chosen})
            except Refused:
                continue
            if is_right(secret):
                self._note_forgers(owner, chosen)
                return secret
        raise Aborted(f"the {len(shares)} shares of node {owner}'s secret do not give it: too many of them are forged")

    def _candidates(self, owner: int) -> Iterator[tuple[int, ...]]:
        shares, threshold, holders = self._shares[owner], self._group.threshold, self._group.holders[owner]
        ordered = sorted(shares, key=lambda number: (holders[number - 1] in self.forgers, number))
        yield tuple(sorted(ordered[:threshold]))
        if len(ordered) > threshold:
            for _ in range(TRIES):
                yield tuple(sorted(self._generator.choice(ordered, size=threshold, replace=False).tolist()))

    def _note_forgers(self, owner: int, honest: tuple[int, ...]) -> None:
        """After a failure the polynomial is known, and with it who lied; without one nobody need be checked."""
        first = next(self._candidates(owner))
        if honest != first:
            wrong = forgers(self._shares[owner], honest)
            self.forgers |= {self._group.holders[owner][number - 1] for number in wrong}
