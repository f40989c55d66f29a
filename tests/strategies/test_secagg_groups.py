"""Groups of clients and the odds that attackers spoil them: against enumeration, simulation and the worked figures."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.secagg_groups import (
    GroupOdds,
    bad_groups,
    clean_probability,
    group_sizes,
    groups_to_tolerate,
    partition,
)


@given(st.integers(0, 200), st.one_of(st.none(), st.integers(2, 30)), st.integers(0, 9))
def test_a_partition_has_everybody_once_and_no_small_group(n: int, size: int | None, seed: int) -> None:
    items = [f"client {i}" for i in range(n)]
    groups = partition(items, size, np.random.default_rng(seed))
    assert sorted(itertools.chain(*groups)) == sorted(items)
    assert [len(group) for group in groups] == group_sizes(n, size)
    if size is not None and n >= size:
        assert all(size <= len(group) < 2 * size for group in groups) and len(groups) == n // size


def test_every_partition_is_as_likely() -> None:
    """Four clients in two pairs: three partitions, a third of the draws each."""
    rng, seen = np.random.default_rng(0), {}
    for _ in range(3000):
        key = frozenset(frozenset(group) for group in partition("abcd", 2, rng))
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 3 and all(abs(count - 1000) < 4 * math.sqrt(3000 * 2 / 9) for count in seen.values())


@pytest.mark.parametrize(("sizes", "bad"), [((2, 2), 2), ((3, 2), 1), ((3, 3, 2), 3), ((4,), 2), ((2, 2, 2), 0)])
def test_the_law_of_bad_groups_is_that_of_all_placements(sizes: tuple[int, ...], bad: int) -> None:
    group_of = [group for group, size in enumerate(sizes) for _ in range(size)]
    counts = np.zeros(len(sizes) + 1)
    for chosen in itertools.combinations(range(len(group_of)), bad):
        counts[len({group_of[client] for client in chosen})] += 1
    assert np.allclose(bad_groups(bad, sizes), counts / counts.sum(), atol=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 120), st.integers(2, 12), st.floats(0, 1))
def test_the_law_is_one_and_has_the_hypergeometric_mean(n: int, size: int, share: float) -> None:
    bad, sizes = round(share * n), group_sizes(n, size)
    law = bad_groups(bad, sizes)
    mean = sum(1 - clean_probability(n, bad, each) for each in sizes)
    assert math.isclose(law.sum(), 1, rel_tol=1e-12) and (law >= 0).all()
    assert math.isclose(law @ np.arange(len(law)), mean, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize(("size", "half_or_more"), [(4, 0.0), (5, 0.10), (10, 0.99)])
def test_the_worked_figures(size: int, half_or_more: float) -> None:
    """100 clients, 10 of them malicious: the probability that half of the groups or more are bad."""
    law = bad_groups(10, group_sizes(100, size))
    assert round(law[math.ceil((len(law) - 1) / 2) :].sum(), 2) == half_or_more


def test_what_must_be_tolerated_is_the_least_that_the_risk_allows() -> None:
    odds = GroupOdds.of(100, 10, 5, risk=0.01)
    assert odds.groups == 20 and odds.beyond(odds.bad) <= 0.01 < odds.beyond(odds.bad - 1)
    assert GroupOdds.of(100, 0, 5, 0.01).bad == 0 and GroupOdds.of(100, 0, 5, 0.01).clean == 1
    assert GroupOdds.of(5, 50, 5, 0.01).bad == 1, "more attackers than clients are all of them"
    assert groups_to_tolerate(np.array([0.2, 0.8]), 0.0) == 1
