"""Who exchanges masks with whom: a randomly permuted k-regular ring, complete where k = n - 1."""

from collections.abc import Mapping, Sequence

import numpy as np


def ring(nodes: Sequence[int], degree: int, generator: np.random.Generator) -> dict[int, tuple[int, ...]]:
    """Each node's neighbours, ascending; the relation is symmetric.

    Nodes are put on a circle in random order, and each is joined to the degree / 2 nodes on either side.

    Args:
        nodes: distinct identifiers.
        degree: neighbours of a node, even; `len(nodes) - 1` or more gives the complete graph.
        generator: draws the permutation. The corrupt must not know it beforehand.

    >>> ring([3, 5, 9, 11, 20], 2, np.random.default_rng(0))
    {3: (5, 11), 5: (3, 9), 9: (5, 20), 11: (3, 20), 20: (9, 11)}
    """
    ordered = sorted(nodes)
    n = len(ordered)
    if degree >= n - 1:
        return {node: tuple(other for other in ordered if other != node) for node in ordered}
    places = generator.permutation(n)
    around = {int(places[i]): [int(places[(i + step) % n]) for step in _steps(degree)] for i in range(n)}
    return {node: tuple(sorted(ordered[i] for i in around[place])) for place, node in enumerate(ordered)}


def core(neighbours: Mapping[int, tuple[int, ...]], present: set[int], least: int) -> set[int]:
    """The largest part of `present` in which every node and its neighbours there are at least `least`.

    A node with fewer would refuse to go on, and its secrets could not be rebuilt; leaving it out may take the next one
    below, so this repeats until nothing changes.
    """
    kept = set(present)
    while True:
        poor = {node for node in kept if 1 + sum(peer in kept for peer in neighbours[node]) < least}
        if not poor:
            return kept
        kept -= poor


def within(neighbours: Mapping[int, tuple[int, ...]], alive: set[int]) -> dict[int, tuple[int, ...]]:
    """The graph between those who are still there."""
    return {node: tuple(peer for peer in neighbours[node] if peer in alive) for node in sorted(alive)}


def _steps(degree: int) -> list[int]:
    half = degree // 2
    return [step for step in range(-half, half + 1) if step]
