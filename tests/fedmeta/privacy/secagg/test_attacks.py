"""What a lying server or member may try with a client: each is refused, and the client then answers nothing more."""

from dataclasses import replace

import numpy as np
import pytest

from fedmeta.privacy.secagg import ClientSession, GroupContext, Plan, Policy, choose_plan
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.keys import (
    Exchange,
    new_private_key,
    pairwise_mask_key,
    public_key,
    sealing_key,
    self_mask_key,
)
from fedmeta.privacy.secagg.masks import add_masks
from fedmeta.privacy.secagg.messages import (
    KeysRequest,
    MaskRequest,
    PublicKeys,
    SharesRequest,
    Stage,
    UnmaskRequest,
)
from fedmeta.privacy.secagg.plan import least_threshold
from fedmeta.privacy.secagg.sealing import seal
from fedmeta.privacy.secagg.shamir import combine


@pytest.fixture
def at(make_group):
    """`at(stage, n=5)`: a group before a stage, its first client's session there, and the honest request for it."""

    def bring(stage, n=5, **settings):
        group = make_group(n, **settings).run(until=stage)
        node = group.context.members[0]
        return group, ClientSession.from_bytes(group.states[node]), group.server.requests()[node]

    return bring


def vector_of(session):
    return np.ones(session.length, dtype=np.uint32)


def check_refused(session, step, told):
    """The step is refused, whatever comes next as well, and nothing secret is left."""
    with pytest.raises(Refused, match=told):
        step(session)
    assert session.stage is Stage.ENDED and not session.released
    assert (session.private_keys, session.seed, session.peer_keys, session.shares) == (b"", b"", {}, {})
    for again in (
        lambda: session.share(SharesRequest(session.context.tag, {})),
        lambda: session.mask(MaskRequest(session.context.tag, {}), vector_of(session)),
        lambda: session.unmask(UnmaskRequest(session.context.tag, (session.node,), ())),
    ):
        with pytest.raises(Refused, match="once only"):
            again()


def test_both_shares_of_one_node(at):
    _, session, request = at(Stage.UNMASK)
    both = replace(request, dropped=request.survivors[-1:])
    check_refused(session, lambda s: s.unmask(both), "both shares of node")


def test_a_second_unmasking(at):
    """The same request, or the rest of the shares: an answered session has none left, also when it is read back."""
    _, session, request = at(Stage.UNMASK)
    assert len(session.unmask(request).shares) == 5
    other = replace(request, survivors=request.survivors[:3], dropped=request.survivors[3:])
    for again in (session, ClientSession.from_bytes(session.to_bytes())):
        for asked in (request, other):
            with pytest.raises(Refused, match="once only"):
                again.unmask(asked)


def test_a_second_run_of_a_round_that_was_unmasked(at):
    """Summed again without one member, the difference would be that member's vector."""
    group, session, request = at(Stage.UNMASK)
    session.unmask(request)
    done, plan = session.to_bytes(), choose_plan(4)
    for round, welcome in ((3, False), (2, False), (4, True)):
        context = GroupContext("run", round, 2, group.context.members[:4])
        invitation = KeysRequest(context, plan.degree, plan.threshold, 32, 8)
        if welcome:
            assert ClientSession.begin(session.node, invitation, previous=done)[0].stage is Stage.SHARES
        else:
            with pytest.raises(Refused, match="has unmasked round 3"):
                ClientSession.begin(session.node, invitation, previous=done)
    elsewhere = KeysRequest(GroupContext("other run", 1, 0, group.context.members[:4]), 3, 2, 32, 8)
    assert ClientSession.begin(session.node, elsewhere, previous=done)


def test_a_round_that_was_aborted_may_be_tried_again(at):
    group, session, _ = at(Stage.UNMASK)
    session.forget()
    invitation = KeysRequest(replace(group.context, group=7), 4, 3, 32, 8)
    assert ClientSession.begin(session.node, invitation, previous=session.to_bytes())


@pytest.mark.parametrize("stage", [Stage.SHARES, Stage.MASK, Stage.UNMASK])
@pytest.mark.parametrize("change", [{"round": 2}, {"group": 0}, {"run": "another"}, {"members": (1, 2, 3)}])
def test_a_replay_from_another_round_group_run_or_membership(at, stage, change):
    group, session, request = at(stage)
    foreign = replace(request, tag=replace(group.context, **change).tag)
    steps = {
        Stage.SHARES: lambda s: s.share(foreign),
        Stage.MASK: lambda s: s.mask(foreign, vector_of(s)),
        Stage.UNMASK: lambda s: s.unmask(foreign),
    }
    check_refused(session, steps[stage], "another run, round or group")


def test_sealed_shares_of_another_round_under_this_rounds_tag(at):
    """Even with the same keys: the sealing key holds in one context only."""
    group, session, request = at(Stage.MASK)
    sender = next(iter(request.sealed))
    mine, theirs = new_private_key(), new_private_key()
    secret = Exchange(theirs).shared(public_key(mine))
    old = replace(group.context, round=2)
    here = sealing_key(secret, group.context.binding, sender, session.node)
    there = sealing_key(secret, old.binding, sender, session.node)
    session.peer_keys[sender] = here + session.peer_keys[sender][32:]
    replayed = replace(request, sealed={**request.sealed, sender: seal(there, sender, session.node, bytes(66))})
    check_refused(session, lambda s: s.mask(replayed, vector_of(s)), "in this round and group")


def test_an_altered_ciphertext(at):
    _, session, request = at(Stage.MASK)
    state = session.to_bytes()
    sender = max(request.sealed)
    for at_byte in (0, 40, 81):
        altered = bytearray(request.sealed[sender])
        altered[at_byte] ^= 1
        bad = replace(request, sealed={**request.sealed, sender: bytes(altered)})
        check_refused(ClientSession.from_bytes(state), lambda s, bad=bad: s.mask(bad, vector_of(s)), "or was altered")


def test_a_wrong_sender(at):
    """Two neighbours' shares exchanged, and one's shares handed over as from somebody who is no neighbour."""
    _, session, request = at(Stage.MASK)
    state = session.to_bytes()
    first, second, *_ = sorted(request.sealed)
    exchanged = {**request.sealed, first: request.sealed[second], second: request.sealed[first]}
    check_refused(session, lambda s: s.mask(replace(request, sealed=exchanged), vector_of(s)), "was not sealed by it")
    stranger = {**request.sealed, 77: request.sealed[first]}
    check_refused(
        ClientSession.from_bytes(state),
        lambda s: s.mask(replace(request, sealed=stranger), vector_of(s)),
        "node 77, which is no neighbour",
    )


def test_ones_own_sealed_shares_sent_back(at):
    """Reflection: what this node sealed for a neighbour does not open as coming from that neighbour."""
    _, session, request = at(Stage.MASK)
    peer = next(iter(request.sealed))
    key = session.peer_keys[peer][:32]
    reflected = {**request.sealed, peer: seal(key, session.node, peer, bytes(66))}
    check_refused(session, lambda s: s.mask(replace(request, sealed=reflected), vector_of(s)), "was not sealed by it")


def test_a_forged_share(at):
    """Sealed by its sender, but a number that no polynomial modulo p has."""
    _, session, request = at(Stage.MASK)
    sender = next(iter(request.sealed))
    for forged in (b"\xff" * 33 + bytes(33), bytes(33) + b"\xff" * 33, bytes(65)):
        victim = ClientSession.from_bytes(session.to_bytes())
        sealed = seal(victim.peer_keys[sender][:32], sender, victim.node, forged)
        bad = replace(request, sealed={**request.sealed, sender: sealed})
        check_refused(victim, lambda s, bad=bad: s.mask(bad, vector_of(s)), "not a number below")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda mine, others: ((mine, *others[:1]), others[1:]), "2 survivors among the neighbours"),
        (lambda mine, others: (others, ()), "not among the survivors"),
        (lambda mine, others: (others, (mine,)), "not among the survivors"),
        (lambda mine, others: ((mine, *others, 77), ()), "node 77 did not exchange masks"),
        (lambda mine, others: ((mine, *others), (77,)), "node 77 did not exchange masks"),
        (lambda mine, others: ((mine, mine, *others), ()), "names one twice"),
    ],
)
def test_lists_that_no_honest_server_sends(at, change, told):
    """Group of 5, threshold 3."""
    group, session, request = at(Stage.UNMASK)
    survivors, dropped = change(session.node, tuple(p for p in request.survivors if p != session.node))
    check_refused(session, lambda s: s.unmask(UnmaskRequest(group.context.tag, survivors, dropped)), told)


def test_too_few_shares_before_the_vector_is_masked(at):
    """With one neighbour of a threshold of three, two more could never be asked for a share."""
    _, session, request = at(Stage.MASK)
    few = replace(request, sealed=dict(list(request.sealed.items())[:1]))
    check_refused(session, lambda s: s.mask(few, vector_of(s)), "shares of 1 neighbours")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda peers, mine: dict(list(peers.items())[:1]), "1 neighbours"),
        (lambda peers, mine: {**peers, 77: PublicKeys(b"x" * 32, b"y" * 32)}, "77 cannot be a neighbour"),
        (lambda peers, mine: {**peers, mine: PublicKeys(b"x" * 32, b"y" * 32)}, "cannot be a neighbour"),
        (lambda peers, mine: dict.fromkeys(peers, next(iter(peers.values()))), "the same"),
        (lambda peers, mine: {**peers, min(peers): PublicKeys(bytes(32), b"y" * 32)}, "small order"),
    ],
)
def test_neighbours_that_cannot_be(at, change, told):
    _, session, request = at(Stage.SHARES)
    bad = replace(request, peers=change(dict(request.peers), session.node))
    check_refused(session, lambda s: s.share(bad), told)


def test_ones_own_keys_as_a_neighbours(at):
    _, session, request = at(Stage.SHARES)
    mine = PublicKeys(public_key(session.private_keys[:32]), b"y" * 32)
    bad = replace(request, peers={**request.peers, min(request.peers): mine})
    check_refused(session, lambda s: s.share(bad), "the same")


def test_a_stage_out_of_order(at):
    _, session, _ = at(Stage.SHARES)
    empty = UnmaskRequest(session.context.tag, (session.node,), ())
    check_refused(session, lambda s: s.unmask(empty), "stage UNMASK came to node .* at stage SHARES")
    _, session, _ = at(Stage.UNMASK)
    again = MaskRequest(session.context.tag, {})
    check_refused(session, lambda s: s.mask(again, vector_of(s)), "stage MASK came")


def test_a_vector_of_another_kind_ends_the_session_without_a_reply(at):
    _, session, request = at(Stage.MASK)
    with pytest.raises(ValueError, match="uint32"):
        session.mask(request, np.ones(8))
    assert session.stage is Stage.ENDED and not session.shares


MEMBERS = tuple(range(1, 21))


@pytest.mark.parametrize(
    ("degree", "threshold", "policy", "told"),
    [
        (19, 9, Policy(), "threshold of 9 of 20 shares, where this node asks for at least 10"),
        (19, 1, Policy(), "threshold 1"),
        (19, 21, Policy(), "threshold 21"),
        (7, 4, Policy(), "degree 7"),
        (4, 3, Policy(corrupt=0.1), "4 neighbours of 20"),
        (18, 18, Policy(active=True), "at least 19 against 0 corrupt ones and an active server"),
        (19, 11, Policy(corrupt=0.1, active=True), "at least 14 against 0.1 corrupt members and an active server"),
        (19, 10, Policy(active=True), "at least 13"),
        (19, 10, Policy(smallest_group=21), "a group of 20"),
    ],
)
def test_a_group_below_the_nodes_own_policy(degree, threshold, policy, told):
    invitation = KeysRequest(GroupContext("run", 1, 0, MEMBERS), degree, threshold, 32, 8)
    with pytest.raises(Refused, match=told):
        ClientSession.begin(1, invitation, policy)


def test_invitations_that_no_honest_server_sends():
    honest = KeysRequest(GroupContext("run", 1, 0, MEMBERS), 19, 10, 32, 8)
    assert ClientSession.begin(1, honest, Policy(corrupt=0.1))
    with pytest.raises(Refused, match="not a member"):
        ClientSession.begin(99, honest)
    for change, told in (
        ({"bits": 8}, "8 bits"),
        ({"length": 0}, "0 words"),
        ({"context": replace(honest.context, members=(1, 2)), "degree": 1, "threshold": 2}, "a group of 2"),
    ):
        with pytest.raises(Refused, match=told):
            ClientSession.begin(1, replace(honest, **change))


@pytest.mark.parametrize("active", [False, True])
def test_a_server_that_tells_half_the_members_a_victim_dropped(make_group, active):
    """The attack that the active thresholds are for, carried out. Ten members, all honest: half are asked for the
    victim's seed, half for its mask key; each request is allowed. At threshold 5 the vector is bare, at 7 not."""
    sent = {}

    def keep(node, stage, reply):
        if stage is Stage.MASK:
            sent[node] = reply.vector
        return reply

    group = make_group(10, plan=choose_plan(10, 0.0, 0.0, active), tamper=keep).run(until=Stage.UNMASK)
    members, binding = group.context.members, group.context.binding
    victim, seeds, keys = members[4], {}, {}
    for number, node in enumerate(members, start=1):
        session = ClientSession.from_bytes(group.states[node])
        if number <= 5:
            reply = session.unmask(UnmaskRequest(group.context.tag, members, ()))
            seeds[number] = reply.shares[members.index(victim)]
        else:
            others = tuple(member for member in members if member != victim)
            keys[number] = session.unmask(UnmaskRequest(group.context.tag, others, (victim,))).shares[-1]
    assert group.server.plan.threshold == (7 if active else 5)
    seed, exchange = combine(seeds), Exchange(combine(keys))  # with five shares of seven: of no use
    public = {node: group.server._keys[node].mask for node in members}
    pairs = {n: pairwise_mask_key(exchange.shared(public[n]), binding, victim, n) for n in members if n != victim}
    bare = sent[victim].copy()
    add_masks(bare, [k for n, k in pairs.items() if n < victim], [k for n, k in pairs.items() if n > victim])
    add_masks(bare, [], [self_mask_key(seed, binding, victim)])
    assert np.array_equal(bare, group.vectors[victim]) is not active


@pytest.mark.parametrize("threshold", [6, 7])
def test_a_server_that_tells_each_member_another_story(make_group, threshold):
    """Ten honest members. The victim gets the shares of threshold - 1 others, masks with these, and then the mask keys
    of just these are asked for: no one is asked for both shares of a node. At 6, which stops the attack above, this
    bares the vector; at 7, the plan's, not all keys can be collected."""
    from fedmeta.privacy.secagg.messages import MaskedInput

    plan = Plan(10, 9, threshold)
    group = make_group(10, plan=plan).run(until=Stage.MASK)
    members, context = group.context.members, group.context
    victim, around, others = members[0], members[1:threshold], members[threshold:]
    public = {node: group.server._keys[node].mask for node in members}
    sessions, sent = {}, {}
    for node, request in group.server.requests().items():
        sealed = {peer: box for peer, box in request.sealed.items() if node != victim or peer in around}
        sessions[node] = ClientSession.from_bytes(group.states[node])
        sent[node] = sessions[node].mask(MaskRequest(context.tag, sealed), group.vectors[node])
        assert isinstance(sent[node], MaskedInput)
    # Every member names as survivors the victim, itself, and as many more as it must; all else in `around` it calls
    # dropped. Those it must name beyond `others` are spread, so that every key loses the same number of shares.
    seeds, keys = {}, {node: {} for node in around}
    for number, node in enumerate(members, start=1):
        held = around if node == victim else members[1:]
        named = {victim, node} | (set(others) & set(held))
        spare = [around[(number + i) % len(around)] for i in range(len(around))]
        for more in spare:
            if len(named) < threshold:
                named.add(more)
        dropped = tuple(sorted(set(held) & set(around) - named))
        reply = sessions[node].unmask(UnmaskRequest(context.tag, tuple(sorted(named)), dropped))
        seeds[number] = reply.shares[sorted(named).index(victim)]
        for peer, share in zip(dropped, reply.shares[len(named) :], strict=True):
            keys[peer][number] = share
    enough = all(len(shares) >= threshold for shares in keys.values())
    assert enough is (threshold == 6)
    if not enough:
        assert least_threshold(10, 9, 0.0, active=True) == threshold
        return
    masks = {}
    for peer, shares in keys.items():
        exchange = Exchange(combine(dict(list(shares.items())[:threshold])))
        masks[peer] = pairwise_mask_key(exchange.shared(public[victim]), context.binding, victim, peer)
    own = self_mask_key(combine(dict(list(seeds.items())[:threshold])), context.binding, victim)
    bare = sent[victim].vector.copy()
    above, below = ([key for peer, key in masks.items() if (peer > victim) is up] for up in (True, False))
    add_masks(bare, below, [own, *above])
    np.testing.assert_array_equal(bare, group.vectors[victim])


def test_a_state_that_is_none_is_refused(at):
    _, session, _ = at(Stage.UNMASK)
    state = session.to_bytes()
    for bad in (b"", b"\x07" + state[1:], state[:-1], state + b"\0", state[:9] + b"\x09" + state[10:]):
        with pytest.raises(Refused):
            ClientSession.from_bytes(bad)
