"""Who this client is."""

from flwr.app import Context, Message, RecordDict

from clients.node import client_id
from clients.request import workload_of
from fedmeta.attacks.threat import is_attacked
from fedmeta.code_hash import code_hash, code_path
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.seeding import numpy_generator
from fedmeta.wire import CONFIG, config_record
from fedmeta.workload import Workload

OWN_DATA = 0
"""The number of clients that a node with data of its own expects: it belongs to no division."""


def answer(message: Message, context: Context) -> Message:
    """Reply with client id, name, role, what its data cannot train, how many clients there are, and our code's hash.

    Raises:
        ConfigurationError: the node's configuration cannot be, or its partition id is beyond the partition.
        DataError: the experiment's data set, of which the node takes a share, cannot be read.
    """
    workload, _ = workload_of(message, context)
    facts = _own_data(workload) if workload.node is not None else _share(workload, client_id(context))
    facts |= {"code-hash": code_hash(), "code-path": code_path()}
    return Message(RecordDict({CONFIG: config_record(facts)}), reply_to=message)


def _share(workload: Workload, client: int) -> dict[str, object]:
    """Facts of a client with a share of the experiment's data set."""
    clients = workload.federation.clients
    # A node beyond the partition still answers, so that the server can say how many nodes there should be.
    known = client < len(clients)
    if client < 0:
        raise ConfigurationError(f"partition-id = {client} is negative")
    return {
        "client": client,
        "name": clients[client].name if known else "none",
        "role": clients[client].role if known else "none",
        "lacks": list(clients[client].lacks) if known else [],
        "expected-clients": len(clients),
        "unfit": unfit(workload, client) if known else "",
    }


def _own_data(workload: Workload) -> dict[str, object]:
    """Facts of a client with data of its own; data that cannot serve are said, and cost the run this client alone."""
    assert workload.node is not None
    info = workload.node.info
    why = unfit(workload, info.id)
    if is_attacked(workload.experiment):
        name = workload.experiment.attack.method.name
        why = f"attack.method = '{name}': a node with data of its own attacks nobody. Simulate attacks"
    return {
        "client": info.id,
        "name": info.name,
        "role": info.role,
        "lacks": list(info.lacks),
        "expected-clients": OWN_DATA,
        "unfit": why,
    }


def unfit(workload: Workload, client: int) -> str:
    """Why this client's data cannot give the tasks that the experiment asks of it; empty where they can."""
    node = workload.node
    shape = workload.training_shape if workload.info(client).role == "train" else workload.evaluation_shape
    try:
        source = workload.source(client)
    except DataError as error:
        if node is None:
            raise
        return str(error)
    try:
        source.sample(shape, numpy_generator(0, 0, client, "fitness"))
    except DataError as error:
        return str(error) if node is None else f"data-path = '{node.path}': {error}"
    return ""
