"""Why clients gave nothing, in few lines; loads neither torch nor Flower."""

from collections import Counter
from collections.abc import Mapping


def group_reasons(reasons: Mapping[int, str]) -> list[str]:
    """One line for alike failures, naming how many and which clients.

    >>> group_reasons({3: "ValueError: a", 5: "ValueError: a", 7: "KeyError: b"})
    ['2 clients (3, 5): ValueError: a', '1 client (7): KeyError: b']
    """
    lines = []
    for reason, count in Counter(reasons.values()).most_common():
        clients = [str(client) for client, why in reasons.items() if why == reason]
        shown = ", ".join(clients[:5]) + (", ..." if count > 5 else "")
        lines.append(f"{count} client{'s' if count > 1 else ''} ({shown}): {reason}")
    return lines
