"""Shapley values by enumeration at six players, truncated Monte Carlo beside them, and scores shared among layers."""

import itertools

import numpy as np
import pytest
import torch

from fedmeta.explain.directions import direction_map
from fedmeta.explain.saliency import explain_query, integrated_gradients
from fedmeta.explain.score_shares import score_shares
from fedmeta.explain.worth import exact_shapley, leave_one_out, shapley, truncated_shapley
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.tasks import Batch
from strategies import make_aggregator

WEIGHTS = (4.0, 3.0, 2.0, 1.0, 0.0, -2.0)


def majority(coalition: frozenset[int]) -> float:
    """A vote with diminishing returns: no sum of single worths."""
    return float(np.tanh(sum(WEIGHTS[player] for player in coalition) / 4)) + 0.3 * ({0, 5} <= coalition)


def test_enumeration_is_the_mean_over_all_720_orders() -> None:
    sums = np.zeros(6)
    for order in itertools.permutations(range(6)):
        for place, player in enumerate(order):
            sums[player] += majority(frozenset(order[: place + 1])) - majority(frozenset(order[:place]))
    found = exact_shapley(6, majority)
    np.testing.assert_allclose(found.values, sums / 720, atol=1e-12)
    assert found.values.sum() == pytest.approx(majority(frozenset(range(6))) - majority(frozenset()))
    assert found.values[4] == pytest.approx(0), "a player who adds nothing is worth nothing"


def test_truncated_monte_carlo_comes_to_the_enumeration() -> None:
    exact = exact_shapley(6, majority).values
    found = truncated_shapley(6, majority, 2000, np.random.default_rng(0), tolerance=0.0)
    assert (np.abs(found.values - exact) < 4 * found.errors + 1e-9).all() and found.truncated == 0
    asked: list[frozenset[int]] = []

    def seen(coalition: frozenset[int]) -> float:
        asked.append(coalition)
        return majority(coalition)

    cut = truncated_shapley(6, seen, 300, np.random.default_rng(0), tolerance=0.2)
    whole = majority(frozenset(range(6)))
    assert 0.1 < cut.truncated < 1 and len(asked) == len(set(asked)), "no coalition is valued twice"
    assert np.abs(cut.values - exact).max() < 0.2 * whole + 4 * found.errors.max()
    assert shapley(6, majority, 11, np.random.default_rng(0)).permutations == 0, "64 coalitions: 11 orders are more"
    assert shapley(6, majority, 10, np.random.default_rng(0)).permutations == 10


def test_of_a_sum_all_values_are_the_summands() -> None:
    def total(coalition: frozenset[int]) -> float:
        return sum(WEIGHTS[player] for player in coalition)

    for found in (leave_one_out(6, total), exact_shapley(6, total).values):
        np.testing.assert_allclose(found, WEIGHTS)
    assert truncated_shapley(1, total, 3, np.random.default_rng(0)).values.tolist() == [4.0]


def test_a_score_that_is_a_sum_over_layers_is_shared_by_its_summands() -> None:
    updates = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers = {"a": torch.tensor([0, 3]), "b": torch.tensor([1]), "c": torch.tensor([2, 4, 5])}
    zero = torch.zeros(6, dtype=torch.float64)
    found = score_shares(updates, 2, layers, lambda rows: rows.square().sum(dim=1), reference=zero)
    for layer, columns in layers.items():
        assert found.layers[layer] == pytest.approx(float(updates[2, columns].square().sum()))
    assert found.ordinary == 0 and sum(found.shares.values()) == pytest.approx(1)


def test_krum_accuses_the_layer_that_was_changed() -> None:
    updates = torch.randn(8, 30, generator=torch.Generator().manual_seed(0)) * 0.1
    updates[3, 10:20] += 5.0
    layers = {name: torch.arange(start, start + 10) for name, start in (("first", 0), ("second", 10), ("third", 20))}
    rule = make_aggregator("multi_krum", f=2)
    found = score_shares(updates, 3, layers, lambda rows: rule(rows).scores)
    assert found.score == pytest.approx(float(rule(updates).scores[3])) and found.score > 10 * found.ordinary
    assert found.shares["second"] > 0.95
    assert sum(found.layers.values()) == pytest.approx(found.score - found.ordinary)


def test_a_map_keeps_angles_and_knows_no_length() -> None:
    angles = torch.tensor([0.0, 0.4, 0.8, 3.0, 3.3], dtype=torch.float64)
    plane = torch.stack([angles.cos(), angles.sin()], dim=1)
    turn, _ = torch.linalg.qr(torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    lengths = torch.tensor([1.0, 100.0, 0.1, 3.0, 7.0], dtype=torch.float64)
    found = direction_map(lengths.unsqueeze(1) * plane @ turn.T)
    torch.testing.assert_close(torch.cdist(found.points, found.points), torch.cdist(plane, plane))
    assert float(found.explained.sum()) == pytest.approx(1)
    assert direction_map(torch.ones(3, 4)).points.abs().max() < 1e-6
    with pytest.raises(ValueError, match="finite"):
        direction_map(torch.full((2, 2), torch.nan))


@pytest.mark.parametrize("normalisation", ["none", "batch"])
def test_saliency_sums_to_the_margin_and_stays_where_the_ink_is(normalisation: str) -> None:
    model = make_model("conv4", input_shape=(1, 12, 12), filters=3, normalisation=normalisation)
    learner = make_learner("protonet", model)
    params = learner.init(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(6, 1, 12, 12, generator=generator) > 0.7).float()
    adapted = learner.adapt(params, Batch(x, torch.arange(6) % 3), 3)
    found = explain_query(learner, adapted, x[:4], 2, steps=100)
    logits = learner.predict(adapted, x[:4])[2].sort(descending=True).values
    assert found.margin == pytest.approx(float(logits[0] - logits[1]), rel=1e-4)
    assert float(found.map.sum()) == pytest.approx(found.margin - found.blank, abs=0.05 * abs(found.margin) + 0.02)
    assert (found.map[x[2] == 0] == 0).all()


def test_integrated_gradients_of_a_product_are_halves() -> None:
    """f = x y from the origin: each gets x y / 2."""
    found = integrated_gradients(lambda x: x[:, 0] * x[:, 1], torch.tensor([2.0, 3.0], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([3.0, 3.0], dtype=torch.float64))
