"""What is measured of a cell: a column is one entry of `COLUMNS`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from fedmeta.attacks.threat import success_steps
from fedmeta.calibration import BINS
from fedmeta.experiment import Experiment
from fedmeta.statistics import ERRORS
from simulations.bench.facts import Facts, at_step

Kind = Literal["score", "share", "points", "number"]
"""How a value is printed: as the task's score, in per cent, as a signed difference in points, or as it is."""


@dataclass(frozen=True)
class Column:
    """One measurement of a cell.

    Attributes:
        name: in files; with `@k` behind it where it is taken after k adaptation steps.
        title: in tables.
        what: one sentence for the page.
        kind: how it is printed.
        read: (facts, steps) -> the value, None where there is none.
        by_step: whether it is a curve over adaptation steps.
        bad: `high` or `low` where one end is bad for the defender.
    """

    name: str
    title: str
    what: str
    kind: Kind
    read: Callable[[Facts, int], float | None]
    by_step: bool = False
    bad: Literal["high", "low"] | None = None


def _drop(facts: Facts, _: int) -> float | None:
    own, reference = facts.score, facts.reference
    if own is None or reference is None or reference.score is None or facts.evaluation is None:
        return None
    lost = reference.score - own
    return -lost if facts.evaluation.score_name in ERRORS else lost


def _rate(facts: Facts, step: int) -> float | None:
    return None if facts.success is None else at_step(facts.success.rate, facts.success.steps, step)


def _lift(facts: Facts, step: int) -> float | None:
    return None if facts.success is None else at_step(facts.success.lift, facts.success.steps, step)


def _lasting(key: str) -> Callable[[Facts, int], float | None]:
    """A figure of `server.attack.persistence` after so many steps."""

    def read(facts: Facts, step: int) -> float | None:
        told = facts.results.get("attack_persistence") or {}
        if key not in told or step not in told["steps"]:
            return None
        value: float | None = told[key][told["steps"].index(step)]
        return value

    return read


def _detection(part: str, key: str) -> Callable[[Facts, int], float | None]:
    """A figure of how well the defence found the malicious clients; `part` as in `detection` of results.json."""

    def read(facts: Facts, _: int) -> float | None:
        found = (facts.results.get("detection") or {}).get(part) or {}
        value: float | None = found.get(key)
        return value

    return read


def _share_above_f(facts: Facts, _: int) -> float | None:
    if facts.assumed is None or not facts.metrics:
        return None
    return sum(count > facts.assumed for count in facts.attackers) / len(facts.attackers)


def _mean_attackers(facts: Facts, _: int) -> float | None:
    return sum(facts.attackers) / len(facts.attackers) if facts.attackers else None


def _idle(facts: Facts, _: int) -> float | None:
    return float(len(facts.results.get("attack_idle_rounds", ())))


def _nll(facts: Facts, _: int) -> float | None:
    judged = facts.evaluation
    return judged.loss_after.mean if judged is not None and judged.ece else None


def _brier(facts: Facts, _: int) -> float | None:
    found = None if facts.evaluation is None else facts.evaluation.brier_after
    return None if found is None else found.mean


def _ece(facts: Facts, _: int) -> float | None:
    return None if facts.evaluation is None else facts.evaluation.ece_after


def _failed_rounds(facts: Facts, _: int) -> float | None:
    return float(sum(bool(record["failed_round"]) for record in facts.metrics))


ROBUST = "robust"
"""The column that is there only where the grid asks for it."""

COLUMNS: tuple[Column, ...] = (
    Column(
        "score",
        "main task",
        "Score of the main task on unseen test clients after the learner's own number of adaptation steps.",
        "score",
        lambda facts, _: facts.score,
        bad="low",
    ),
    Column(
        "drop",
        "drop",
        "What the main task lost against the same seed without attack under the plain mean.",
        "points",
        _drop,
        bad="high",
    ),
    Column(
        "asr",
        "attack success",
        "Share of triggered queries, of other classes than the target's, that get the attacker's answer after k steps "
        "on the support, which is clean unless attack.trigger_in names it. Chance is one over the ways.",
        "share",
        _rate,
        by_step=True,
        bad="high",
    ),
    Column(
        "lift",
        "lift",
        "Attack success less that of the run without attack, of the same defence and seed, on the same episodes.",
        "points",
        _lift,
        by_step=True,
        bad="high",
    ),
    Column(
        ROBUST,
        "robust accuracy",
        "Accuracy on unseen test clients while PGD moves the queries, supports clean; see [evasion] of the grid.",
        "share",
        lambda facts, _: facts.robust,
        bad="low",
    ),
    Column(
        "area",
        "area",
        "Mean over the rounds of the lift on validation clients.",
        "points",
        _lasting("area"),
        by_step=True,
    ),
    Column(
        "half_life",
        "half-life",
        "Rounds after the attackers' last one until their lift on validation clients has halved.",
        "number",
        _lasting("half_life"),
        by_step=True,
    ),
    Column(
        "auroc",
        "AUROC",
        "How the defence's scores rank malicious above honest clients within a round, the mean of the attacked rounds; "
        "chance 50 %.",
        "share",
        _detection("within", "auroc"),
    ),
    Column(
        "auprc",
        "AUPRC",
        "Average precision of these scores within a round; chance is the share of malicious clients.",
        "share",
        _detection("within", "auprc"),
    ),
    Column(
        "tpr_at_fpr",
        "TPR at 5 % FPR",
        "Malicious updates above the one threshold, for the whole run, that 5 % of the honest ones exceed.",
        "share",
        _detection("across", "tpr_at_fpr"),
    ),
    Column(
        "flagged",
        "malicious flagged",
        "Share of the malicious updates that the rule left out as such.",
        "share",
        _detection("attacked", "recall"),
    ),
    Column(
        "lost",
        "honest flagged",
        "Share of the honest updates that it left out too, in attacked rounds.",
        "share",
        _detection("attacked", "fpr"),
    ),
    Column(
        "false_alarms",
        "false alarms",
        "Share of the honest updates that it left out in attack-free rounds.",
        "share",
        _detection("clean", "fpr"),
    ),
    Column("attackers", "attackers a round", "Malicious clients a round, the mean.", "number", _mean_attackers),
    Column(
        "above_f",
        "rounds above f",
        "Share of the rounds that had more malicious clients than the rule's f assumes.",
        "share",
        _share_above_f,
    ),
    Column("nll", "NLL", "Cross-entropy of the unseen test clients' queries in nats.", "number", _nll),
    Column("brier", "Brier", "Squared distance of probabilities and truth on them, from 0 to 2.", "number", _brier),
    Column("ece", "ECE", f"Expected calibration error on them, by {BINS} equal bins of confidence.", "number", _ece),
    Column("idle", "idle rounds", "Rounds in which the attack could not act and sent honest updates.", "number", _idle),
    Column("failed_rounds", "failed rounds", "Rounds that were not aggregated.", "number", _failed_rounds),
)
"""All measurements, in the order of the files."""


def named(column: Column, step: int) -> str:
    """The name in files: `lift@10` of a curve, else the column's own."""
    return f"{column.name}@{step}" if column.by_step else column.name


def column_names(
    experiments: Iterable[Experiment], headline: int, robust: bool = False
) -> list[tuple[str, Column, int]]:
    """Every name in files with its column and its number of adaptation steps.

    Args:
        experiments: of the grid, whose attacks say after how many steps success is measured.
        headline: the number of steps of columns that are no curve but depend on one.
        robust: whether robust accuracy is measured.
    """
    steps = sorted({step for experiment in experiments for step in success_steps(experiment)})
    return [
        (named(column, step), column, step)
        for column in COLUMNS
        if column.name != ROBUST or robust
        for step in (steps if column.by_step else [headline])
    ]
