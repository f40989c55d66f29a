"""A node's own data: what its configuration says of them, and the source of tasks that they become.

A folder of class folders of images, or an .npz with `x` and `y`. A server neither sends nor learns the place.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from fedmeta.data.base import ClientInfo, ClientRole, TaskSource
from fedmeta.data.episodes import ClassSource
from fedmeta.data.node_files import read_examples
from fedmeta.errors import ConfigurationError, DataError, did_you_mean

DATA_PATH, PARTITION, CLIENT_ID, NAME, ROLE = "data-path", "partition-id", "client-id", "name", "role"
"""Keys of a node's configuration."""

FIRST_NAMED = 1_000_000
"""Ids that follow from a name lie from here to 2^31, beyond those of any partition."""

LAST_ID = 2**31 - 1


@dataclass(frozen=True)
class NodeData:
    """A node that holds data of its own.

    Attributes:
        path: of the folder or file.
        client: the stable client id.
        name: readable; with the role it decides the frozen episodes.
        role: what the client serves for.
    """

    path: str
    client: int
    name: str
    role: ClientRole

    @property
    def info(self) -> ClientInfo:
        """The client as a federation knows it."""
        return ClientInfo(self.client, self.name, self.role)


@dataclass(frozen=True)
class NodeFederation:
    """The federation as a node with data of its own sees it: itself."""

    info: ClientInfo
    own: ClassSource

    @property
    def clients(self) -> Sequence[ClientInfo]:
        """The node's client alone; its id is no index into this."""
        return (self.info,)

    def source(self, client: int) -> TaskSource:
        """The node's own tasks.

        Raises:
            DataError: of another client.
        """
        if client != self.info.id:
            raise DataError(
                f"this node has its own data alone, those of client {self.info.id}: it knows nothing of {client}"
            )
        return self.own


def node_data(config: Mapping[str, Any]) -> NodeData | None:
    """The node's own data by its configuration; None where it takes a share of the experiment's data set.

    Args:
        config: of the node: `data-path` with `name` or `client-id` or both, and perhaps `role`; or `partition-id`.

    Raises:
        ConfigurationError: a data-path without name and id, or a value out of bounds.
    """
    if DATA_PATH not in config or PARTITION in config:
        return None
    path, name, client = str(config[DATA_PATH]), config.get(NAME), config.get(CLIENT_ID)
    if name is None and client is None:
        raise ConfigurationError(
            f"the node's data-path = '{path}' comes without a name: who a client is must not change with the run. "
            'Start the node with --node-config \'data-path="..." name="hospital-north"\''
        )
    if name is not None and not str(name).strip():
        raise ConfigurationError("the node's name is empty: give it one, or leave it out beside client-id")
    if client is not None and (not isinstance(client, int) or isinstance(client, bool) or not 0 <= client <= LAST_ID):
        raise ConfigurationError(f"the node's client-id = {client!r} must be an integer from 0 to {LAST_ID}")
    role = str(config.get(ROLE, "train"))
    if role not in get_args(ClientRole):
        raise ConfigurationError(
            f"the node's role = '{role}' is unknown{did_you_mean(role, list(get_args(ClientRole)))}"
        )
    return NodeData(
        path=path,
        client=id_of(str(name)) if client is None else client,
        name=f"client {client}" if name is None else str(name),
        role=role,  # type: ignore[arg-type]
    )


def id_of(name: str) -> int:
    """The client id that follows from a name, the same on every machine.

    >>> id_of("hospital-north") == id_of("hospital-north"), id_of("hospital-north") == id_of("hospital-south")
    (True, False)
    """
    digest = hashlib.sha256(f"client|{name}".encode()).digest()
    return FIRST_NAMED + int.from_bytes(digest[:8], "little") % (LAST_ID + 1 - FIRST_NAMED)


def node_federation(
    node: NodeData, input_shape: Sequence[int], *, shared: int | None, min_examples: int, min_classes: int
) -> NodeFederation:
    """Read a node's data as the federation of this one client.

    Args:
        node: where the data are, and who has them.
        input_shape: of one input, as the experiment's data set declares it.
        shared: the number of classes where all clients share them, which then must be told by number; None where each
            client has classes of its own.
        min_examples: classes with fewer are dropped, as in a partition.
        min_classes: fewer classes are refused.

    Raises:
        DataError: names the node, the key and what to do: a path with nothing to read, damaged files, another shape,
            classes that are not the experiment's, too few of them.
    """
    try:
        found = read_examples(node.path, tuple(input_shape))
        if shared is not None:
            found.check_shared(shared)
        rows = {c: rows for c, rows in found.rows.items() if len(rows) >= min_examples}
        if len(rows) < max(1, min_classes):
            raise DataError(
                f"{len(rows)} of {len(found.rows)} classes have partition.min_examples = {min_examples} examples, and "
                f"partition.min_classes = {max(1, min_classes)} are needed: add examples, or lower these"
            )
    except DataError as error:
        raise DataError(f"node {node.name}, data-path = '{node.path}': {error}") from error
    return NodeFederation(node.info, ClassSource(node.name, found.examples, rows))
