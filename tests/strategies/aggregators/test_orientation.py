"""Higher is more suspicious, for every rule that scores: a gross attack ranks the attackers first."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from fedmeta.detection.ranking import auroc
from strategies.aggregation import Aggregate, Aggregator, RoundContext

SILENT = {"mean", "median", "trimmed_mean", "rlr"}
"""Rules that give no scores."""

BAD = torch.arange(12) < 2
"""Of twelve clients the first two."""


def sign_flip(rows: torch.Tensor) -> torch.Tensor:
    """Ten times the reverse of their own update."""
    return torch.where(BAD[:, None], -10.0 * rows, rows)


def one_goal(rows: torch.Tensor) -> torch.Tensor:
    """Sybils: the same row twice, among honest clients that differ."""
    draws = torch.Generator().manual_seed(3)
    different = torch.randn(rows.shape, generator=draws, dtype=rows.dtype)
    return torch.where(BAD[:, None], different[:1] * 3, different)


def one_label(rows: torch.Tensor) -> torch.Tensor:
    """Head updates (4 outputs of 7 inputs, and biases, after 8 others) on one output only."""
    mask = torch.zeros(rows.shape[1], dtype=torch.bool)
    mask[:15] = mask[36] = True
    return torch.where(BAD[:, None], 5.0 * rows * mask, rows)


ATTACKS = {"foolsgold": one_goal, "deepsight": one_label}


@pytest.mark.parametrize("seed", range(3))
def test_scores_rise_with_suspicion(
    name: str,
    rule: Aggregator,
    seed: int,
    honest: Callable[..., torch.Tensor],
    context: Callable[..., RoundContext],
) -> None:
    """FLDetector compares with a client's own last update, so it sees honest rounds first."""
    told, found = context(), Aggregate(torch.zeros(1))
    if name == "alignins":  # the model that honest updates carry on
        told = dataclasses.replace(told, model=torch.linspace(1.0, 2.0, 40, dtype=torch.float64))
    for round in range(4):
        rows = honest(seed=10 * seed + round)
        if round == 3 or name == "foolsgold":
            rows = ATTACKS.get(name, sign_flip)(rows)
        found = rule(rows, told)
        told = dataclasses.replace(told, state=found.state)
    if name in SILENT:
        assert found.scores is None
        return
    assert found.scores is not None
    assert auroc(found.scores.tolist(), BAD.tolist()) == 1.0
    if found.flagged is not None and name != "fldetector":  # which has judged too few rounds to accuse
        assert found.flagged[BAD].all()
