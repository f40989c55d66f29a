"""Grids around grids: what stands between any Flower strategy and its clients."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

if TYPE_CHECKING:  # Flower's internals, for types only; and torch, which checked grids of other apps do without
    from flwr.proto.node_pb2 import NodeInfo
    from flwr.supercore.run import Run
    from torch import Tensor


@runtime_checkable
class Remembering(Protocol):
    """A grid with a state that lasts over rounds, and so belongs into the checkpoint of a run."""

    def state(self) -> "dict[str, Tensor]":
        """What the next round depends on."""
        ...

    def load_state(self, state: "Mapping[str, Tensor]") -> None:
        """Continue from `state()`."""
        ...


class GridDecorator(Grid):
    """A Grid that passes everything on to another one; a subclass changes `send_and_receive`.

    Args:
        grid: the grid that carries the messages.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Passed on."""
        return self._grid.send_and_receive(messages, timeout=timeout)

    def set_run(self, run: "Run") -> None:
        """Passed on."""
        self._grid.set_run(run)

    @property
    def run(self) -> "Run":
        """Passed on."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Passed on."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Passed on."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable["NodeInfo"]:
        """Passed on."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Passed on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Passed on."""
        return self._grid.pull_messages(message_ids)


def round_of(message: Message, default: int) -> int:
    """The round that a message belongs to, as our strategy or Flower's say it; `default` where it does not say."""
    for record in message.content.config_records.values():
        for key in ("round", "server-round"):
            if key in record:
                return int(record[key])  # type: ignore[arg-type]
    return default
