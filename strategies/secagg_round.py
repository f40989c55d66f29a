"""One round of secure aggregation over any Grid: four exchanges, in which all groups take part at once.

Keys, shares, masked updates, shares to unmask. A client that does not answer in one of them, or answers what does not
belong there, is out of the round with a reason; a group in which too few are left has no sum, and no part of one.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedmeta.errors import FedmetaError
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.secagg import Aborted, Encoder, Refused, ServerSession, parse
from fedmeta.privacy.secagg.messages import Reply
from fedmeta.wire import IDLE, MalformedRecord, array_view
from strategies.directory import by_message, why_failed

STAGES = ("keys", "shares", "masked", "unmask")
"""The exchanges, by the names that the experiment gives them."""

TYPES = {"keys": names.KEYS, "shares": names.SHARES, "unmask": names.UNMASK}
"""Message types of the exchanges that are not training."""

SHARE_OF_TIME = {"keys": 0.1, "shares": 0.2, "masked": 0.9, "unmask": 1.0}
"""When an exchange must be over, as a share of the round's time: a client that hangs in one leaves some to the next."""

Silent = Callable[[str, int], bool]
"""Whether a node, in a simulation, falls silent before an exchange."""

T = TypeVar("T")


@dataclass
class Group:
    """The clients of one sum.

    Attributes:
        session: of the protocol.
        messages: node -> the strategy's train message to it.
        encoder: of what is summed.
        failed: node -> why it is not in the sum.
        facts: what members say of the layout of their vectors, once they have sent them.
        ended: why there is no sum; None while there may be one.
    """

    session: ServerSession
    messages: dict[int, Message]
    encoder: Encoder
    failed: dict[int, str] = field(default_factory=dict)
    facts: dict[int, "Facts"] = field(default_factory=dict)
    ended: str | None = None

    @property
    def first(self) -> Message:
        """The message to one of the members."""
        return next(iter(self.messages.values()))

    @property
    def standing(self) -> list[int]:
        """The nodes that have not failed; none where the group has ended."""
        return [] if self.ended is not None else [node for node in self.messages if node not in self.failed]

    def end(self, why: str) -> None:
        """Have no sum."""
        self.ended = why


@dataclass(frozen=True)
class Facts:
    """What a client says in the clear beside its masked vector: nothing that its data decide.

    Attributes:
        metrics: names, in the order of their places.
        weight_bound: W of the layout.
        told: the reply's own scalars, such as the hash of its `ParamSpec`.
        idle: why a malicious client could not attack; see `fedmeta.wire.IDLE`.
    """

    metrics: tuple[str, ...]
    weight_bound: float
    told: tuple[tuple[str, Any], ...]
    idle: str | None = None

    @property
    def layout(self) -> tuple[Any, ...]:
        """What must be equal for all vectors of a round."""
        return self.metrics, self.weight_bound, self.told


class Exchanges:
    """The exchanges of one round.

    Args:
        grid: that carries the messages.
        groups: with sessions that have not begun.
        training: what the record of every train message says beside the protocol's own message, by group.
        seconds: for all exchanges together; None for no limit.
        silent: who falls silent, in a simulation.
    """

    def __init__(
        self,
        grid: Grid,
        groups: Sequence[Group],
        training: Callable[[Group], Mapping[str, Any]],
        seconds: float | None,
        silent: Silent,
    ) -> None:
        self._grid, self.groups, self._training, self._silent = grid, groups, training, silent
        self._started, self._seconds = time.monotonic(), seconds

    def play(self, stage: str) -> None:
        """One exchange of all groups that still can have a sum: ask, wait, hand what came to the sessions, go on."""
        asked = {
            (index, node): self._request(stage, group, node, request.to_bytes())
            for index, group in enumerate(self.groups)
            if group.ended is None
            for node, request in group.session.requests().items()
            if not self._falls_silent(stage, group, node)
        }
        replies: Iterable[Message] = []
        if asked:
            replies = self._grid.send_and_receive(list(asked.values()), timeout=self._time_left(stage))
        answers = by_message(asked.values(), replies)
        read = {key: self._read(stage, key, answers.get(message.metadata.message_id)) for key, message in asked.items()}
        usual = self._usual_layout()
        for (index, node), reply in read.items():
            if reply is not None:
                self._hand_over(stage, self.groups[index], node, reply, usual)
        for group in self.groups:
            self._advance(stage, group)

    def _falls_silent(self, stage: str, group: Group, node: int) -> bool:
        if not self._silent(stage, node):
            return False
        group.failed[node] = f"fell silent before '{stage}', as secagg.dropout has it"
        return True

    def _request(self, stage: str, group: Group, node: int, data: bytes) -> Message:
        asked = group.messages[node]
        if stage != "masked":
            content = RecordDict({names.RECORD: ConfigRecord({names.MESSAGE: data})})
            return Message(content, node, TYPES[stage], group_id=asked.metadata.group_id)
        # The strategy's own content, whose arrays all messages of the round share.
        record = ConfigRecord({names.MESSAGE: data, **self._training(group)})
        content = RecordDict({**asked.content, names.RECORD: record})
        meta = asked.metadata
        return Message(content, node, meta.message_type, ttl=meta.ttl, group_id=meta.group_id)

    def _time_left(self, stage: str) -> float | None:
        if self._seconds is None:
            return None
        return max(0.0, self._started + SHARE_OF_TIME[stage] * self._seconds - time.monotonic())

    def _read(self, stage: str, key: tuple[int, int], message: Message | None) -> Reply | None:
        """The protocol's message in a reply; a reply without one is a failure of that node."""
        group, node = self.groups[key[0]], key[1]
        failure = why_failed(message)
        try:
            if message is None or failure:
                raise MalformedRecord(failure)
            record = message.content.config_records.get(names.RECORD)
            if record is None:
                raise MalformedRecord("the reply is not masked: another version of the client's code?")
            if names.REFUSED in record:
                raise MalformedRecord(str(record[names.REFUSED]))
            if stage == "masked":
                group.facts[node] = read_facts(message.content)
                return _reply(_masked_bytes(message.content))
            return _reply(record[names.MESSAGE])
        except (FedmetaError, LookupError, TypeError, ValueError, RecursionError) as error:
            self._fail(stage, group, node, f"in exchange '{stage}': {error}")
            return None

    def _usual_layout(self) -> tuple[Any, ...] | None:
        """The layout of most masked vectors of the round: others cannot be added to them."""
        return most_common(facts.layout for group in self.groups for facts in group.facts.values())

    def _hand_over(self, stage: str, group: Group, node: int, reply: Reply, usual: tuple[Any, ...] | None) -> None:
        if stage == "masked" and group.facts[node].layout != usual:
            mine = _in_words(group.facts[node].layout)
            self._fail(stage, group, node, f"its vector holds {mine}, where most hold {_in_words(usual)}")
            return
        try:
            group.session.receive(node, reply)
        except Refused as error:
            self._fail(stage, group, node, f"refused in exchange '{stage}': {error}")

    def _fail(self, stage: str, group: Group, node: int, why: str) -> None:
        """Note why a client is out, or helps no more: what it said of a vector that is in the sum stays."""
        group.failed[node] = why
        if stage == "masked":
            group.facts.pop(node, None)

    def _advance(self, stage: str, group: Group) -> None:
        if group.ended is not None:
            return
        asked = set(group.session.requests())
        try:
            group.session.advance()
        except Aborted as error:
            group.end(str(error))
            return
        if stage in ("keys", "shares"):
            for node in asked - set(group.session.requests()):
                group.failed.setdefault(node, f"too few of its neighbours answered in exchange '{stage}'")


def _reply(data: Any) -> Reply:
    """The reply in some bytes.

    Raises:
        FedmetaError, TypeError: none is in them.
    """
    found = parse(data)
    if not isinstance(found, Reply):
        raise MalformedRecord(f"a {type(found).__name__} is no reply")
    return found


def read_facts(content: RecordDict) -> Facts:
    """What a client says beside its masked vector.

    Raises:
        LookupError, TypeError, ValueError, RecursionError: a record that is not as it should be.
    """
    record = content.config_records[names.RECORD]
    metrics = tuple(str(name) for name in json.loads(str(record[names.METRIC_NAMES])))
    rest = {
        key: value for key, kept in content.config_records.items() if key != names.RECORD for key, value in kept.items()
    }
    idle = rest.pop(IDLE, None)
    told = tuple(sorted((key, str(value)) for key, value in rest.items()))
    return Facts(metrics, float(record[names.WEIGHT_BOUND]), told, None if idle is None else str(idle))  # type: ignore[arg-type]


def most_common(values: Iterable[T]) -> T | None:
    """The most common of some values, the first one among equals; None of none."""
    found = Counter(values).most_common(1)
    return found[0][0] if found else None


def _masked_bytes(content: RecordDict) -> memoryview:
    """The bytes of a masked vector, where they lie.

    Raises:
        MalformedRecord: an array of something else.
    """
    array = content.array_records[names.MASKED][names.BYTES]
    try:
        view = array_view(array)
        values = array.numpy() if view is None else view
    except Exception as error:  # whatever the other side's bytes make the reader raise
        raise MalformedRecord(f"bytes that are no array: {error}") from error
    if values.dtype != "uint8" or values.ndim != 1:
        raise MalformedRecord(f"a masked vector as {values.dtype} {values.shape}, where bytes were expected")
    return values.data


def _in_words(layout: tuple[Any, ...] | None) -> str:
    if layout is None:
        return "nothing"
    metrics, bound, told = layout
    return f"metrics {list(metrics)}, weights up to {bound:g} and {dict(told)}"
