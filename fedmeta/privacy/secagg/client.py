"""The client's side of one group's exchange, as a state machine that can be written down between messages."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import numpy.typing as npt

from fedmeta.privacy.secagg import client_state
from fedmeta.privacy.secagg.context import GroupContext
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.identities import PrivateIdentity, sign, verify
from fedmeta.privacy.secagg.keys import (
    Exchange,
    commitment,
    new_private_key,
    pairwise_mask_key,
    public_key,
    sealing_key,
    self_mask_key,
)
from fedmeta.privacy.secagg.masks import add_masks
from fedmeta.privacy.secagg.messages import (
    SHARE_BYTES,
    KeysReply,
    KeysRequest,
    MaskedInput,
    MaskRequest,
    PublicKeys,
    SharesReply,
    SharesRequest,
    Stage,
    UnmaskReply,
    UnmaskRequest,
)
from fedmeta.privacy.secagg.policy import Policy
from fedmeta.privacy.secagg.sealing import seal, unseal
from fedmeta.privacy.secagg.shamir import split, to_number


@dataclass(repr=False)
class ClientSession:
    """One node in one group: `begin`, `share`, `mask`, `unmask`, each once and in this order.

    A message that the protocol does not allow raises `Refused`; the session has then ended and its secrets are gone.
    Write the state down after every step, a refused one too, and before the reply leaves: from an old state a second
    vector could be asked for under the same masks. What each step no longer needs is dropped at once: private keys when
    the shares are out, mask keys and the seed when the vector is masked, shares when they are returned. `to_bytes` of
    an ended session holds no secret.
    """

    node: int
    context: GroupContext
    degree: int
    threshold: int
    bits: int
    length: int
    stage: Stage = Stage.SHARES
    released: bool = False
    private_keys: bytes = b""
    seed: bytes = b""
    peer_keys: dict[int, bytes] = field(default_factory=dict)
    shares: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def begin(
        cls,
        node: int,
        request: KeysRequest,
        policy: Policy | None = None,
        identity: PrivateIdentity | None = None,
        previous: bytes | None = None,
    ) -> tuple[Self, KeysReply]:
        """Accept an invitation: fresh keys from the operating system's generator.

        Args:
            node: this node's identifier, one of the members.
            request: the invitation.
            policy: what this node demands; None is `Policy()`.
            identity: signs the public keys where given.
            previous: `to_bytes` of this node's last session, if any: a round in which it helped to unmask is over.

        Raises:
            Refused: not a member, a group below the policy, or a round that this node has already unmasked.
        """
        context = request.context
        (policy or Policy()).check(request)
        if node not in context.members:
            raise Refused(f"node {node} is invited to a group that it is not a member of")
        last = cls.from_bytes(previous) if previous else None
        if last and last.released and last.context.run == context.run and context.round <= last.context.round:
            raise Refused(
                f"round {context.round}: this node has unmasked round {last.context.round} of the run; a second sum of "
                "the same update over other members would give it away"
            )
        mask_private, seal_private = new_private_key(), new_private_key()
        keys = PublicKeys(public_key(mask_private), public_key(seal_private))
        if identity is not None:
            keys = sign(identity, context, node, keys)
        session = cls(node, context, request.degree, request.threshold, request.bits, request.length)
        session.private_keys = mask_private + seal_private
        return session, KeysReply(context.tag, keys)

    def share(self, request: SharesRequest, policy: Policy | None = None) -> SharesReply:
        """Share the mask key and a fresh seed among the neighbours and itself.

        Raises:
            Refused: another context or stage, neighbours who are no members or too many or fewer than the threshold
                needs, keys that occur twice or are not signed by a trusted identity.
        """
        with self._ending_on_failure():
            self._expect(Stage.SHARES, request.tag)
            self._check_peers(request, policy or Policy())
            mask_private, seal_private = self.private_keys[:32], self.private_keys[32:]
            binding, peers = self.context.binding, sorted(request.peers)
            self.seed = secrets.token_bytes(32)
            holders = sorted([*peers, self.node])
            seeds = split(self.seed, self.threshold, len(holders))
            keys = split(mask_private, self.threshold, len(holders))
            for_holder = {holder: a + b for holder, a, b in zip(holders, seeds, keys, strict=True)}
            masking, sealing = Exchange(mask_private), Exchange(seal_private)
            sealed = []
            for peer in peers:
                public = request.peers[peer]
                seal_key = sealing_key(sealing.shared(public.seal), binding, self.node, peer)
                mask_key = pairwise_mask_key(masking.shared(public.mask), binding, self.node, peer)
                sealed.append(seal(seal_key, self.node, peer, for_holder[peer]))
                self.peer_keys[peer] = seal_key + mask_key
            self.shares = {self.node: for_holder[self.node]}
            self.private_keys = b""
            self.stage = Stage.MASK
            return SharesReply(self.context.tag, commitment(self.seed, binding, self.node), tuple(sealed))

    def mask(self, request: MaskRequest, vector: npt.NDArray[Any]) -> MaskedInput:
        """Mask an encoded vector with the neighbours whose shares arrived.

        Args:
            request: the sealed shares.
            vector: `[length]`, uint32 or uint64 as the invitation says; not modified.

        Raises:
            Refused: another context or stage, shares that their sender did not seal for this node in this context, or
                too few of them.
            ValueError: a vector of another length or width than the invitation's.
        """
        with self._ending_on_failure():
            self._expect(Stage.MASK, request.tag)
            if vector.shape != (self.length,) or vector.dtype.itemsize * 8 != self.bits or vector.dtype.kind != "u":
                raise ValueError(
                    f"a vector {vector.dtype}{list(vector.shape)} where the group sums uint{self.bits}[{self.length}]"
                )
            self._receive(request)
            above = [self.peer_keys[peer][32:] for peer in request.sealed if peer > self.node]
            below = [self.peer_keys[peer][32:] for peer in request.sealed if peer < self.node]
            own = self_mask_key(self.seed, self.context.binding, self.node)
            masked = vector.copy()
            add_masks(masked, [own, *above], below)
            self.seed, self.peer_keys = b"", {}
            self.stage = Stage.UNMASK
            return MaskedInput(self.context.tag, masked)

    def unmask(self, request: UnmaskRequest) -> UnmaskReply:
        """Return one share for each neighbour, and end: the seed's for a survivor, the mask key's for a dropped node.

        Raises:
            Refused: another context or stage (a second request comes to an ended session), a node in both lists, a node
                that it exchanged no masks with, itself not among the survivors, or fewer of them than the threshold.
        """
        with self._ending_on_failure():
            self._expect(Stage.UNMASK, request.tag)
            self._check_lists(request)
            seeds = [self.shares[node][:SHARE_BYTES] for node in request.survivors]
            keys = [self.shares[node][SHARE_BYTES:] for node in request.dropped]
            self.released = True
            self.forget()
            return UnmaskReply(self.context.tag, (*seeds, *keys))

    def forget(self) -> None:
        """End the session and drop every secret, as after an abort."""
        self.private_keys, self.seed, self.peer_keys, self.shares = b"", b"", {}, {}
        self.stage = Stage.ENDED

    def to_bytes(self) -> bytes:
        """The whole state, secrets included until the session has ended; for the node's own store only."""
        return client_state.pack(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The session that `to_bytes` wrote.

        Raises:
            Refused: bytes that are no session.
        """
        return cls(**client_state.unpack(data))

    @contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.forget()
            raise

    def _expect(self, stage: Stage, tag: bytes) -> None:
        if self.stage is Stage.ENDED:
            raise Refused(f"node {self.node} has ended its part in this group, and answers once only")
        if tag != self.context.tag:
            raise Refused(f"a message of another run, round or group came to node {self.node}")
        if self.stage is not stage:
            raise Refused(f"a message of stage {stage.name} came to node {self.node} at stage {self.stage.name}")

    def _check_peers(self, request: SharesRequest, policy: Policy) -> None:
        peers = request.peers
        strangers = set(peers) - set(self.context.members) | ({self.node} & set(peers))
        if strangers:
            raise Refused(f"{min(strangers)} cannot be a neighbour of node {self.node} in this group")
        if not self.threshold - 1 <= len(peers) <= self.degree:
            raise Refused(f"{len(peers)} neighbours: at least {self.threshold - 1} and at most {self.degree} can be")
        mine = [public_key(self.private_keys[:32]), public_key(self.private_keys[32:])]
        seen = [*mine, *(key for keys in peers.values() for key in (keys.mask, keys.seal))]
        if len(set(seen)) != len(seen):
            raise Refused("two of the public keys are the same: somebody is in the group twice")
        if policy.trusted is not None:
            for peer, keys in peers.items():
                verify(self.context, peer, keys, policy.trusted)
            if len({keys.identity for keys in peers.values()}) != len(peers):
                raise Refused("two neighbours have one identity: somebody is in the group twice")

    def _receive(self, request: MaskRequest) -> None:
        senders = request.sealed
        strangers = set(senders) - set(self.peer_keys)
        if strangers:
            raise Refused(f"shares of node {min(strangers)}, which is no neighbour of node {self.node}")
        if len(senders) + 1 < self.threshold:
            raise Refused(f"shares of {len(senders)} neighbours, where the threshold needs {self.threshold - 1}")
        for sender, sealed in senders.items():
            shares = unseal(self.peer_keys[sender][:32], sender, self.node, sealed)
            for share in (shares[:SHARE_BYTES], shares[SHARE_BYTES:]):
                to_number(share)  # refuses a share that no polynomial has
            self.shares[sender] = shares

    def _check_lists(self, request: UnmaskRequest) -> None:
        survivors, dropped = set(request.survivors), set(request.dropped)
        both = survivors & dropped
        if both:
            raise Refused(f"both shares of node {min(both)} are asked for: together they unmask its vector")
        strangers = (survivors | dropped) - set(self.shares)
        if strangers:
            raise Refused(f"node {min(strangers)} did not exchange masks with node {self.node} in this group")
        if len(survivors) != len(request.survivors) or len(dropped) != len(request.dropped):
            raise Refused("a list of nodes names one twice")
        if self.node not in survivors:
            raise Refused(f"node {self.node} sent its vector, yet is not among the survivors")
        if len(survivors) < self.threshold:
            raise Refused(
                f"{len(survivors)} survivors among the neighbours of node {self.node}, where the threshold is "
                f"{self.threshold}: the sum would be of too few"
            )
