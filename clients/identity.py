"""Who this client is."""

from flwr.app import Context, Message, RecordDict

from clients.request import client_id, workload_of
from fedmeta.code_hash import code_hash, code_path
from fedmeta.errors import ConfigurationError
from fedmeta.wire import CONFIG, config_record


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
        "code-hash": code_hash(),
        "code-path": code_path(),
    }
    return Message(RecordDict({CONFIG: config_record(facts)}), reply_to=message)
