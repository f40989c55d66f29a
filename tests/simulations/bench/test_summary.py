"""What is concluded from the values of cells, by hand: intervals, comparisons, worst attacks, verdicts."""

from typing import Any

import pytest

from simulations.bench.cells import Cell, Plan, make_plan
from simulations.bench.grid_file import read_grid
from simulations.bench.outcome import Outcome
from simulations.bench.report import BenchReport
from simulations.bench.statements import statements
from simulations.bench.summary import Row, against_mean, answers, summarise, verdicts, worst_attacks
from simulations.bench.table import missing_lines

SEEDS = range(10)


def grid(**more: Any) -> Plan:
    raw = {
        "base": {"learner": {"name": "fomaml"}},
        "seeds": list(SEEDS),
        "f": 2,
        "attacks": [{"method": "badnets"}, {"method": {"name": "ipm", "tau": 9.0}, "knowledge": "omniscient"}],
        "defences": [{"aggregator": "median"}, {"aggregator": "multi_krum"}],
        "compare": [{"attacks": ["badnets", "ipm"], "column": "score", "defences": ["mean", "median"]}],
    }
    return make_plan(read_grid({**raw, **more}))


SCORE = {("none", "mean"): 0.80, ("badnets", "median"): 0.78, ("ipm", "mean"): 0.30, ("ipm", "median"): 0.76}
LIFT = {"mean": 0.90, "median": 0.05, "multi_krum": 0.60}


def value_of(cell: Cell) -> dict[str, float]:
    """A score that grows by a thousandth a seed, and the lift of the backdoor."""
    score = SCORE.get((cell.attack, cell.defence), 0.79) + 0.001 * cell.seed
    values = {"score": score, "drop": 0.80 + 0.001 * cell.seed - score, "attackers": 2.5}
    if cell.attack == "badnets":
        values |= {"asr@5": LIFT[cell.defence] + 0.1, "lift@5": LIFT[cell.defence], "lift@10": LIFT[cell.defence] / 2}
    return values


def outcomes_of(plan: Plan) -> list[Outcome]:
    return [Outcome(cell, "done", None, value_of(cell), {}, "accuracy") for cell in plan.cells]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return grid()


@pytest.fixture(scope="module")
def rows(plan: Plan) -> list[Row]:
    return summarise(plan, outcomes_of(plan))


def test_a_row_is_the_mean_over_its_seeds(rows: list[Row]) -> None:
    [row] = [row for row in rows if (row.attack, row.defence) == ("ipm", "mean")]
    found = row.intervals["score"]
    assert found.mean == pytest.approx(0.3045) and 0.300 < found.low < 0.3045 < found.high < 0.309
    assert found.seeds == 10 and row.diverged == () and "lift@10" not in row.intervals


def test_defences_are_compared_with_the_mean_within_an_attack(plan: Plan, rows: list[Row]) -> None:
    found = {(c.family, c.first): c for c in against_mean(plan, rows)}
    assert len(found) == 2 * 4  # score under three attacks, lift under one, two defences each
    better = found["ipm, score", "median"]
    assert better.difference.mean == pytest.approx(0.46) and better.p == pytest.approx(2**-9)
    assert better.adjusted == pytest.approx(2 * 2**-9)  # two defences in the family
    assert found["badnets, lift@10", "median"].difference.mean == pytest.approx(-0.425)


def test_questions_are_answered_seed_by_seed(plan: Plan, rows: list[Row]) -> None:
    first, second = answers(plan, rows)
    assert first.difference.mean == pytest.approx(0.79 - 0.30) and second.difference.mean == pytest.approx(0.02)
    assert first.first == "badnets under mean" and second.second == "ipm under median"
    assert first.difference.low == pytest.approx(first.difference.high)  # the same difference in every seed


def test_a_question_without_an_answer_is_named() -> None:
    """No rule here scored anybody, so that there is no AUROC to compare."""
    plan = grid(compare=[{"attacks": ["badnets", "ipm"], "column": "auroc", "defences": ["median"]}])
    outcomes = outcomes_of(plan)
    rows = summarise(plan, outcomes)
    report = BenchReport(plan, outcomes, rows, (), answers(plan, rows), (), (), (), "accuracy")
    assert list(missing_lines(report)) == [
        "no answer: badnets under median against ipm under median, auroc: no seed has a value of both"
    ]


def test_only_seeds_that_both_have_are_paired(plan: Plan) -> None:
    outcomes = [
        Outcome(o.cell, "failed", "lost", {}, {}) if (o.cell.attack, o.cell.seed) == ("ipm", 3) else o
        for o in outcomes_of(plan)
    ]
    rows = summarise(plan, outcomes)
    assert answers(plan, rows)[0].difference.seeds == 9
    assert {row.intervals["score"].seeds for row in rows if row.attack == "ipm"} == {9}


def test_the_worst_attack_by_score_and_by_lift(plan: Plan, rows: list[Row]) -> None:
    found = {worst.defence: worst for worst in worst_attacks(plan, rows)}
    assert (found["mean"].by_score, found["mean"].by_lift) == ("ipm", "badnets")
    assert found["mean"].score == pytest.approx(0.3045) and found["median"].by_score == "ipm"


def test_divergence_is_the_worst(plan: Plan) -> None:
    outcomes = outcomes_of(plan)
    outcomes = [
        Outcome(o.cell, "done", None, {"attackers": 1.0}, {}, "accuracy")
        if (o.cell.attack, o.cell.defence, o.cell.seed) == ("badnets", "mean", 0)
        else o
        for o in outcomes
    ]
    rows = summarise(plan, outcomes)
    worst = next(worst for worst in worst_attacks(plan, rows) if worst.defence == "mean")
    assert (worst.by_score, worst.score) == ("badnets", None)


def test_what_breaks_and_what_restores(plan: Plan, rows: list[Row]) -> None:
    backdoor, reversal = verdicts(plan, rows, "accuracy")
    assert (backdoor.attack, backdoor.restored, backdoor.broken) == ("badnets", ("median",), ("multi_krum",))
    assert (reversal.attack, reversal.restored, reversal.broken) == ("ipm", ("median", "multi_krum"), ())
    assert reversal.drop == pytest.approx(0.5) and verdicts(plan, rows, "mse") == []


def test_statements_say_where_a_file_departs_from_them(plan: Plan) -> None:
    said = " ".join(statements(plan, outcomes_of(plan)))
    assert "NOT EQUAL" not in said and "Rules assume f = 2" in said and "2.5 malicious clients a round" in said
    assert "are paired" in said and "last round counts" in said
    other = grid(
        defences=[
            {"aggregator": "median", "server_lr": 0.1},
            {"aggregator": {"name": "rlr", "threshold": 4, "server_lr": 2.0}},
            {"aggregator": "fltrust", "root": "validation"},
        ],
        measure={"checkpoint": "best"},
        compare=[],
    )
    said = " ".join(statements(other, []))
    assert "NOT EQUAL: defence 'median' takes server.optimiser.lr = 0.1" in said
    assert "NOT EQUAL: defence 'rlr' multiplies its result by server_lr = 2" in said
    assert "fltrust's root tasks" in said and "validation clients found best counts" in said


def test_noise_of_clients_is_set_against_the_distances_it_swamps() -> None:
    """D = 112,261, sigma = .01: 2 D sigma^2 = 22.45, from the specification; here D and sigma = z C are the run's."""
    plan = grid(
        attacks=[],
        compare=[],
        base={
            "learner": {"name": "fomaml"},
            "privacy": {"unit": "client", "placement": "local", "noise_multiplier": 0.5, "clip_norm": 0.02},
        },
    )
    from fedmeta.workload import Workload

    size = Workload(plan.runs[0].experiment).spec.size()
    [krum] = [line for line in statements(plan, []) if "Noise against signal" in line]
    assert krum.startswith("Noise against signal, multi_krum") and f"{2 * size * 1e-4:.3g}" in krum


def test_groups_of_secure_aggregation_say_how_many_are_clean() -> None:
    """n = 40, f = 4, g = 4: a group is clean with probability C(36, 4) / C(40, 4) = .645, from the specification."""
    plan = grid(
        attacks=[],
        compare=[],
        f=4,
        defences=[{"aggregator": "trimmed_mean"}],
        base={
            "learner": {"name": "fomaml"},
            "server": {"sampling": {"name": "fixed", "clients": 40}},
            "secagg": {"enabled": True, "group_size": 4, "allow_unsafe_groups": True},
        },
    )
    said = [line for line in statements(plan, []) if "secure aggregation" in line]
    assert any("with 4 malicious a group is clean with probability 0.645; trimmed_mean bears" in line for line in said)


def test_a_grid_wider_than_a_terminal_prints_the_worst_attack_of_each_defence() -> None:
    from rich.console import Console

    from simulations.bench.report import BenchReport
    from simulations.bench.table import print_report

    rules = ["median", "geometric_median", "krum", "multi_krum", "centered_clipping", "norm_bound", "dnc", "foolsgold"]
    plan = grid(defences=[{"aggregator": rule} for rule in rules])
    outcomes = [Outcome(c, "done", None, value_of(c) if c.attack != "badnets" else {}, {}) for c in plan.cells]
    rows = summarise(plan, outcomes)
    worst, found = worst_attacks(plan, rows), verdicts(plan, rows, "accuracy")
    report = BenchReport(plan, outcomes, rows, [], [], worst, found, [], "accuracy")
    console = Console(width=100)
    with console.capture() as captured:
        print_report(report, console)
    said = captured.get()
    assert "foolsgold" in said and "diverged" in said and "…" not in said and "none, mean" not in said
