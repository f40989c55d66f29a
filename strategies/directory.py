"""Who the clients are: stable client ids learnt from Flower's random node ids by one exchange."""

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedmeta.errors import FedmetaError
from fedmeta.wire import CONFIG, MalformedRecord, config_record, only
from strategies.replies import group_reasons

QUERY_IDENTITY = "query.identity"


class IdentityError(FedmetaError):
    """Clients that cannot take part, named by node id."""


@dataclass(frozen=True)
class Member:
    """One client as the server knows it: its id, its Flower node, its name and role."""

    client: int
    node: int
    name: str
    role: str


@dataclass(frozen=True)
class Directory:
    """The clients of a run, by ascending client id."""

    members: tuple[Member, ...]

    def role(self, *roles: str) -> list[Member]:
        """The members of the given roles."""
        return [member for member in self.members if member.role in roles]

    def nodes(self, clients: Iterable[int]) -> dict[int, int]:
        """Node id -> client id of the given clients."""
        wanted = set(clients)
        return {member.node: member.client for member in self.members if member.client in wanted}


def learn_directory(
    grid: Grid, experiment_json: str, code_hash: str, code_path: str, timeout: float
) -> tuple[Directory, dict[int, str]]:
    """Ask every node once who it is.

    Args:
        grid: any Flower grid.
        experiment_json: the resolved experiment: a client's role follows from its partition.
        code_hash, code_path: of the server's own library and client code.
        timeout: longest wait in seconds.

    Returns:
        The directory, and node id -> reason for every node that cannot take part.

    Raises:
        IdentityError: the experiment makes another number of clients than there are nodes, asks for tasks that a
            client's data cannot give, or no node can take part (for example because all run other code).
    """
    nodes = sorted(grid.get_node_ids())
    content = RecordDict({CONFIG: config_record({"experiment": experiment_json})})
    messages = [Message(content=content, dst_node_id=node, message_type=QUERY_IDENTITY) for node in nodes]
    members: dict[int, Member] = {}
    refused: dict[int, str] = {}
    for reply in sorted(
        grid.send_and_receive(messages, timeout=timeout), key=lambda message: message.metadata.src_node_id
    ):
        node = reply.metadata.src_node_id
        if reply.has_error():
            refused[node] = (reply.error.reason or f"error code {reply.error.code}").strip()
            continue
        try:
            answer = only(reply.content, "config")
        except MalformedRecord as error:
            refused[node] = str(error)
            continue
        if answer["code-hash"] != code_hash:
            refused[node] = _other_code(str(answer["code-hash"]), str(answer["code-path"]), code_hash, code_path)
            continue
        _check_count(int(answer["expected-clients"]), len(nodes))
        if answer["unfit"]:
            raise IdentityError(
                f"client {answer['client']} ({answer['name']}) cannot serve this experiment: {answer['unfit']}"
            )
        client = int(answer["client"])
        if client in members:
            refused[node] = f"claims client id {client}, which node {members[client].node} already has"
            continue
        members[client] = Member(client, node, str(answer["name"]), str(answer["role"]))
    if not members:
        raise IdentityError(
            f"none of {len(nodes)} nodes can take part: {'; '.join(group_reasons(refused)) or 'no answer in time'}"
        )
    return Directory(tuple(members[client] for client in sorted(members))), refused


def _other_code(theirs: str, their_path: str, ours: str, our_path: str) -> str:
    return (
        f"runs other code ({theirs[:12]} at {their_path}) than the server ({ours[:12]} at {our_path}). "
        "Stop the SuperLink or SuperNode that was started with the other checkout, or install the same version on both"
    )


def _check_count(expected: int, nodes: int) -> None:
    # A client with data of its own belongs to no division, so it expects no number.
    if expected not in (0, nodes):
        raise IdentityError(
            f"the experiment divides its data among {expected} clients but {nodes} nodes are there. With `flwr run` "
            f"pass --federation-config 'num-supernodes={expected} client-resources-num-cpus=1'; or change the partition"
        )
