"""Who the clients are: stable client ids learnt from Flower's random node ids by one exchange."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedmeta.errors import FedmetaError
from fedmeta.wire import CONFIG, MalformedRecord, config_record, only
from strategies.reasons import group_reasons

QUERY_IDENTITY = "query.identity"
IDENTITY: dict[str, type] = {
    "client": int,
    "name": str,
    "role": str,
    "lacks": list,
    "expected-clients": int,
    "unfit": str,
    "code-hash": str,
    "code-path": str,
}
"""What a client answers, by type."""


class IdentityError(FedmetaError):
    """Clients that cannot take part, named by node id."""


@dataclass(frozen=True)
class Member:
    """One client as the server knows it.

    Attributes:
        client: its id.
        node: its Flower node.
        name, role: as it says.
        own_data: whether it holds data of its own, and is no share of a division.
        lacks: patterns of the parameters that its data cannot train, as it says.
    """

    client: int
    node: int
    name: str
    role: str
    own_data: bool = False
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Directory:
    """The clients of a run, by ascending client id."""

    members: tuple[Member, ...]

    def role(self, *roles: str) -> list[Member]:
        """The members of the given roles."""
        return [member for member in self.members if member.role in roles]

    def without(self, nodes: Container[int]) -> "Directory":
        """The directory without the members of some nodes."""
        return Directory(tuple(member for member in self.members if member.node not in nodes))

    def nodes(self, clients: Iterable[int]) -> dict[int, int]:
        """Node id -> client id of the given clients."""
        wanted = set(clients)
        return {member.node: member.client for member in self.members if member.client in wanted}


def learn_directory(
    grid: Grid,
    experiment_json: str,
    code_hash: str,
    code_path: str,
    timeout: float,
    keys: Mapping[int, str] = MappingProxyType({}),
    bound: Mapping[int, str] = MappingProxyType({}),
) -> tuple[Directory, dict[int, str]]:
    """Ask every node once who it is.

    Args:
        grid: any Flower grid.
        experiment_json: the resolved experiment: a client's role follows from its partition.
        code_hash, code_path: of the server's own library and client code.
        timeout: longest wait in seconds.
        keys: node id -> fingerprint of its key, see `registered_keys`.
        bound: client id -> the key to which it belongs, from before; a claim by another is refused.

    Returns:
        The directory, and node id -> reason for every node that cannot take part.

    Raises:
        IdentityError: the experiment makes another number of clients than there are nodes, asks for tasks that a
            client's data cannot give, or no node can take part (for example because all run other code).
    """
    nodes = sorted(grid.get_node_ids())
    content = RecordDict({CONFIG: config_record({"experiment": experiment_json})})
    messages = [Message(content=content, dst_node_id=node, message_type=QUERY_IDENTITY) for node in nodes]
    answers = by_message(messages, grid.send_and_receive(messages, timeout=timeout))
    members: dict[int, Member] = {}
    refused: dict[int, str] = {}
    for message in messages:
        node = message.metadata.dst_node_id
        try:
            facts = _read_identity(answers.get(message.metadata.message_id))
        except MalformedRecord as error:
            refused[node] = str(error)
            continue
        found = _member(node, facts)
        why = _why_cannot_serve(facts, len(nodes), code_hash, code_path) or _why_not_its_id(found, keys, bound, members)
        if why is not None:
            refused[node] = why
        else:
            members[found.client] = found
    if not members:
        raise IdentityError(f"none of {len(nodes)} nodes can take part: {'; '.join(group_reasons(refused))}")
    return Directory(tuple(members[client] for client in sorted(members))), refused


def by_message(messages: Iterable[Message], replies: Iterable[Message]) -> dict[str, Message]:
    """Message id -> the first reply to it.

    Never by who seems to have sent a reply: an undeliverable one bears the server's own node id.
    """
    asked = {message.metadata.message_id for message in messages}
    found: dict[str, Message] = {}
    for reply in replies:
        answered = reply.metadata.reply_to_message_id
        if answered in asked:
            found.setdefault(answered, reply)
    return found


def why_failed(reply: Message | None) -> str:
    """Why there is no content to read, in words; empty where there is some."""
    if reply is None:
        return "no reply within the time limit"
    return (reply.error.reason or f"error code {reply.error.code}").strip() if reply.has_error() else ""


def _read_identity(reply: Message | None) -> dict[str, Any]:
    failure = why_failed(reply)
    if reply is None or failure:
        raise MalformedRecord(failure)
    facts = dict(only(reply.content, "config"))
    missing = [key for key in IDENTITY if not isinstance(facts.get(key), IDENTITY[key])]
    if missing:
        raise MalformedRecord(f"its answer lacks {', '.join(missing)}: another version of the client's code?")
    return facts


def _member(node: int, facts: Mapping[str, Any]) -> Member:
    return Member(
        int(facts["client"]),
        node,
        str(facts["name"]),
        str(facts["role"]),
        own_data=not facts["expected-clients"],
        lacks=tuple(map(str, facts["lacks"])),
    )


def _why_cannot_serve(facts: Mapping[str, Any], nodes: int, code_hash: str, code_path: str) -> str | None:
    """Why a node cannot serve the experiment; None where it can.

    Raises:
        IdentityError: none could, since the experiment as a whole does not fit.
    """
    if facts["code-hash"] != code_hash:
        return _other_code(str(facts["code-hash"]), str(facts["code-path"]), code_hash, code_path)
    unfit = f"client {facts['client']} ({facts['name']}) cannot serve this experiment: {facts['unfit']}"
    if not facts["expected-clients"]:
        # Its own data belong to no division. Where they do not fit, that is its owner's to mend, and no reason to keep
        # the others waiting.
        return unfit if facts["unfit"] else None
    _check_count(facts["expected-clients"], nodes)
    if facts["unfit"]:
        raise IdentityError(unfit)
    return None


def _why_not_its_id(
    claims: Member, keys: Mapping[int, str], bound: Mapping[int, str], members: Mapping[int, Member]
) -> str | None:
    """Why the id that a node claims belongs to another; None where it is its own."""
    client, key = claims.client, keys.get(claims.node)
    if bound.get(client, key) != key:
        return _other_key(client, key, bound[client])
    if client in members:
        return f"claims client id {client}, which node {members[client].node} already has"
    return None


def _other_code(theirs: str, their_path: str, ours: str, our_path: str) -> str:
    return (
        f"runs other code ({theirs[:12]} at {their_path}) than the server ({ours[:12]} at {our_path}). "
        "Stop the SuperLink or SuperNode that was started with the other checkout, or install the same version on both"
    )


def _other_key(client: int, key: str | None, owner: str) -> str:
    own = "and it has no registered key" if key is None else f"and not to its own, {key[:12]}"
    return (
        f"claims client id {client}, which belongs to the node key {owner[:12]} {own}. Mend its configuration; where "
        "the client has a new key, take the id out of node-keys.json in the run directory"
    )


def _check_count(expected: int, nodes: int) -> None:
    if expected != nodes:
        raise IdentityError(
            f"the experiment divides its data among {expected} clients but {nodes} nodes are there. With `flwr run` "
            f"pass --federation-config 'num-supernodes={expected} client-resources-num-cpus=1'; or change the partition"
        )
