"""What the server sends in each exchange after the first, from what it received in those before. Pure functions."""

from collections.abc import Mapping

from fedmeta.privacy.secagg.messages import (
    MaskRequest,
    PublicKeys,
    Request,
    SharesReply,
    SharesRequest,
    UnmaskReply,
    UnmaskRequest,
)

Graph = Mapping[int, tuple[int, ...]]
"""Node -> its neighbours, ascending."""


def shares_requests(tag: bytes, graph: Graph, keys: Mapping[int, PublicKeys]) -> dict[int, Request]:
    """Each node gets its neighbours' public keys."""
    return {node: SharesRequest(tag, {peer: keys[peer] for peer in peers}) for node, peers in graph.items()}


def mask_requests(tag: bytes, graph: Graph, holders: Graph, replies: Mapping[int, SharesReply]) -> dict[int, Request]:
    """Each node gets what its neighbours sealed for it.

    Args:
        graph: those who go on.
        holders: node -> who was to get its shares, itself included; its reply seals for them in this order.
        replies: the sealed shares.
    """
    sealed = {
        node: dict(zip((holder for holder in holders[node] if holder != node), replies[node].sealed, strict=True))
        for node in graph
    }
    return {node: MaskRequest(tag, {peer: sealed[peer][node] for peer in peers}) for node, peers in graph.items()}


def unmask_requests(tag: bytes, graph: Graph, survivors: set[int]) -> dict[int, Request]:
    """Each survivor learns which of its neighbours, itself included, survived and which did not."""
    requests: dict[int, Request] = {}
    for node in survivors:
        around = sorted((node, *graph[node]))
        here = tuple(peer for peer in around if peer in survivors)
        gone = tuple(peer for peer in around if peer not in survivors)
        requests[node] = UnmaskRequest(tag, here, gone)
    return requests


def returned_shares(
    requests: Mapping[int, Request], replies: Mapping[int, UnmaskReply], holders: Graph
) -> dict[int, dict[int, bytes]]:
    """Owner of a secret -> (number of the share, from 1 -> share), from what the survivors returned."""
    found: dict[int, dict[int, bytes]] = {owner: {} for owner in holders}
    for node, reply in replies.items():
        request = requests[node]
        assert isinstance(request, UnmaskRequest)
        for owner, share in zip((*request.survivors, *request.dropped), reply.shares, strict=True):
            found[owner][holders[owner].index(node) + 1] = share
    return found
