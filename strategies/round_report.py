"""What is told of a training round: who took part, what failed, and means over clients."""

from dataclasses import dataclass, field
from typing import Any

from strategies.replies import Update

RELEASED = "too few clients gave a valid update: the noised release was made all the same, and counts"
"""Of a failed round without an event."""


@dataclass(frozen=True)
class RoundReport:
    """What happened in one training round.

    Attributes:
        round: counted from 1.
        sampled: ids of the clients that were asked.
        metrics: means over the accepted clients, and facts of the aggregation.
        failed, refused: client id -> reason.
        defence: what the aggregation says of clients: `flagged` (ids; None for a rule that accuses nobody), `scores`
            and `weights` (by id), `diagnostics`; empty where nothing was aggregated.
        attackers: ids of the sampled clients that attack in this round; None where the experiment has no attack.
        groups: under secure aggregation the sums that the server learnt: `clients` (ids) and `clipped` (share) of each.
        idle: client id -> why its attack could not act, so that it sent an honest update.
        event: why the model stayed as it was, or None when it was aggregated.
        failed_round: whether valid updates were wanting, or the server's step diverged: a run with such a round did
            not go well. The model stayed as it was, for the reason in `event`; only under central noise is it released
            all the same where updates are wanting (`RELEASED`), since the accounting counts it.
    """

    round: int
    sampled: tuple[int, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    event: str | None = None
    failed_round: bool = False
    defence: dict[str, Any] = field(default_factory=dict)
    attackers: tuple[int, ...] | None = None
    idle: dict[int, str] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)


def mean_norm(updates: list[Update]) -> float:
    """The mean length of the updates."""
    return sum(update.norm for update in updates) / max(len(updates), 1)


def client_metrics(updates: list[Update]) -> dict[str, float]:
    """The mean of every metric over the clients that tell it, where a group tells that of all its clients."""
    keys = sorted({key for update in updates for key in update.metrics})
    telling = {key: [update for update in updates if key in update.metrics] for key in keys}
    return {
        key: sum(update.metrics[key] * len(update.clients) for update in told)
        / sum(len(update.clients) for update in told)
        for key, told in telling.items()
    }
