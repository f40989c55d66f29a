"""The contract of an aggregator: a pure function of the round's update matrix."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class RoundContext:
    """What an aggregator may know beside the updates.

    Attributes:
        round: counted from 1; 0 outside a run.
        clients: ids of the clients, in the order of the rows; empty where unknown.
        weights: `[n]` non-negative weights of the rows; None for equal ones.
    """

    round: int = 0
    clients: tuple[int, ...] = ()
    weights: Tensor | None = None


@dataclass(frozen=True)
class Aggregate:
    """What an aggregator returns.

    Attributes:
        vector: `[D]`, the aggregated delta.
        weights: `[n]`, the share of each row in it, or None where rows have none.
        scores: `[n]`, how suspicious each row is (higher is more), or None.
        flagged: `[n]` bool, rows left out as malicious, or None.
        diagnostics: scalars for the metrics.
    """

    vector: Tensor
    weights: Tensor | None = None
    scores: Tensor | None = None
    flagged: Tensor | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


class Aggregator(Protocol):
    """A rule: updates `[n, D]`, n >= 1, finite, never modified."""

    def __call__(self, updates: Tensor, context: RoundContext = ...) -> Aggregate:
        """Aggregate the rows."""
        ...
