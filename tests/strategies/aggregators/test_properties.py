"""What holds for every rule, whatever its formula (specification: property tests)."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from strategies import AGGREGATORS, make_aggregator
from strategies.aggregation import NotEnoughUpdates, RoundContext, Rule

ROWS, SIZE = 12, 40
"""As in conftest.py."""

TRANSLATED = ["mean", "median", "trimmed_mean", "geometric_median", "krum", "multi_krum", "bulyan", "dnc"]
SCALED = sorted(set(AGGREGATORS.entries()) - {"fltrust"})
"""FLTrust takes its length from the root update."""
ROBUST = sorted(set(AGGREGATORS.entries()) - {"mean", "rlr", "foolsgold", "fldetector", "alignins"})
"""Of the others, RLR scales with the mean, FoolsGold and FLDetector follow histories, and AlignIns looks at angles."""


def assert_close(found: torch.Tensor, wanted: torch.Tensor, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(
        found.double(), wanted.double(), rtol=rtol, atol=rtol * max(1.0, float(wanted.abs().max()))
    )


def test_permutation_invariance(name: str, rule: Rule, context, honest) -> None:
    if name == "bulyan":  # below f = 3 its last Krum counts one neighbour, and two nearest rows tie: see its docstring
        rule = make_aggregator("bulyan", f=3)
    n = max(ROWS, rule.least_rows())
    updates = honest(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    one, two = rule(updates, context()), rule(updates[order], context())
    assert_close(two.vector, one.vector)
    for values in ("weights", "scores"):
        if getattr(one, values) is not None:
            assert_close(getattr(two, values), getattr(one, values)[order])
    if one.flagged is not None and two.flagged is not None:
        assert torch.equal(two.flagged, one.flagged[order])


@pytest.mark.parametrize("rule_name", TRANSLATED)
def test_translation(rule_name: str, honest, make_rule) -> None:
    rule = make_rule(rule_name)
    shift = torch.linspace(-50.0, 50.0, SIZE, dtype=torch.float64)
    assert_close(rule(honest() + shift).vector, rule(honest()).vector + shift)


@pytest.mark.parametrize("rule_name", SCALED)
def test_scale(rule_name: str, context, honest, make_rule) -> None:
    rule = make_rule(rule_name)
    small = dataclasses.replace(context(), root_update=None)
    if rule_name == "deepsight":  # DDif asks models, which a scaled update makes other models
        return assert_close(rule(2.0 * honest()[:1].repeat(ROWS, 1), small).vector, 2.0 * honest()[0])
    assert_close(rule(2.0 * honest(), small).vector, 2.0 * rule(honest(), small).vector)
    return None


def test_identical_rows_give_that_row(name: str, rule: Rule, context, honest) -> None:
    found = rule(honest(1).repeat(ROWS, 1), context())
    if name == "foolsgold":  # identical clients are what it calls sybils
        assert found.event is not None and not found.vector.any() and found.flagged.all()
        return
    expected = honest(1)[0]
    if name == "fltrust":  # whose length is the root update's
        expected = expected * context().root_update.norm() / expected.norm()
    assert_close(found.vector, expected)
    assert found.event is None and (
        found.flagged is None or not found.flagged.any() or name in {"bulyan", "multi_krum", "dnc"}
    )


def test_inputs_stay_as_they_are(name: str, rule: Rule, context, honest) -> None:
    for updates in (honest(), honest().float().numpy()):
        before = torch.as_tensor(updates).clone()
        around = context(dtype=before.dtype)
        kept = around.model.clone(), around.root_update.clone()
        first = rule(updates, around)
        after = dataclasses.replace(around, state=first.state)
        state = {key: value.clone() for key, value in first.state.items()}
        rule(updates, after)
        assert torch.equal(torch.as_tensor(updates), before)
        assert torch.equal(around.model, kept[0]) and torch.equal(around.root_update, kept[1])
        assert all(torch.equal(after.state[key], state[key]) for key in state), "the state is the caller's"


def test_a_call_is_reproducible(name: str, rule: Rule, context, honest) -> None:
    assert torch.equal(rule(honest(), context()).vector, rule(honest(), context()).vector)


def test_float32_agrees_with_float64(name: str, rule: Rule, context, honest) -> None:
    found = rule(honest().float(), context(dtype=torch.float32))
    assert found.vector.dtype == torch.float32
    assert_close(found.vector, rule(honest(), context()).vector, rtol=2e-5)
    assert isinstance(rule(honest().numpy(), context()).vector, torch.Tensor)
    assert np.allclose(rule(honest().numpy(), context()).vector, rule(honest(), context()).vector)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_rows_that_are_not_finite_are_flagged_and_change_nothing(
    name: str, rule: Rule, value: float, context, honest
) -> None:
    clean = honest()
    ids = tuple(range(100, 100 + ROWS))
    spoilt = torch.cat([clean[:3], torch.full((1, SIZE), 1.0, dtype=torch.float64), clean[3:]])
    spoilt[3, 7] = value
    weights = torch.ones(ROWS + 1)
    found = rule(spoilt, dataclasses.replace(context(), clients=(*ids[:3], 7, *ids[3:]), weights=weights))
    alone = rule(clean, dataclasses.replace(context(), clients=ids))
    assert torch.equal(found.vector, alone.vector)
    assert found.flagged is not None and found.flagged[3]
    others = [index for index in range(ROWS + 1) if index != 3]
    expected = torch.zeros(ROWS, dtype=torch.bool) if alone.flagged is None else alone.flagged
    assert torch.equal(found.flagged[others], expected)
    assert found.weights is None or found.weights[3] == 0
    assert found.scores is None or found.scores[3] == torch.inf
    assert set(found.state) == set(alone.state), "nothing is remembered of it"


def test_a_huge_finite_row_is_not_taken_for_infinite() -> None:
    found = make_aggregator("median")(torch.tensor([[3e38, 3e38], [0.0, 0.0], [1.0, 1.0]]))
    assert found.flagged is None and found.vector.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [1e-42, 3e38])
def test_two_rows_of_any_finite_length_end_no_round(name: str, rule: Rule, value: float, context, honest) -> None:
    """Nor the next ones: what float32 cannot hold must come to no more than these two."""
    state: Mapping[str, torch.Tensor] = {}
    for seed in range(3):
        rows = honest(seed=seed).float()
        rows[:2] = value
        found = rule(rows, dataclasses.replace(context(dtype=torch.float32), clients=tuple(range(ROWS)), state=state))
        assert found.event is None and torch.isfinite(found.vector).all()
        state = found.state


def test_all_rows_flagged_give_zero_and_an_event(name: str, rule: Rule, context) -> None:
    state = {"kept": torch.ones(1)}
    found = rule(torch.full((ROWS, SIZE), torch.nan), dataclasses.replace(context(), state=state))
    assert found.event is not None and "NaN" in found.event
    assert torch.equal(found.vector, torch.zeros(SIZE)) and found.flagged.all() and found.weights.sum() == 0
    assert set(found.state) == {"kept"}, "a lost round does not lose the history"


@pytest.mark.parametrize("rule_name", ["trimmed_mean", "multi_krum", "bulyan", "dnc"])
def test_without_attackers_it_is_the_mean(rule_name: str, honest) -> None:
    assert_close(make_aggregator(rule_name, f=0)(honest()).vector, honest().mean(dim=0))


@pytest.mark.parametrize("rule_name", ROBUST)
@pytest.mark.parametrize("colluding", [True, False])
@pytest.mark.parametrize(("length", "dtype"), [(1e9, torch.float64), (1e9, torch.float32), (1e18, torch.float32)])
def test_breakdown(
    rule_name: str, length: float, dtype: torch.dtype, colluding: bool, context, honest, make_rule
) -> None:
    """Two rows, however far away, move the result by less than the largest distance between honest rows."""
    rule = make_rule(rule_name)
    clean = honest(ROWS - 2).to(dtype)
    far = torch.full((2, SIZE), length, dtype=dtype)
    if not colluding:
        far[1] *= -1
    found = rule(torch.cat([far, clean]), context(dtype=dtype))
    centre = clean.mean(dim=0) if rule_name != "fltrust" else context(dtype=dtype).root_update
    assert found.event is None
    assert (found.vector - centre).norm() < torch.cdist(clean, clean).max()


@pytest.mark.parametrize("length", [1e9, 1e18, 1e30])
def test_far_rows_neither_move_nor_delay_the_geometric_median(length: float, honest) -> None:
    """Just below half of the rows: what they add is their direction, however long they are."""
    clean, rule = honest(51).float(), make_aggregator("geometric_median")
    near, far = (rule(torch.cat([clean, torch.full((49, SIZE), x)])) for x in (1e6, length))
    assert_close(far.vector, near.vector, rtol=1e-4)
    assert far.diagnostics["iterations"] <= near.diagnostics["iterations"] + 1


def test_zero_rows(name: str, rule: Rule, context) -> None:
    found = rule(torch.zeros(ROWS, SIZE, dtype=torch.float64), context())
    assert torch.equal(found.vector, torch.zeros(SIZE, dtype=torch.float64))


def test_one_zero_row_among_others(name: str, rule: Rule, context, honest) -> None:
    updates = honest()
    updates[4] = 0.0
    found = rule(updates, context())
    assert torch.isfinite(found.vector).all()
    assert found.scores is None or torch.isfinite(found.scores).all()


def test_rows_below_the_bound_are_refused_in_words(name: str, rule: Rule, context, honest) -> None:
    least = rule.least_rows()
    if least == 1:
        assert torch.isfinite(rule(honest(1), context()).vector).all(), "a single client is ordinary"
        return
    with pytest.raises(NotEnoughUpdates, match=f"{name}.* n = {least - 1} .*at least {least} updates"):
        rule(honest(least - 1), context())
    assert torch.isfinite(rule(honest(least), context()).vector).all()


def test_what_is_not_a_matrix_is_refused(name: str, rule: Rule, honest) -> None:
    for wrong in (torch.zeros(3), torch.zeros(3, 2, dtype=torch.int64), [[1.0], [2.0]]):
        with pytest.raises(ValueError, match="float matrix"):
            rule(wrong)
    with pytest.raises(ValueError, match="no updates"):
        rule(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="2 clients for 12"):
        rule(honest(), RoundContext(clients=(1, 2)))


def test_every_rule_has_a_summary_and_a_source(name: str, rule: Rule) -> None:
    entry = AGGREGATORS.entries()[name]
    assert entry.summary and entry.source and rule.name == name
