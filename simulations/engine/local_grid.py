"""LocalGrid: a Flower Grid whose nodes are simulated clients; engines differ in where they execute turns."""

import logging
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmeta.errors import ConfigurationError, FedmetaError
from fedmeta.parameters import require_number
from fedmeta.seeding import derive
from simulations.engine.executor import Outcome, Turn
from simulations.engine.flower_internals import NODE_UNAVAILABLE, adopt_identity, empty_run, error_reply, give_id
from strategies.checking import outline, refuse
from strategies.reasons import group_reasons

log = logging.getLogger("fedmeta.engine")

FIRST_NODE_ID = 1000
"""Node id of client 0: away from the ids that Flower gives to its own nodes."""


MOST_CLIENTS = 10**7
"""Of one grid: their ids alone take a gigabyte then."""


class LocalGrid(Grid):
    """Simulated clients behind Flower's Grid; a context manager that leaves nothing running.

    A client's Context belongs to the grid: its state is committed together with the reply, so that a client that
    fails, or runs again elsewhere, goes on from the last committed state.

    Args:
        app: `"package.module:attribute"` of a ClientApp, or a ClientApp.
        num_clients: nodes; client i has partition id i.
        check: turn replies that would end or poison any strategy into errors (see `strategies.checking`).
        log_failures: log failed replies, alike ones in one line.
        run_config: what clients find in `context.run_config`.
        seed: of the global random generators that a foreign app may draw from, for each client and turn. Our own
            clients draw from generators of their own.

    Raises:
        ConfigurationError: no clients.
    """

    def __init__(
        self,
        app: str | ClientApp,
        num_clients: int,
        *,
        check: bool = True,
        log_failures: bool = True,
        run_config: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        require_number("num_clients", num_clients, whole=True)
        require_number("seed", seed, whole=True)
        if seed < 0:
            raise ConfigurationError(f"seed = {seed} must be at least 0")
        if not 1 <= num_clients <= MOST_CLIENTS:
            raise ConfigurationError(f"num_clients = {num_clients} must be at least 1, and at most {MOST_CLIENTS:,}")
        adopt_identity()
        self._app = app
        self._num_clients = num_clients
        self._check, self._log_failures = check, log_failures
        self._run_config = dict(run_config or {})
        self._states: dict[int, RecordDict] = {}
        self._seed, self._turns_had = seed, Counter[int]()
        self._replies: dict[str, Message] = {}
        self._run = empty_run()
        self._closed = False

    @property
    def adds_updates(self) -> bool:
        """Whether a strategy may ask for sums of updates: not where every reply is checked as it stands."""
        return not self._check

    @abstractmethod
    def _execute(self, turns: Sequence[Turn], timeout: float | None) -> list[Outcome]:
        """Run turns to outcomes in the same order; no exception of a client leaves this."""

    def close(self) -> None:
        """Give back what the grid holds; may be called again."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_run(self, run: Run) -> None:
        """Set the run that the grid operates in."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that the grid operates in."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The node ids, in the order of partition ids."""
        return [FIRST_NODE_ID + partition for partition in range(self._num_clients)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run messages at once; their replies wait for `pull_messages`."""
        pushed = list(messages)
        for message, reply in zip(pushed, self.send_and_receive(pushed), strict=True):
            self._replies[message.metadata.message_id] = reply
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to pushed messages, each handed out once."""
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Run messages and wait for all replies, in the order of the messages.

        Args:
            messages: at most one a node is sensible: turns of one client within a call do not see each other's state.
            timeout: seconds; what is not done by then becomes an error reply.

        Raises:
            FedmetaError: the grid is closed, or its engine cannot start.
        """
        if self._closed:
            raise FedmetaError("this grid is closed: make a new one, or stay within its `with` block")
        sent = list(messages)
        for message in sent:
            give_id(message)
        known = [i for i, message in enumerate(sent) if 0 <= self._partition(message) < self._num_clients]
        outcomes = self._execute([self._turn(sent[i]) for i in known], timeout) if known else []
        replies = {i: outcome.reply for i, outcome in zip(known, outcomes, strict=True)}
        ordered = [replies[i] if i in replies else self._unknown(message) for i, message in enumerate(sent)]
        if self._check:
            made = {i: outcome.outline for i, outcome in zip(known, outcomes, strict=True)}
            outlines = [made.get(i) or outline(*pair) for i, pair in enumerate(zip(sent, ordered, strict=True))]
            ordered = refuse(sent, ordered, outlines)
        for i, outcome in zip(known, outcomes, strict=True):
            if not ordered[i].has_error():
                self._states[self._partition(sent[i])] = outcome.state
        for reply in ordered:
            give_id(reply)
        self._report(sent, ordered)
        return ordered

    def _partition(self, message: Message) -> int:
        return message.metadata.dst_node_id - FIRST_NODE_ID

    def _turn(self, message: Message) -> Turn:
        partition = self._partition(message)
        context = Context(
            run_id=self._run.run_id,
            node_id=message.metadata.dst_node_id,
            node_config={"partition-id": partition, "num-partitions": self._num_clients, "simulated": True},
            state=self._states.get(partition, RecordDict()),
            run_config=self._run_config,
        )
        self._turns_had[partition] += 1
        return Turn(message, context, derive(self._seed, self._turns_had[partition], partition, "global generators"))

    def _unknown(self, message: Message) -> Message:
        return error_reply(message, NODE_UNAVAILABLE, f"there is no node {message.metadata.dst_node_id}")

    def _report(self, sent: Sequence[Message], replies: Sequence[Message]) -> None:
        if not self._log_failures:
            return
        known = {
            self._partition(message): reply.error.reason or f"error code {reply.error.code}"
            for message, reply in zip(sent, replies, strict=True)
            if reply.has_error() and 0 <= self._partition(message) < self._num_clients
        }
        strangers = [m.metadata.dst_node_id for m in sent if not 0 <= self._partition(m) < self._num_clients]
        if strangers:
            log.warning("%d messages went to nodes that do not exist, such as %d", len(strangers), strangers[0])
        for line in group_reasons(known):
            log.warning("%s", line)


def deadline_after(timeout: float | None) -> float:
    """The monotonic time at which a wait of `timeout` seconds ends; infinity for None."""
    return float("inf") if timeout is None else time.monotonic() + timeout
