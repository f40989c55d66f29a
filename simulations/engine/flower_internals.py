"""Every touch of Flower's internals, in one place: making messages and runs outside Flower's own processes.

`tests/simulations/engine/test_flower_internals.py` says which of these broke when Flower changes.
"""

from typing import Any, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message.recorddict import _SyncedDict
from flwr.app.message.typeddict import TypedDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from strategies.message_ids import give_id

__all__ = [
    "TypedDict",
    "adopt_identity",
    "data_of",
    "empty_run",
    "error_reply",
    "give_id",
    "is_plain",
    "message_from",
    "view",
    "with_content",
]

RUN_ID = 1
SERVER_NODE_ID = 1
"""Flower's own id of the SuperLink; client nodes must not have it."""

Kind = TypeVar("Kind", ArrayRecord, ConfigRecord, MetricRecord)

NODE_UNAVAILABLE = 5
CLIENT_APP_CRASHED = 8
"""Flower's error codes (`flwr.common.constant.ErrorCode`)."""


def adopt_identity() -> None:
    """Let this process make messages, as Flower's own server process does; leaves an identity that is set alone."""
    if TaskIdentity._task_id is None:
        TaskIdentity.task_id = 1
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id = RUN_ID
    if TaskIdentity._node_id is None:
        TaskIdentity.node_id = SERVER_NODE_ID


def empty_run() -> Run:
    """The run that a local grid operates in."""
    return Run.create_empty(RUN_ID)


def message_from(metadata: Metadata, content: RecordDict) -> Message:
    """A message from its two halves, as it arrives at a client."""
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload]


def with_content(message: Message, content: RecordDict) -> Message:
    """The same message with other content; what is written to its metadata stays its own."""
    metadata = object.__new__(Metadata)
    metadata.__dict__.update(message.metadata.__dict__)
    changed = object.__new__(Message)
    changed.__dict__.update(message.__dict__, _content=content, _metadata=metadata)
    return changed


def error_reply(message: Message, code: int, reason: str) -> Message:
    """A reply that says why there is none."""
    return Message(Error(code, reason), reply_to=message)


def is_plain(app: ClientApp) -> bool:
    """Whether calling an app's handlers directly is all that calling the app does: no mods, no lifespan."""
    from flwr.clientapp.client_app import _empty_lifespan

    inner: Any = app
    return not inner._mods and inner._lifespan is _empty_lifespan and inner._call is None


def view(records: RecordDict, kind: type[Kind]) -> _SyncedDict[Kind]:
    """The records of a kind as RecordDict's own properties give them, but not checked again one by one.

    What is in the view was checked when the records were filled; writes to the view reach them, as in Flower's own.
    Unlike that it refers to itself nowhere, so that the records go when the last who reads them is done.
    """
    found: _SyncedDict[Kind] = object.__new__(_SyncedDict)
    fields = found.__dict__
    fields.update(_CHECKS[kind], recorddict=records, allowed_type=kind)
    # isinstance would ask an abstract base class, which takes as long as all the rest.
    fields["_data"] = {name: record for name, record in data_of(records).items() if kind in type(record).__mro__}
    return found


def _checks(kind: type[Kind]) -> dict[str, Any]:
    """What a view checks its keys and values with."""
    fields = _SyncedDict(RecordDict(), kind).__dict__
    return {name: fields[name] for name in ("_check_key_fn", "_check_value_fn")}


_CHECKS: dict[type, dict[str, Any]] = {
    ArrayRecord: _checks(ArrayRecord),
    ConfigRecord: _checks(ConfigRecord),
    MetricRecord: _checks(MetricRecord),
}


def data_of(record: TypedDict[str, Any]) -> dict[str, Any]:
    """What a record holds, past its checks; for what was checked before."""
    held: dict[str, Any] = record.__dict__["_data"]
    return held
