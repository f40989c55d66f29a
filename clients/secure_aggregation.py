"""The client's side of secure aggregation: keys, shares, the masked update, and shares to unmask the sum of its group.

No module here loads torch: in a deployment every message starts a process of its own, and only training needs it. What
a client must remember between messages is in its Context, and the protocol's session drops each secret as soon as it
has served. Secrets come from the operating system, in a simulation too: they cancel out of every sum.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from clients.failures import describe
from clients.secagg_policy import node_identity, node_policy
from fedmeta.errors import FedmetaError
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.protected_vector import Layout
from fedmeta.privacy.secagg import ClientSession, FixedPoint, Refused, parse
from fedmeta.privacy.secagg.messages import KeysRequest, MaskRequest, SharesRequest, UnmaskRequest

SESSION, LAST = "session", "last-unmasked"
"""In the Context's record: the session, and the last one that helped to unmask, which holds no secret."""


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
        session = _session(context)
        try:
            return session.unmask(_request(message, UnmaskRequest)).to_bytes()
        finally:
            _store(context, session)

    return _answered(message, release)


def is_masked(message: Message) -> bool:
    """Whether a train message asks for a masked update."""
    return names.RECORD in message.content.config_records


def masked(
    message: Message,
    context: Context,
    update: npt.NDArray[np.floating[Any]],
    weight: float,
    metrics: Mapping[str, float],
    told: ConfigRecord,
    default_weight_bound: float,
    rounding: np.random.Generator,
) -> Message:
    """The reply to a train message with the update, its weight and the metrics under the mask.

    Args:
        message: asks for it.
        context: holds the session.
        update: `[D]`, the delta.
        weight: of the update.
        metrics: beside it.
        told: what goes in the clear: nothing that the data decide.
        default_weight_bound: W where the message names none.
        rounding: draws for the stochastic rounding; they protect nobody, and may come from the seed.
    """

    def mask() -> tuple[bytes, dict[str, Any]]:
        session = _session(context)
        try:
            settings = message.content.config_records[names.RECORD]
            layout = _layout(settings, len(update), default_weight_bound)
            encoder = FixedPoint(session.bits, layout.bound, int(settings[names.COUNT]))  # type: ignore[arg-type]
            vector = encoder.encode(layout.pack(update, weight, metrics), rounding)
            reply = session.mask(_request(message, MaskRequest), vector)
            facts = {
                names.METRIC_NAMES: json.dumps([] if layout.bare else sorted(metrics)),
                names.WEIGHT_BOUND: layout.weight_bound,
            }
            return reply.to_bytes(), facts
        except BaseException:
            session.forget()
            raise
        finally:
            _store(context, session)

    try:
        data, facts = mask()
    except (FedmetaError, ValueError, LookupError, TypeError) as error:
        return refusal(message, context, error)
    content = RecordDict(
        {
            names.MASKED: ArrayRecord({names.BYTES: Array(np.frombuffer(data, np.uint8))}),
            names.RECORD: ConfigRecord(facts),
            "config": told,
        }
    )
    return Message(content, reply_to=message)


def has_failed(reply: Message) -> bool:
    """Whether a reply brings no update, in either way of saying so."""
    return reply.has_error() or names.REFUSED in reply.content.config_records.get(names.RECORD, {})


def refusal(message: Message, context: Context, error: BaseException) -> Message:
    """Why there is no masked update, as content, so that the Context without its secrets is kept."""
    forget(context)
    return _refused(message, error)


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


def _layout(settings: ConfigRecord, size: int, default_weight_bound: float) -> Layout:
    return Layout(
        size=size,
        bound=float(settings[names.BOUND]),  # type: ignore[arg-type]
        metric_bound=float(settings[names.METRIC_BOUND]),  # type: ignore[arg-type]
        weight_bound=float(settings.get(names.WEIGHT_BOUND, default_weight_bound)),  # type: ignore[arg-type]
        weighted=bool(settings[names.WEIGHTED]),
    )


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


def _store(context: Context, session: ClientSession) -> None:
    data = session.to_bytes()
    last = {LAST: data} if session.released else {key: value for key, value in _stored(context).items() if key == LAST}
    context.state[names.RECORD] = ConfigRecord({SESSION: data, **last})
