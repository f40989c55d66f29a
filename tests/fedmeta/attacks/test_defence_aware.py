"""The defence-aware attacker: its search, its bound, its three levels of knowledge."""

import math

import pytest
import torch

from fedmeta.attacks import make_attack
from fedmeta.attacks.base import AttackContext, AttackImpossible, Verdict
from fedmeta.attacks.defence_aware import line_maximum
from fedmeta.errors import ConfigurationError
from server.configuration import load
from strategies import make_aggregator


def rows(k: int = 8, d: int = 20) -> torch.Tensor:
    return torch.randn(k, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5


def rule(name: str, **parameters):
    aggregator = make_aggregator(name, **parameters)

    def pipeline(updates: torch.Tensor) -> Verdict:
        found = aggregator(updates)
        return Verdict(found.vector, found.flagged)

    return pipeline


@pytest.mark.parametrize("peak", [0.3, 4.0, 37.0, 500.0])
def test_the_line_search_finds_a_peak_within_its_budget(peak: float) -> None:
    asked: list[float] = []

    def hill(x: float) -> float:
        asked.append(x)
        return -abs(x - peak)

    found = line_maximum(hill, 60)
    assert abs(found - peak) < 0.1 * max(1.0, peak) and len(asked) == 60 and min(asked) >= 0


def test_the_line_search_returns_the_best_of_what_it_asked() -> None:
    values: dict[float, float] = {}

    def jagged(x: float) -> float:
        values[x] = math.sin(x) * x
        return values[x]

    best = line_maximum(jagged, 20)
    assert values[best] == max(values.values()) and len(values) <= 20
    assert line_maximum(lambda x: 0.0, 1, start=3.0) == 3.0


def moved(updates: torch.Tensor, crafted: torch.Tensor, pipeline) -> float:
    vector = pipeline(torch.cat([updates, crafted])).vector
    return float((vector - updates.mean(0)).norm())


@pytest.mark.parametrize("base", ["ipm", "alie"])
@pytest.mark.parametrize(
    ("name", "parameters", "delta"), [("median", {}, 10.0), ("trimmed_mean", {"f": 2}, 10.0), ("krum", {"f": 2}, 0.5)]
)
def test_it_moves_the_rule_as_far_as_the_usual_strengths(base: str, name: str, parameters: dict, delta: float) -> None:
    """Krum jumps, and its narrow range of strengths is passed over by the default first step."""
    benign, pipeline = rows(), rule(name, **parameters)
    attack = make_attack("defence_aware", base=base, evaluations=40, delta=delta)
    found = attack(benign, n_malicious=2, context=AttackContext(pipeline=pipeline))
    mean, s = benign.mean(0), benign.std(0)
    for x in (0.0, 0.2533, 0.5, 1.0):
        fixed = (-x * mean if base == "ipm" else mean - x * s).repeat(2, 1)
        assert moved(benign, found, pipeline) >= 0.95 * moved(benign, fixed, pipeline), x


def test_it_is_never_flagged_where_it_can_help_it() -> None:
    """A detector that flags rows beyond the longest benign one: the attack stays within, and close to the bound."""
    benign = rows()
    longest = benign.norm(dim=1).max()

    def detector(updates: torch.Tensor) -> Verdict:
        flagged = updates.norm(dim=1) > longest
        return Verdict(updates[~flagged].mean(0), flagged)

    attack = make_attack("defence_aware", base="ipm", evaluations=60)
    found = attack(benign, n_malicious=2, context=AttackContext(pipeline=detector))
    assert not detector(torch.cat([benign, found])).flagged[8:].any()
    assert found.norm(dim=1)[0] > 0.9 * longest


def test_an_objective_of_ones_own() -> None:
    """The attacker wants the first coordinate small, wherever else the aggregate goes."""
    benign = rows()
    context = AttackContext(pipeline=rule("mean"), objective=lambda vector: -abs(float(vector[0]) + 1.0))
    found = make_attack("defence_aware", base="ipm", evaluations=60)(benign, n_malicious=2, context=context)
    assert float(torch.cat([benign, found]).mean(0)[0]) == pytest.approx(-1.0, abs=0.05)


def test_levels_of_knowledge() -> None:
    benign = rows()
    with pytest.raises(AttackImpossible, match="none was given"):
        make_attack("defence_aware")(benign, n_malicious=2)
    blind = make_attack("defence_aware", knows_rule=False)(benign, n_malicious=2)
    context = AttackContext(pipeline=rule("mean"))
    assert torch.equal(blind, make_attack("defence_aware")(benign, n_malicious=2, context=context))
    with pytest.raises(AttackImpossible, match="cannot try the pipeline out"):
        make_attack("defence_aware")(benign, n_malicious=2, context=AttackContext(pipeline=rule("krum", f=5)))
    with pytest.raises(ConfigurationError, match="which clients do not have"):
        load({"attack": {"method": {"name": "defence_aware"}, "knowledge": "colluding"}})
    load({"attack": {"method": {"name": "defence_aware", "knows_rule": False}, "knowledge": "colluding"}})


def test_it_changes_nothing_that_it_is_given() -> None:
    benign = rows()
    before = benign.clone()
    make_attack("defence_aware")(benign, n_malicious=3, context=AttackContext(pipeline=rule("median")))
    assert torch.equal(benign, before)
