"""What the benchmark of the aggregators says of a rule's memory."""

import pytest
import torch
from torch import Tensor

from simulations.benchmarks import aggregation
from simulations.benchmarks.aggregation import measure, peak_bytes
from strategies.aggregation import RoundContext

MEGABYTE = 2**20


def test_what_only_the_first_call_makes_is_not_a_rules_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with scikit-learn, which a rule imports when it is first called."""
    kept: list[Tensor] = []

    def rule(updates: Tensor, context: RoundContext) -> Tensor:
        if not kept:
            kept.append(torch.ones(64 * MEGABYTE))
        return updates

    monkeypatch.setattr(aggregation, "ours", lambda n: {"lazy": rule})
    monkeypatch.setattr(aggregation, "theirs", lambda n: {})
    (row,) = measure(4, MEGABYTE, repeats=1)
    assert row["rule"] == "lazy" and row["memory"] < 2, "multiples of 16 MB"


def test_memory_that_was_freed_before_counts_again() -> None:
    """Small pieces below one that stays, which the allocator does not hand back to the system by itself."""
    kept: list[Tensor] = []

    def call() -> None:
        pieces = [torch.ones(2**14) for _ in range(1024)]
        kept.append(pieces[-1])

    found = [peak_bytes(call) / MEGABYTE for _ in range(3)]
    assert min(found) > 32, f"MB of 64: {found}"
