"""Degree and threshold against the specification's table, and the graph's properties."""

import itertools
import math

import numpy as np
import pytest

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.secagg.graph import core, ring
from fedmeta.privacy.secagg.plan import Plan, choose_plan, least_threshold
from fedmeta.privacy.secagg.split_views import can_bare

# members, corrupt = dropout, active -> degree, threshold
TABLE = [
    *((20, 0.05, False, 19, 10), (20, 0.1, False, 19, 10)),
    *((100, 0.05, False, 30, 16), (100, 0.1, False, 42, 22), (100, 0.05, True, 30, 19), (100, 0.1, True, 42, 27)),
    *((1000, 0.05, False, 32, 18), (1000, 0.1, False, 50, 27), (1000, 0.05, True, 60, 42), (1000, 0.1, True, 112, 77)),
    *((10000, 0.05, False, 36, 20), (10000, 0.1, False, 60, 32)),
    *((10000, 0.05, True, 72, 50), (10000, 0.1, True, 140, 96)),
]


@pytest.mark.parametrize("row", TABLE)
def test_the_specifications_table(row):
    count, fraction, active, degree, threshold = row
    assert choose_plan(count, fraction, fraction, active) == Plan(count, degree, threshold)


@pytest.mark.parametrize(("fraction", "specified", "threshold"), [(0.05, 11, 13), (0.1, 12, 14)])
def test_a_complete_group_is_held_to_more_than_the_table_under_an_active_server(fraction, specified, threshold):
    """The specification's thresholds stop both shares of one node, and not different stories to different members."""
    assert choose_plan(20, fraction, fraction, True) == Plan(20, 19, threshold)
    bad = round(20 * fraction)
    assert can_bare(20, specified, bad) and can_bare(20, threshold - 1, bad) and not can_bare(20, threshold, bad)


def stories(count, threshold, bad, vectors, others):
    """The most key shares that the server gets, as a flow: source -> member -> node -> sink; each pair once."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    honest, each = count - bad, threshold - bad
    source, sink = 2 * honest, 2 * honest + 1
    capacity = np.zeros((2 * honest + 2, 2 * honest + 2), dtype=np.int32)
    for member in range(honest):  # first those to be bared, then those whose keys are wanted, then the rest
        held = others + vectors + bad if member < vectors else count
        capacity[source, member] = max(0, held - threshold)
        for node in range(vectors, vectors + others):
            capacity[member, honest + node] = member != node
    capacity[honest + vectors : honest + vectors + others, sink] = each
    return maximum_flow(csr_array(capacity), source, sink).flow_value


@pytest.mark.parametrize("count", [4, 5, 7, 10])
def test_what_different_stories_can_bare_is_what_a_flow_finds(count):
    """Wherever a server has a way, `can_bare` says so; and it is not more careful than need be."""
    for threshold, bad, vectors in itertools.product(range(count // 2 + 1, count + 1), range(3), (1, 2)):
        each = threshold - bad
        choices = range(max(0, each - vectors), count - bad - vectors + 1)
        way = any(stories(count, threshold, bad, vectors, others) == others * each for others in choices)
        assert can_bare(count, threshold, bad, vectors) == way, (threshold, bad, vectors)


def test_the_hypergeometric_tail_against_drawing():
    """Degree 10 of 30, 6 corrupt: the chance that a node has at least 5 corrupt neighbours, drawn a million times."""
    from fedmeta.privacy.secagg.plan import _at_least

    draws = np.random.default_rng(0).hypergeometric(6, 23, 10, size=1_000_000)
    assert abs((draws >= 5).mean() - _at_least(5, 29, 6, 10)) < 5e-4
    assert _at_least(0, 29, 6, 10) == 1 and _at_least(7, 29, 6, 10) == 0
    assert math.isclose(_at_least(6, 29, 6, 10), math.comb(10, 6) / math.comb(29, 6))


@pytest.mark.parametrize("count", [3, 4, 10, 50])
def test_small_groups_are_complete_and_no_threshold_is_below_two(count):
    plan = choose_plan(count, 0.0, 0.0)
    assert plan.degree == count - 1 and plan.threshold == max(2, math.ceil(count / 2))


def test_an_active_server_can_never_collect_both_kinds_of_shares():
    """All sets of holders of a complete group: honest ones give one kind, corrupt ones both."""
    for count, bad in itertools.product(range(4, 13), range(3)):
        threshold = least_threshold(count, count - 1, bad / count, True)
        if threshold > count:
            continue
        honest = count - bad
        reachable = any(a + bad >= threshold and honest - a + bad >= threshold for a in range(honest + 1))
        assert not reachable, f"{count} members, {bad} corrupt, threshold {threshold}"


def test_groups_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="at least 3 members"):
        choose_plan(2)
    with pytest.raises(ConfigurationError, match=r"cannot bear 0\.4 corrupt and 0\.3 dropped members under an active"):
        choose_plan(30, 0.4, 0.3, True)
    with pytest.raises(ConfigurationError, match="add up to less than 1"):
        choose_plan(30, 0.6, 0.4)
    for degree, threshold in ((7, 3), (0, 2), (99, 1), (99, 101)):
        with pytest.raises(ConfigurationError, match=r"degree|threshold"):
            Plan(100, degree, threshold)


@pytest.mark.parametrize(("n", "degree"), [(3, 2), (9, 4), (60, 20), (61, 60), (7, 90)])
def test_the_ring_is_regular_symmetric_and_connected(n, degree):
    nodes = [5 * i + 2 for i in range(n)]
    around = ring(nodes, degree, np.random.default_rng(n))
    assert set(around) == set(nodes)
    for node, peers in around.items():
        assert len(peers) == min(degree, n - 1) and list(peers) == sorted(set(peers)) and node not in peers
        assert all(node in around[peer] for peer in peers)
    assert core(around, set(nodes), 1) == set(nodes)
    reached, frontier = {nodes[0]}, [nodes[0]]
    while frontier:
        frontier = [peer for node in frontier for peer in around[node] if peer not in reached and not reached.add(peer)]
    assert reached == set(nodes)


def test_every_pair_is_joined_equally_often():
    """Degree 4 of 12: each of the 66 pairs with probability 4/11, over 3000 graphs."""
    generator = np.random.default_rng(0)
    joined = np.zeros((12, 12))
    for _ in range(3000):
        for node, peers in ring(range(12), 4, generator).items():
            joined[node, list(peers)] += 1
    pairs = joined[np.triu_indices(12, 1)] / 3000
    assert np.abs(pairs - 4 / 11).max() < 5 * np.sqrt(4 / 11 * 7 / 11 / 3000)


def test_the_core_leaves_out_who_has_too_few_neighbours_and_then_who_relied_on_them():
    path = {1: (2,), 2: (1, 3), 3: (2, 4), 4: (3, 5, 6), 5: (4, 6), 6: (4, 5)}
    assert core(path, set(path), 3) == {4, 5, 6}, "1 goes first, then 2, then 3"
    assert core(path, set(path) - {6}, 3) == set()
    assert core(path, set(path), 1) == set(path)
