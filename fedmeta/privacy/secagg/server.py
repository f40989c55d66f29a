"""The server's side of one group's exchange, as a state machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from fedmeta.privacy.secagg.context import GroupContext
from fedmeta.privacy.secagg.exchanges import mask_requests, returned_shares, shares_requests, unmask_requests
from fedmeta.privacy.secagg.failures import Aborted, Refused
from fedmeta.privacy.secagg.graph import core, ring, within
from fedmeta.privacy.secagg.identities import verify
from fedmeta.privacy.secagg.keys import check_public
from fedmeta.privacy.secagg.messages import (
    MAX_LENGTH,
    KeysReply,
    KeysRequest,
    MaskedInput,
    Message,
    PublicKeys,
    Reply,
    Request,
    SharesReply,
    Stage,
    UnmaskReply,
    UnmaskRequest,
)
from fedmeta.privacy.secagg.plan import Plan
from fedmeta.privacy.secagg.unmasking import Masked, unmask


@dataclass(frozen=True, eq=False)
class GroupSum:
    """What the server learns.

    Args:
        total: sum of the survivors' encoded vectors modulo 2^bits, `[length]`, uint32 or uint64.
        survivors: the nodes whose vectors are in it, ascending.
        dropped: the others, each with the stage in which it was lost.
        forgers: nodes that returned shares which do not fit the rest.
    """

    total: npt.NDArray[Any]
    survivors: tuple[int, ...]
    dropped: Mapping[int, Stage]
    forgers: tuple[int, ...]


class ServerSession:
    """Drives one group: send `requests()`, `receive` each reply, `advance()`, until `result` is there.

    >>> session = ServerSession(context, plan, bits=32, length=10, generator=generator)   # doctest: +SKIP
    >>> while session.stage is not Stage.ENDED:                                           # doctest: +SKIP
    ...     for node, reply in exchange(session.requests()):
    ...         session.receive(node, reply)     # Refused: the node counts as dropped
    ...     session.advance()                    # Aborted: too few are left; there is no sum

    Args:
        context: run, round, group, members.
        plan: `choose_plan(len(members), ...)`.
        bits: 32 or 64.
        length: coordinates of an encoded vector.
        generator: draws the graph; in a deployment it must not be seeded with anything that a client knows.
        trusted: public identities whose signature every node's keys need; None asks for none.

    Raises:
        ConfigurationError: a plan for another number of members, or words of another width.
    """

    def __init__(
        self,
        context: GroupContext,
        plan: Plan,
        *,
        bits: int,
        length: int,
        generator: np.random.Generator,
        trusted: frozenset[bytes] | None = None,
    ) -> None:
        require_number("length", length, whole=True)
        if plan.count != len(context.members) or bits not in (32, 64) or not 1 <= length <= MAX_LENGTH:
            raise ConfigurationError(
                f"secure aggregation: a plan for {plan.count} nodes and {length} words of {bits} bits does not fit a "
                f"group of {len(context.members)}: plan for its members, with at least one word of 32 or 64 bits"
            )
        self.context, self.plan = context, plan
        self.stage = Stage.KEYS
        self.refused: dict[int, str] = {}
        """Node -> why its reply was refused."""
        self.dropped: dict[int, Stage] = {}
        """Node -> the stage in which it was lost."""
        self._generator, self._trusted = generator, trusted
        self._requests: dict[int, Request] = {
            node: KeysRequest(context, plan.degree, plan.threshold, bits, length) for node in context.members
        }
        self._heard: set[int] = set()
        self._keys: dict[int, PublicKeys] = {}
        self._taken: set[bytes] = set()  # public keys and identities
        self._holders: dict[int, tuple[int, ...]] = {}  # node -> who got its shares, itself included, in their order
        self._neighbours: dict[int, tuple[int, ...]] = {}
        self._shares: dict[int, SharesReply] = {}
        self._total = np.zeros(length, dtype=np.uint32 if bits == 32 else np.uint64)
        self._survivors: set[int] = set()
        self._answers: dict[int, UnmaskReply] = {}
        self._result: GroupSum | None = None

    def requests(self) -> dict[int, Request]:
        """The messages of the present stage, by node; none once the session has ended."""
        return dict(self._requests)

    @property
    def result(self) -> GroupSum:
        """The sum, once `stage` is `Stage.ENDED`.

        Raises:
            Aborted: the session has not come to its end, or ended without a sum.
        """
        if self._result is None:
            raise Aborted("this group has no sum")
        return self._result

    def receive(self, node: int, reply: Message) -> None:
        """Take a node's reply of the present stage. A masked vector is added to the sum at once and not kept.

        Raises:
            Refused: a reply that does not belong here: not asked for, a second one, of another context or stage, or
                malformed. A node whose own reply is refused counts as dropped.
        """
        if node not in self._requests:
            raise Refused(f"node {node} was not asked in stage {self.stage.name}")
        if node in self._heard:
            raise Refused(f"a second reply of node {node} in stage {self.stage.name}")
        self._heard.add(node)
        try:
            if not isinstance(reply, Reply) or reply.tag != self.context.tag:
                raise Refused(f"node {node}'s reply belongs to another run, round or group")
            self._take(node, reply)
        except Refused as error:
            self.refused[node] = str(error)
            raise

    def advance(self) -> None:
        """Close the stage: who has not replied is dropped, and the next requests, or the result, are made.

        Raises:
            Aborted: too few are left. The session has ended without a sum.
        """
        try:
            match self.stage:
                case Stage.KEYS:
                    self._after_keys()
                case Stage.SHARES:
                    self._after_shares()
                case Stage.MASK:
                    self._after_masking()
                case Stage.UNMASK:
                    self._after_unmasking()
                case Stage.ENDED:
                    raise Aborted("this session has ended")
        except Aborted:
            self._end()
            raise
        self._heard = set()

    def _take(self, node: int, reply: Reply) -> None:
        match (self.stage, reply):
            case (Stage.KEYS, KeysReply(keys=keys)):
                self._check_keys(node, keys)
                self._keys[node] = keys
            case (Stage.SHARES, SharesReply(sealed=sealed)):
                expected = len(self._holders[node]) - 1
                if len(sealed) != expected:
                    raise Refused(f"node {node} sealed {len(sealed)} pairs of shares for {expected} neighbours")
                self._shares[node] = reply
            case (Stage.MASK, MaskedInput(vector=vector)):
                if vector.shape != self._total.shape or vector.dtype.itemsize != self._total.itemsize:
                    raise Refused(
                        f"node {node} sent {vector.dtype}{list(vector.shape)}; the group sums "
                        f"{self._total.dtype}{list(self._total.shape)}"
                    )
                np.add(self._total, vector, out=self._total)
                self._survivors.add(node)
            case (Stage.UNMASK, UnmaskReply(shares=shares)):
                request = self._requests[node]
                assert isinstance(request, UnmaskRequest)
                expected = len(request.survivors) + len(request.dropped)
                if len(shares) != expected:
                    raise Refused(f"node {node} returned {len(shares)} shares of {expected}")
                self._answers[node] = reply
            case _:
                raise Refused(f"node {node} replied with {type(reply).__name__} in stage {self.stage.name}")

    def _check_keys(self, node: int, keys: PublicKeys) -> None:
        """What a node's neighbours would refuse and end for is refused here, at the cost of that node alone."""
        if self._trusted is not None:
            verify(self.context, node, keys, self._trusted)
        for key in (keys.mask, keys.seal):
            check_public(key)
        given = {key for key in (keys.mask, keys.seal, keys.identity) if key}
        if keys.mask == keys.seal or self._taken & given:
            raise Refused(f"node {node} gave a public key or an identity that is in the group already")
        self._taken |= given

    def _after_keys(self) -> None:
        drawn = ring(list(self._keys), self.plan.degree, self._generator)
        alive = self._still_connected(drawn, set(self._keys))
        self._neighbours = within(drawn, alive)
        self._holders = {node: tuple(sorted((*peers, node))) for node, peers in self._neighbours.items()}
        self._next(Stage.SHARES, shares_requests(self.context.tag, self._neighbours, self._keys))

    def _after_shares(self) -> None:
        alive = self._still_connected(self._neighbours, set(self._shares))
        self._neighbours = within(self._neighbours, alive)
        self._next(Stage.MASK, mask_requests(self.context.tag, self._neighbours, self._holders, self._shares))

    def _after_masking(self) -> None:
        survivors, threshold = self._survivors, self.plan.threshold
        for node, peers in self._neighbours.items():
            around = [peer for peer in (node, *peers) if peer in survivors]
            if around and len(around) < threshold:
                raise Aborted(
                    f"of node {node} and its neighbours {len(around)} sent a masked vector, and {threshold} are needed "
                    f"to remove its masks; {self._tally()}"
                )
        if not survivors:
            raise Aborted(f"no node sent a masked vector; {self._tally()}")
        self._next(Stage.UNMASK, unmask_requests(self.context.tag, self._neighbours, survivors))

    def _after_unmasking(self) -> None:
        group = Masked(
            context=self.context,
            threshold=self.plan.threshold,
            mask_keys={node: self._keys[node].mask for node in self._neighbours},
            commitments={node: self._shares[node].commitment for node in self._neighbours},
            holders=self._holders,
            neighbours=self._neighbours,
            survivors=frozenset(self._survivors),
        )
        shares = returned_shares(self._requests, self._answers, self._holders)
        forgers = unmask(self._total, group, shares, self._generator)
        self._note_lost()
        lost = {node: stage for node, stage in sorted(self.dropped.items()) if node not in self._survivors}
        self._result = GroupSum(self._total, tuple(sorted(self._survivors)), lost, tuple(sorted(forgers)))
        self._end()

    def _still_connected(self, neighbours: Mapping[int, tuple[int, ...]], present: set[int]) -> set[int]:
        """Who goes on: those present with enough neighbours who go on as well."""
        alive = core(neighbours, present, self.plan.threshold)
        if not alive:
            raise Aborted(
                f"{len(present)} of {self.plan.count} nodes are left, and none has itself and {self.plan.threshold - 1}"
                f" neighbours among them, as the threshold demands; {self._tally()}"
            )
        return alive

    def _next(self, stage: Stage, requests: dict[int, Request]) -> None:
        self._note_lost()
        for node in self._heard - set(requests):
            self.dropped.setdefault(node, self.stage)  # it replied, but too few of its neighbours did
        self.stage, self._requests = stage, requests

    def _note_lost(self) -> None:
        for node in self._requests:
            if node not in self._heard or node in self.refused:
                self.dropped.setdefault(node, self.stage)

    def _tally(self) -> str:
        """How many were lost up to now, for an abort's message."""
        now = sum(node not in self._heard or node in self.refused for node in self._requests)
        lost = {stage.name: sum(at is stage for at in self.dropped.values()) for stage in Stage}
        lost[self.stage.name] += now
        return "lost by stage: " + ", ".join(f"{name} {count}" for name, count in lost.items() if count)

    def _end(self) -> None:
        self.stage, self._requests = Stage.ENDED, {}
        self._keys, self._shares, self._answers, self._neighbours, self._holders = {}, {}, {}, {}, {}
        if self._result is None:
            self._total = np.zeros(0, dtype=self._total.dtype)  # what is still masked is of no use to anybody
