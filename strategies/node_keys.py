"""The keys of nodes that an operator has registered: what binds a client id to one node and no other."""

import hashlib

from flwr.serverapp import Grid


def registered_keys(grid: Grid) -> dict[int, str]:
    """Node id -> fingerprint of the node's public key, for the nodes that were registered under a name.

    A SuperNode without a key makes itself one at every start, which binds nothing; such nodes have no name.
    """
    return {node.node_id: hashlib.sha256(node.public_key).hexdigest()[:32] for node in grid.get_nodes() if node.name}
