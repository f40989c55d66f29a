"""Whole exchanges: sums are exact whoever drops out when, and below the threshold there is none."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmeta.privacy.secagg import ClientSession, FixedPoint, Plan, ServerSession, choose_plan
from fedmeta.privacy.secagg.failures import Aborted, Refused
from fedmeta.privacy.secagg.messages import (
    KeysReply,
    MaskedInput,
    PublicKeys,
    SharesReply,
    Stage,
    UnmaskReply,
)

STAGES = (Stage.KEYS, Stage.SHARES, Stage.MASK, Stage.UNMASK)


@pytest.mark.parametrize(("n", "bits"), [(3, 32), (3, 64), (10, 32), (10, 64), (50, 32), (100, 64)])
def test_sums_are_exact_without_dropouts(make_group, n, bits):
    group = make_group(n, bits=bits).run()
    group.check_sum()
    assert group.server.result.survivors == group.context.members


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("n", "share"), [(3, 0.3), (10, 0.1), (10, 0.3), (50, 0.3)])
def test_sums_are_exact_with_dropouts_at_a_stage(make_group, n, share, stage):
    gone = max(1, round(share * n))
    group = make_group(n, drops={stage: gone}).run()
    group.check_sum()
    lost = 0 if stage is Stage.UNMASK else gone
    assert len(group.server.result.survivors) == n - lost
    assert list(group.server.result.dropped.values()) == [stage] * lost


@pytest.mark.parametrize(
    ("n", "share"), [(10, 0.1), (50, 0.1), (100, 0.1), pytest.param(100, 0.3, marks=pytest.mark.slow)]
)
def test_sums_are_exact_with_dropouts_at_every_stage(make_group, n, share):
    """In a sparse graph the plan must know of the dropouts: four stages of them."""
    plan = choose_plan(n, 0.0 if share > 0.1 else 0.05, 0.4) if n > 50 else None
    drops = {stage: round(share * n / (3 if share > 0.1 else 1)) for stage in STAGES}
    group = make_group(n, drops=drops, plan=plan).run()
    group.check_sum()
    assert len(group.server.result.survivors) == n - 3 * drops[Stage.KEYS]


def test_500_nodes_with_dropouts_at_every_stage(make_group):
    drops = dict.fromkeys(STAGES, 10)
    group = make_group(500, length=3, drops=drops, plan=Plan(500, 16, 9)).run()
    group.check_sum()
    assert len(group.server.result.survivors) == 470


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("n", [50, 100, 500])
def test_sums_of_many_with_dropouts_at_a_stage(make_group, n, share, stage):
    plan = choose_plan(n, 0.05, max(share, 0.05))
    make_group(n, drops={stage: round(share * n)}, plan=plan).run().check_sum()


@pytest.mark.slow
def test_500_nodes_of_whom_a_tenth_drops_at_each_stage(make_group):
    group = make_group(500, length=3, drops=dict.fromkeys(STAGES, 50), plan=choose_plan(500, 0.0, 0.45)).run()
    group.check_sum()
    assert len(group.server.result.survivors) == 350


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    n=st.integers(3, 14),
    counts=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    active=st.booleans(),
    degree=st.sampled_from([None, 4, 6]),
    seed=st.integers(0, 2**20),
)
def test_any_schedule_gives_the_exact_sum_or_none(make_group, n, counts, active, degree, seed):
    """Exactly when too few are left in a complete graph, and never anything between."""
    plan = choose_plan(n, 0.0, 0.0, active)
    if degree is not None and degree < n - 1:
        plan = Plan(n, degree, degree // 2 + 1)
    drops = dict(zip(STAGES, counts, strict=True))
    group = make_group(n, length=3, drops=drops, plan=plan, seed=seed)
    try:
        group.run()
    except Aborted:
        with pytest.raises(Aborted):
            _ = group.server.result
        assert group.server.requests() == {}
        assert plan.degree < n - 1 or n - sum(counts) < plan.threshold
    else:
        group.check_sum()
        assert plan.degree < n - 1 or n - sum(counts) >= plan.threshold


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_there_is_no_sum(make_group, stage):
    """Of 10 with threshold 5, six drop."""
    group = make_group(10, drops={stage: 6})
    with pytest.raises(Aborted, match=r"threshold|needed") as told:
        group.run()
    assert "4" in str(told.value)
    assert stage is not Stage.MASK or "4 sent a masked vector" in str(told.value), "nobody is asked to unmask it"
    with pytest.raises(Aborted):
        _ = group.server.result
    assert group.server.stage is Stage.ENDED
    assert not any(isinstance(value, np.ndarray) and value.size for value in vars(group.server).values())


@pytest.mark.parametrize("stage", STAGES)
def test_when_nobody_replies_there_is_no_sum(make_group, stage):
    """Not even the sum of none; and an ended session goes no further."""
    group = make_group(4, drops={stage: 4})
    with pytest.raises(Aborted):
        group.run()
    with pytest.raises(Aborted):
        _ = group.server.result
    with pytest.raises(Aborted, match="has ended"):
        group.server.advance()


def test_float_vectors_come_back_as_their_sum(make_group):
    """Through the fixed point, 10 clients of whom 2 drop: the survivors' sum within rounding."""
    coder = FixedPoint(bits=32, bound=1.0, max_count=10)
    group = make_group(10, length=500, drops={Stage.MASK: 2})
    draw = np.random.default_rng(1)
    floats = {node: 0.3 * draw.standard_normal(500).clip(-3, 3) for node in group.context.members}
    group.vectors = {node: coder.encode(vector, draw) for node, vector in floats.items()}
    result = group.run().server.result
    exact = np.sum([floats[node] for node in result.survivors], axis=0)
    found = coder.decode(result.total, len(result.survivors))
    assert np.linalg.norm(found - exact) < 1e-7 * np.linalg.norm(exact)


def test_masked_vectors_look_uniform_and_independent(make_group):
    """All clients send zeros. Bytes by chi-squared (255 degrees of freedom), and no correlation between two clients."""
    group = make_group(5, length=40_000)
    zeros = np.zeros(40_000, dtype=np.uint32)
    group.vectors = dict.fromkeys(group.context.members, zeros)
    sent: dict[int, np.ndarray] = {}

    def keep(node, stage, reply):
        if isinstance(reply, MaskedInput):
            sent[node] = reply.vector
        return reply

    group.tamper = keep
    assert not group.run().server.result.total.any()
    for vector in sent.values():
        counts = np.bincount(vector.view(np.uint8), minlength=256)
        expected = vector.nbytes / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(2 * 255)
    signals = [vector.view(np.int32) / 2.0**31 for vector in sent.values()]
    correlations = np.corrcoef(signals)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 6 / np.sqrt(40_000)
    assert (sum(sent.values()) != 0).any(), "the sum itself is still masked by the seeds"


def test_no_secret_is_left_in_a_clients_state(make_group, monkeypatch):
    """Every secret that any client ever drew or held, searched for in what each has written down at the end."""
    group = make_group(6, drops={Stage.MASK: 1})
    secrets: set[bytes] = set()
    while group.server.stage is not Stage.ENDED:
        group.exchange()
        group.server.advance()
        for state in group.states.values():
            session = ClientSession.from_bytes(state)
            halves = [session.private_keys[:32], session.private_keys[32:], session.seed]
            for table, at in ((session.peer_keys, 32), (session.shares, 33)):
                halves += [part for value in table.values() for part in (value[:at], value[at:])]
            secrets.update(half for half in halves if half)
    assert len(secrets) > 6 * 3
    asked = set(group.server.result.survivors)
    for node in asked:
        session = ClientSession.from_bytes(group.states[node])
        assert session.stage is Stage.ENDED and session.released
        assert not any(secret in group.states[node] for secret in secrets)


def test_each_step_drops_what_it_no_longer_needs(make_group):
    group = make_group(4)
    node = group.context.members[0]
    group.run(until=Stage.MASK)
    after_shares = ClientSession.from_bytes(group.states[node])
    assert after_shares.private_keys == b"" and after_shares.seed and set(after_shares.shares) == {node}
    group.run(until=Stage.UNMASK)
    after_mask = ClientSession.from_bytes(group.states[node])
    assert after_mask.seed == b"" and after_mask.peer_keys == {} and len(after_mask.shares) == 4
    assert ClientSession.from_bytes(after_mask.to_bytes()) == after_mask


def test_forged_shares_are_outvoted_and_their_sender_named(make_group):
    """Two of ten return other shares than they got; threshold five."""
    forgers = {}

    def forge(node, stage, reply):
        if isinstance(reply, UnmaskReply) and node in forgers:
            changed = tuple((int.from_bytes(s, "little") ^ 1).to_bytes(33, "little") for s in reply.shares)
            return UnmaskReply(reply.tag, changed)
        return reply

    group = make_group(10, drops={Stage.MASK: 1}, tamper=forge).run(until=Stage.UNMASK)
    forgers.update(dict.fromkeys(sorted(group.server.requests())[:2]))
    group.run().check_sum()
    assert group.server.result.forgers == tuple(sorted(forgers))


def test_when_too_many_shares_are_forged_there_is_no_sum(make_group):
    def forge(node, stage, reply):
        if isinstance(reply, UnmaskReply):
            return UnmaskReply(reply.tag, (bytes(33),) * len(reply.shares))
        return reply

    group = make_group(6, tamper=forge)
    with pytest.raises(Aborted, match="forged"):
        group.run()


def test_a_client_that_committed_to_another_seed_brings_no_wrong_sum(make_group):
    victim = make_group(5).context.members[2]

    def lie(node, stage, reply):
        if isinstance(reply, SharesReply) and node == victim:
            return SharesReply(reply.tag, bytes(32), reply.sealed)
        return reply

    with pytest.raises(Aborted, match=f"node {victim}"):
        make_group(5, tamper=lie).run()


def replies_that_do_not_belong(group):
    """(stage, what is sent instead of a good reply, what the server says)."""
    tag, other = group.context.tag, bytes(16)
    keys = PublicKeys(b"\x09" + bytes(31), b"\x10" + bytes(31))
    return [
        (Stage.KEYS, KeysReply(other, keys), "another run, round or group"),
        (Stage.KEYS, KeysReply(tag, PublicKeys(bytes(32), keys.seal)), "small order"),
        (Stage.KEYS, KeysReply(tag, PublicKeys(keys.mask, keys.mask)), "already"),
        (Stage.SHARES, KeysReply(tag, keys), "KeysReply in stage SHARES"),
        (Stage.SHARES, SharesReply(tag, bytes(32), (bytes(82),)), "1 pairs of shares for"),
        (Stage.MASK, MaskedInput(tag, np.zeros(3, dtype=np.uint32)), "the group sums uint32"),
        (Stage.MASK, MaskedInput(tag, np.zeros(8, dtype=np.uint64)), "the group sums uint32"),
        (Stage.UNMASK, UnmaskReply(tag, (bytes(33),)), "1 shares of"),
    ]


@pytest.mark.parametrize("case", range(8))
def test_a_bad_reply_costs_its_sender_and_nobody_else(make_group, case):
    group = make_group(6)
    stage, bad, told = replies_that_do_not_belong(group)[case]
    victim = group.context.members[1]
    group.tamper = lambda node, at, reply: bad if (node, at) == (victim, stage) else reply
    group.run().check_sum()
    assert told in group.server.refused[victim]
    assert (victim in group.server.result.survivors) == (stage is Stage.UNMASK)
    assert group.server.dropped[victim] is stage


def test_who_was_not_asked_or_replied_already_is_refused(make_group):
    group = make_group(4)
    node = group.context.members[0]
    reply = group.answer(node, group.server.requests()[node])
    group.server.receive(node, reply)
    with pytest.raises(Refused, match="second reply"):
        group.server.receive(node, reply)
    with pytest.raises(Refused, match="not asked"):
        group.server.receive(2**63 + 1, reply)
    assert node not in group.server.refused, "the first reply counts"


def test_a_plan_for_another_group_is_refused(make_group):
    from fedmeta.errors import ConfigurationError

    context = make_group(5).context
    with pytest.raises(ConfigurationError, match="a plan for 6 nodes"):
        ServerSession(context, choose_plan(6), bits=32, length=1, generator=np.random.default_rng(0))
