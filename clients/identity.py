"""Who this client is."""

from flwr.app import Context, Message, RecordDict

from clients.request import client_id, workload_of
from fedmeta.code_hash import code_hash, code_path
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.seeding import numpy_generator
from fedmeta.wire import CONFIG, config_record
from fedmeta.workload import Workload


def answer(message: Message, context: Context) -> Message:
    """Reply with client id, name, role, the number of clients that the partition makes, and the hash of our code.

    Raises:
        ConfigurationError: the node's partition id is beyond the partition.
    """
    workload, _ = workload_of(message)
    clients = workload.federation.clients
    client = client_id(context)
    # A node beyond the partition still answers, so that the server can say how many nodes there should be.
    known = client < len(clients)
    if client < 0:
        raise ConfigurationError(f"partition-id = {client} is negative")
    facts = {
        "client": client,
        "name": clients[client].name if known else "none",
        "role": clients[client].role if known else "none",
        "expected-clients": len(clients),
        "unfit": unfit(workload, client) if known else "",
        "code-hash": code_hash(),
        "code-path": code_path(),
    }
    return Message(RecordDict({CONFIG: config_record(facts)}), reply_to=message)


def unfit(workload: Workload, client: int) -> str:
    """Why this client's data cannot give the tasks that the experiment asks of it; empty where they can."""
    role = workload.federation.clients[client].role
    shape = workload.training_shape if role == "train" else workload.evaluation_shape
    try:
        workload.source(client).sample(shape, numpy_generator(0, 0, client, "fitness"))
    except DataError as error:
        return str(error)
    return ""
