"""The client's side of secure aggregation: keys, shares, the masked update, and shares to unmask the sum of its group.

No module here loads torch: in a deployment every message starts a process of its own, and only training needs it. What
a client must remember between messages is in its Context, and the protocol's session drops each secret as soon as it
has served. Secrets come from the operating system, in a simulation too: they cancel out of every sum.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from clients.failures import describe
from clients.secagg_policy import node_identity, node_policy
from fedmeta.errors import FedmetaError
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.secagg import ClientSession, Refused, parse
from fedmeta.privacy.secagg.messages import KeysRequest, MaskRequest, SharesRequest, UnmaskRequest

SESSION, LAST, LEAST = "session", "last-unmasked", "least"
"""In the Context's record: the session; the last one that helped to unmask, which holds no secret; and the fewest
clients of a sum."""


def keys(message: Message, context: Context) -> Message:
    """Join a group with fresh keys. What a round that ended early has left in the Context is deleted first."""
    forget(context)

    def begin() -> bytes:
        request = _request(message, KeysRequest)
        last = _stored(context).get(LAST)
        session, reply = ClientSession.begin(
            context.node_id,
            request,
            node_policy(context),
            node_identity(context),
            None if last is None else bytes(last),
        )
        _store(context, session)
        return reply.to_bytes()

    return _answered(message, begin)


def shares(message: Message, context: Context) -> Message:
    """Share out what unmasks this client, should it fall silent."""

    def share() -> bytes:
        session = _session(context)
        try:
            return session.share(_request(message, SharesRequest), node_policy(context)).to_bytes()
        finally:
            _store(context, session)

    return _answered(message, share)


def unmask(message: Message, context: Context) -> Message:
    """Return one share of each neighbour, and end the session: no secret stays in the Context."""

    def release() -> bytes:
        session, least = _session(context), int(_stored(context).get(LEAST, 1))
        try:
            request = _request(message, UnmaskRequest)
            # Where not all members are neighbours this client does not see how many are left.
            if session.degree == len(session.context.members) - 1 and len(request.survivors) < least:
                session.forget()
                raise Refused(
                    f"a sum of {len(request.survivors)} clients would hold less noise than was accounted for {least}"
                )
            return session.unmask(request).to_bytes()
        finally:
            _store(context, session)

    return _answered(message, release)


def is_masked(message: Message) -> bool:
    """Whether a train message asks for a masked update."""
    return names.RECORD in message.content.config_records


@dataclass(frozen=True)
class Encoded:
    """What is to be masked.

    Attributes:
        vector: `[length]`, uint32 or uint64.
        metrics: names of the metrics in it, in order.
        weight_bound: W of its layout.
        least: fewest clients whose sum this client helps to unmask.
    """

    vector: npt.NDArray[Any]
    metrics: Sequence[str]
    weight_bound: float
    least: int = 1


def masked(message: Message, context: Context, encode: Callable[[int], Encoded], told: ConfigRecord) -> Message:
    """The reply to a train message with an encoded update under the mask.

    Args:
        message: asks for it.
        context: holds the session.
        encode: makes the vector of words of so many bits.
        told: what goes in the clear: nothing that the data decide.
    """
    try:
        session = _session(context)
        encoded = encode(session.bits)
        try:
            reply = session.mask(_request(message, MaskRequest), encoded.vector)
        finally:
            _store(context, session, encoded.least)
    except (FedmetaError, ValueError, LookupError, TypeError) as error:
        return refusal(message, context, error)
    facts = ConfigRecord(
        {names.METRIC_NAMES: json.dumps(list(encoded.metrics)), names.WEIGHT_BOUND: encoded.weight_bound}
    )
    array = Array(np.frombuffer(reply.to_bytes(), np.uint8))
    content = RecordDict({names.MASKED: ArrayRecord({names.BYTES: array}), names.RECORD: facts, "config": told})
    return Message(content, reply_to=message)


def has_failed(reply: Message) -> bool:
    """Whether a reply brings no update, in either way of saying so."""
    return reply.has_error() or names.REFUSED in reply.content.config_records.get(names.RECORD, {})


def refusal(message: Message, context: Context, error: BaseException) -> Message:
    """Why there is no masked update, as content, so that the Context without its secrets is kept."""
    forget(context)
    reply = _refused(message, error)
    # Some grids turn a reply into an error that has not the records of most others.
    reply.content[names.MASKED] = ArrayRecord({names.BYTES: Array(np.empty(0, np.uint8))})
    return reply


def forget(context: Context) -> None:
    """Delete every secret of a session, as after a round that ended early."""
    data = _stored(context).get(SESSION)
    if data is None:
        return
    try:
        session = ClientSession.from_bytes(bytes(data))
    except Refused:  # of another version of this code
        del context.state[names.RECORD]
        return
    session.forget()
    _store(context, session)


def _answered(message: Message, work: Callable[[], bytes]) -> Message:
    """The reply with the protocol's message, or with the reason why there is none."""
    try:
        data = work()
    except (FedmetaError, ValueError, LookupError, TypeError) as error:
        return _refused(message, error)
    return Message(RecordDict({names.RECORD: ConfigRecord({names.MESSAGE: data})}), reply_to=message)


def _refused(message: Message, error: BaseException) -> Message:
    return Message(RecordDict({names.RECORD: ConfigRecord({names.REFUSED: describe(error)})}), reply_to=message)


def _request(message: Message, kind: type[Any]) -> Any:
    """The protocol's message in a message.

    Raises:
        Refused: none, or one of another kind.
    """
    record = message.content.config_records.get(names.RECORD, ConfigRecord())
    data = record.get(names.MESSAGE)
    if not isinstance(data, bytes):
        raise Refused(f"a message without a {kind.__name__}")
    found = parse(data)
    if not isinstance(found, kind):
        raise Refused(f"a {type(found).__name__} where a {kind.__name__} was due")
    return found


def _stored(context: Context) -> Mapping[str, Any]:
    return context.state.config_records.get(names.RECORD, ConfigRecord())


def _session(context: Context) -> ClientSession:
    """The session of the round under way.

    Raises:
        Refused: there is none.
    """
    data = _stored(context).get(SESSION)
    if data is None:
        raise Refused("this client has joined no group: the exchange of keys comes first")
    return ClientSession.from_bytes(bytes(data))


def _store(context: Context, session: ClientSession, least: int | None = None) -> None:
    """Write a session down, in place of the one before."""
    data, kept = session.to_bytes(), dict(_stored(context))
    kept |= {SESSION: data} | ({LAST: data} if session.released else {}) | ({} if least is None else {LEAST: least})
    context.state[names.RECORD] = ConfigRecord(kept)
