"""The grid of a deployment: short polls, nodes that come back, and stragglers that are not waited for.

Flower's own grid looks for replies every three seconds, gives up a node at the first error, and waits for the slowest
one to the end. This one uses nothing but its public `push_messages`, `pull_messages` and `get_nodes`.
"""

import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
from flwr.app import Error, Message
from flwr.serverapp import Grid

from fedmeta.errors import FedmetaError
from strategies.decorator import GridDecorator

if TYPE_CHECKING:  # Flower's internals, for types only
    from flwr.proto.node_pb2 import NodeInfo

log = logging.getLogger("fedmeta.server")

RESENDABLE = frozenset({"train", "evaluate", "query.identity"})
"""Messages that a node may be sent twice: what they ask for depends on nothing that the first one changed."""
SESSION = "secagg"
"""Record of a message within a protocol of several exchanges, whose session a node that restarted has lost."""

LINK_LOST = "lost the SuperLink"
"""How the text of a `LinkLost` begins: a run that ended so may be submitted again."""

NODE_UNAVAILABLE = 5
"""Flower's error code for a node whose heartbeats stopped."""

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.1, 0.5, 1.3
"""Between two looks for replies [seconds]: it grows while none come."""
LOOK_AT_NODES = 2.0
"""Between two looks at which nodes are there [seconds]."""
MOST_SENDINGS = 4
"""Of one message: a node that dies of it is not given it for ever."""


class LinkLost(FedmetaError):
    """The SuperLink does not answer this ServerApp any more."""


@dataclass(frozen=True)
class Waiting:
    """How long replies are waited for.

    Attributes:
        fraction: share of an exchange's valid replies, in [0, 1], from which on `patience` counts.
        patience: how much longer the rest of the training replies are waited for then; None: to the end [seconds].
        return_timeout: how long a node that went away may take to come back [seconds].
        repeat_training: whether a train message may be sent twice. Not where clients add noise: each reply is a release
            of its own, of which the server's account would know one.
    """

    fraction: float = 1.0
    patience: float | None = None
    return_timeout: float = 60.0
    repeat_training: bool = True


class PollingGrid(GridDecorator):
    """A Grid decorator whose `send_and_receive` is a loop of short polls over the grid's public calls.

    Replies are fetched as they come, so that the transfer of the early ones costs no time at the end. Where a node goes
    away, its message is sent again when it is back; a reply counts once, whichever of the messages it answers.

    Args:
        grid: Flower's own.
        waiting: how long.
    """

    def __init__(self, grid: Grid, waiting: Waiting = Waiting()) -> None:
        super().__init__(grid)
        self.waiting = waiting

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, and wait for the replies.

        Args:
            messages: one for each client.
            timeout: longest wait [seconds]; None for ever.

        Returns:
            One reply for each message that was answered, matched by `reply_to_message_id`; an error of Flower's where
            its node stayed away; nothing for who did not answer in time.

        Raises:
            LinkLost: the SuperLink is gone, for longer than Flower tries again.
        """
        sent = list(messages)
        if not sent:
            return []
        with _linked():
            return _Exchange(self._grid, self.waiting, sent).play(timeout)

    def get_nodes(self) -> "list[NodeInfo]":
        """The nodes that are there.

        Raises:
            LinkLost: as for `send_and_receive`.
        """
        with _linked():
            return list(self._grid.get_nodes())

    def get_node_ids(self) -> list[int]:
        """Their ids.

        Raises:
            LinkLost: as for `send_and_receive`.
        """
        with _linked():
            return list(self._grid.get_node_ids())


@contextmanager
def _linked() -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, OSError) as error:
        raise LinkLost(f"{LINK_LOST}: {error}") from error


@dataclass(eq=False)
class _Ticket:
    """One message of an exchange, under all the ids that it was sent with."""

    message: Message
    repeatable: bool
    ids: set[str] = field(default_factory=set)
    activated: str = ""
    away: tuple[Message, float] | None = None
    sendings: int = 0

    @property
    def resendable(self) -> bool:
        return self.repeatable and self.sendings < MOST_SENDINGS


class _Exchange:
    """One push of messages and the wait for their replies."""

    def __init__(self, grid: Grid, waiting: Waiting, messages: list[Message]) -> None:
        self._grid, self._waiting = grid, waiting
        self._tickets = [_Ticket(message, _repeatable(message, waiting)) for message in messages]
        self._by_id: dict[str, _Ticket] = {}
        self._replies: list[Message] = []
        self._valid = 0
        self._enough_since: float | None = None
        # A protocol counts on all its members, and has a deadline of its own.
        trains = all(
            message.metadata.message_type.split(".")[0] == "train" and SESSION not in message.content
            for message in messages
        )
        self._patience = waiting.patience if trains else None

    def play(self, timeout: float | None) -> list[Message]:
        """Push, poll until all is said or the time is up, and return what came."""
        started = time.monotonic()
        deadline = math.inf if timeout is None else started + timeout
        # Before the push: a node that restarts within it must look as if it had.
        activations = self._activations()
        for ticket in self._tickets:
            ticket.activated = activations.get(ticket.message.metadata.dst_node_id, "")
        self._push(self._tickets)
        pause, next_look = FIRST_PAUSE, started + LOOK_AT_NODES
        while self._open():
            came = self._pull()
            now = time.monotonic()
            if now >= next_look:
                self._look_at_nodes(now)
                next_look = now + LOOK_AT_NODES
            if not self._open() or now >= deadline or self._too_late(now):
                break
            pause = FIRST_PAUSE if came else min(pause * GROWTH, LONGEST_PAUSE)
            time.sleep(max(0.0, min(pause, deadline - now)))
        for ticket in self._tickets:
            if ticket.away is not None:
                self._replies.append(ticket.away[0])
        return self._replies

    def _open(self) -> bool:
        return bool(self._by_id) or any(ticket.away is not None for ticket in self._tickets)

    def _push(self, tickets: list[_Ticket]) -> None:
        messages = [self._copy(ticket) for ticket in tickets]
        accepted = set(self._grid.push_messages(messages))
        for ticket, message in zip(tickets, messages, strict=True):
            ticket.sendings += 1
            identity = message.metadata.message_id
            if identity in accepted:
                ticket.ids.add(identity)
                self._by_id[identity] = ticket
            elif not ticket.ids:
                text = "the SuperLink did not take the message: its node is not, or no longer, registered"
                self._replies.append(Message(Error(NODE_UNAVAILABLE, text), reply_to=ticket.message))

    def _copy(self, ticket: _Ticket) -> Message:
        """The message itself at first, whose id its sender reads; after that another with the same content."""
        message = ticket.message
        if not ticket.sendings:
            return message
        metadata = message.metadata
        return Message(message.content, metadata.dst_node_id, metadata.message_type, group_id=metadata.group_id)

    def _pull(self) -> bool:
        """Fetch what came; whether anything did."""
        replies = list(self._grid.pull_messages(list(self._by_id))) if self._by_id else []
        for reply in replies:
            ticket = self._by_id.pop(reply.metadata.reply_to_message_id, None)
            if ticket is not None:
                ticket.ids.discard(reply.metadata.reply_to_message_id)
                self._take(ticket, reply)
        return bool(replies)

    def _take(self, ticket: _Ticket, reply: Message) -> None:
        lost = reply.has_error() and reply.error.code == NODE_UNAVAILABLE
        if lost and ticket.ids:
            return  # the same message is on its way under another id
        own = reply
        if reply.metadata.reply_to_message_id != ticket.message.metadata.message_id:
            own = Message(reply.error if reply.has_error() else reply.content, reply_to=ticket.message)
        if lost and ticket.resendable and self._waiting.return_timeout > 0:
            ticket.away = (own, time.monotonic())
            return
        for identity in ticket.ids:
            del self._by_id[identity]
        ticket.ids, ticket.away = set(), None
        self._replies.append(own)
        self._valid += not own.has_error()

    def _look_at_nodes(self, now: float) -> None:
        """Send again to nodes that came back; give up those that stayed away too long."""
        open_ones = [ticket for ticket in self._tickets if ticket.resendable and (ticket.ids or ticket.away)]
        there = self._activations() if open_ones else {}
        again: list[_Ticket] = []
        for ticket in open_ones:
            activated = there.get(ticket.message.metadata.dst_node_id)
            # One that restarted has lost the message that it had been given, and will not say so.
            if activated is not None and (ticket.away is not None or activated != ticket.activated):
                ticket.away, ticket.activated = None, activated
                again.append(ticket)
        if again:
            nodes = [ticket.message.metadata.dst_node_id for ticket in again]
            log.warning("nodes %s went away and are back: their messages are sent again", nodes)
            self._push(again)
        for ticket in self._tickets:
            if ticket.away is not None and now - ticket.away[1] > self._waiting.return_timeout:
                self._replies.append(ticket.away[0])
                ticket.away = None

    def _activations(self) -> dict[int, str]:
        """Node id -> when the node last joined, as the SuperLink tells it, of all nodes that are there."""
        return {node.node_id: node.last_activated_at for node in self._grid.get_nodes()}

    def _too_late(self, now: float) -> bool:
        """Whether enough have answered, and the others had their time."""
        if self._patience is None or self._valid < self._waiting.fraction * len(self._tickets):
            return False
        if self._enough_since is None:
            self._enough_since = now
        if now - self._enough_since < self._patience:
            return False
        open_ones = (ticket for ticket in self._tickets if ticket.ids or ticket.away is not None)
        late = sorted({ticket.message.metadata.dst_node_id for ticket in open_ones})
        log.warning("the round goes on without nodes %s, %g s after enough had answered", late, self._patience)
        return True


def _repeatable(message: Message, waiting: Waiting) -> bool:
    kind = message.metadata.message_type
    if kind not in RESENDABLE or SESSION in message.content:
        return False
    return waiting.repeat_training or kind != "train"
