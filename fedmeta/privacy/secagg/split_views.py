"""What a server can bare that tells each member another story, in a complete group.

Nobody compares what the members were told: whose shares arrived, who survived, who dropped. So an active server may
let a victim mask with few others, and ask for the mask keys of just these. No member gives both shares of a node, and
still the victim's masks are all known: its own seed, and its neighbours' keys.

What the server needs for this, and what members can give, is counted here. Let n be the members, c of them corrupt,
h = n - c honest, t the threshold. To bare the sum of s honest vectors, it needs the mask keys of the m other honest
nodes that these are masked with, where m + s + c >= t, as nobody masks with fewer. Each key takes t - c honest shares,
no two of one member, and none of the node's own, which calls itself a survivor. A member that holds r shares names t
survivors at least, and so gives r - t keys at most: r is n, but for the s it is m + s + c.
"""


def can_bare(count: int, threshold: int, corrupt: int, vectors: int = 1) -> bool:
    """Whether an active server may come by the sum of so few honest vectors; False is a proof that it cannot.

    Args:
        count: n, members of a group in which everybody is everybody's neighbour.
        threshold: t, shares that rebuild a secret and survivors that a member asks for.
        corrupt: c, members that the server is in league with, 0 <= c < n.
        vectors: s >= 1, honest ones in the sum.

    >>> can_bare(20, 11, 0), can_bare(20, 13, 0)
    (True, False)
    """
    honest, each = count - corrupt, threshold - corrupt
    for others in range(max(0, each - vectors), honest - vectors + 1):
        given = (
            others * min(count - threshold, max(0, others - 1))
            + (honest - vectors - others) * min(count - threshold, others)
            + vectors * min(others, max(0, others + vectors - each))
        )
        if given >= others * each:
            return True
    return False
