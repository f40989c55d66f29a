"""Keys signed by identities: Ed25519 and ECDSA P-384, and what a signature does not allow."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.secagg import ClientSession, GroupContext, Policy, ServerSession, choose_plan
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.identities import public_bytes, sign, verify
from fedmeta.privacy.secagg.messages import PublicKeys, SharesRequest, Stage

CONTEXT = GroupContext("run", 1, 0, (1, 2, 3, 4))
KINDS = {"ed25519": Ed25519PrivateKey.generate, "p384": lambda: generate_private_key(SECP384R1())}


def invite(kinds=("ed25519", "p384", "ed25519", "p384")):
    """Four nodes with identities: sessions, keys, the trust list and the identities, by node."""
    identities = {node: KINDS[kind]() for node, kind in zip(CONTEXT.members, kinds, strict=True)}
    trusted = frozenset(public_bytes(identity.public_key()) for identity in identities.values())
    server = ServerSession(
        CONTEXT, choose_plan(4), bits=32, length=3, generator=np.random.default_rng(0), trusted=trusted
    )
    sessions = {}
    for node, request in server.requests().items():
        sessions[node], reply = ClientSession.begin(node, request, Policy(trusted=trusted), identities[node])
        server.receive(node, reply)
    return sessions, server, trusted, identities


def test_signed_keys_of_both_kinds_are_accepted():
    sessions, server, trusted, _ = invite()
    server.advance()
    for node, request in server.requests().items():
        assert len(sessions[node].share(request, Policy(trusted=trusted)).sealed) == 3


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_signature_holds_for_its_keys_node_and_context_only(kind):
    identity = KINDS[kind]()
    keys = sign(identity, CONTEXT, 1, PublicKeys(b"m" * 32, b"s" * 32))
    trusted = frozenset([keys.identity])
    verify(CONTEXT, 1, keys, trusted)
    cases = [
        (CONTEXT, 2, keys),
        (replace(CONTEXT, round=2), 1, keys),
        (replace(CONTEXT, members=(1, 2, 3)), 1, keys),
        (CONTEXT, 1, replace(keys, mask=b"x" * 32)),
        (CONTEXT, 1, replace(keys, seal=b"x" * 32)),
        (CONTEXT, 1, replace(keys, signature=b"")),
        (CONTEXT, 1, replace(keys, signature=keys.signature[:-1] + bytes([keys.signature[-1] ^ 1]))),
    ]
    for context, node, changed in cases:
        with pytest.raises(Refused, match="does not hold"):
            verify(context, node, changed, trusted)


def test_keys_of_the_servers_own_making_are_refused():
    """The man in the middle: unsigned, or signed by an identity that is not in the trust list."""
    sessions, server, trusted, _ = invite()
    server.advance()
    request = server.requests()[1]
    stranger = sign(Ed25519PrivateKey.generate(), CONTEXT, 2, PublicKeys(b"m" * 32, b"s" * 32))
    for forged, told in ((PublicKeys(b"m" * 32, b"s" * 32), "is not given"), (stranger, "is not in the trust list")):
        session = ClientSession.from_bytes(sessions[1].to_bytes())
        with pytest.raises(Refused, match=f"node 2's identity {told}"):
            session.share(SharesRequest(CONTEXT.tag, {**request.peers, 2: forged}), Policy(trusted=trusted))
        assert session.stage is Stage.ENDED


def test_one_identity_counts_once():
    """A member that stands for two: refused by the server and, where the server lies, by its neighbours."""
    sessions, server, trusted, identities = invite()
    server.advance()
    peers = dict(server.requests()[1].peers)
    peers[3] = sign(identities[2], CONTEXT, 3, PublicKeys(b"m" * 32, b"s" * 32))
    with pytest.raises(Refused, match="one identity"):
        sessions[1].share(SharesRequest(CONTEXT.tag, peers), Policy(trusted=trusted))
    again = ServerSession(
        CONTEXT, choose_plan(4), bits=32, length=3, generator=np.random.default_rng(0), trusted=trusted
    )
    for node in (2, 3):
        _, reply = ClientSession.begin(node, again.requests()[node], identity=identities[2])
        if node == 2:
            again.receive(node, reply)
        else:
            with pytest.raises(Refused, match="already"):
                again.receive(node, reply)


def test_a_server_drops_a_node_without_a_trusted_signature():
    trusted = frozenset([public_bytes(Ed25519PrivateKey.generate().public_key())])
    server = ServerSession(
        CONTEXT, choose_plan(4), bits=32, length=3, generator=np.random.default_rng(0), trusted=trusted
    )
    _, reply = ClientSession.begin(1, server.requests()[1])
    with pytest.raises(Refused, match="node 1's identity is not given"):
        server.receive(1, reply)


def test_other_kinds_of_keys_are_refused():
    weaker, keys = generate_private_key(SECP256R1()), PublicKeys(b"m" * 32, b"s" * 32)
    with pytest.raises(ConfigurationError, match="Ed25519 or ECDSA P-384"):
        sign(weaker, CONTEXT, 1, keys)
    identity = public_bytes(weaker.public_key())
    with pytest.raises(Refused, match="neither Ed25519 nor ECDSA P-384"):
        verify(CONTEXT, 1, replace(keys, identity=identity), frozenset([identity]))
