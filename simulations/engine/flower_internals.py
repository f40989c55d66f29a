"""Every touch of Flower's internals, in one place: making messages and runs outside Flower's own processes.

`tests/simulations/engine/test_flower_internals.py` says which of these broke when Flower changes.
"""

from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from strategies.message_ids import give_id

__all__ = ["adopt_identity", "empty_run", "error_reply", "give_id", "is_plain", "message_from"]

RUN_ID = 1
SERVER_NODE_ID = 1
"""Flower's own id of the SuperLink; client nodes must not have it."""

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


def error_reply(message: Message, code: int, reason: str) -> Message:
    """A reply that says why there is none."""
    return Message(Error(code, reason), reply_to=message)


def is_plain(app: ClientApp) -> bool:
    """Whether calling an app's handlers directly is all that calling the app does: no mods, no lifespan."""
    from flwr.clientapp.client_app import _empty_lifespan

    inner: Any = app
    return not inner._mods and inner._lifespan is _empty_lifespan and inner._call is None
