"""The figures that stand first: a baseline, before and after adaptation, on clients never seen in training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedmeta.estimates import Estimate
from fedmeta.statistics import Evaluation
from server.words import counted, share

SPLITS = {"test": "each client's own tasks", "pooled": "tasks across all test clients"}


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        model: which model was judged, such as `last (round 40)`.
        split: on what, in words.
        label: a baseline such as `pixel nearest neighbour`, and on how many clients where not on all; `before
            adaptation` or `after adaptation (5 steps)`.
        score_name: of the task, such as `accuracy`.
        estimate: the figure.
        beside: what the task measures beside its score, in words; empty for most.
        signed: whether the figure is a difference of two scores.
    """

    model: str
    split: str
    label: str
    score_name: str
    estimate: Estimate
    beside: str = ""
    signed: bool = False

    def format(self, value: float) -> str:
        """A value as one prints it: accuracy in per cent, an error as a number, a difference with its sign.

        `none` where there is none.
        """
        return "none" if math.isnan(value) else format_score(self.score_name, value, signed=self.signed)


def format_score(score_name: str, value: float, *, signed: bool = False) -> str:
    """Accuracy in per cent, an error with four digits; a difference of two with its sign, of accuracies in points.

    >>> format_score("accuracy", 0.9312), format_score("mse", 0.123456), format_score("accuracy", 0.076, signed=True)
    ('93.1 %', '0.1235', '+7.6 points')
    """
    if score_name != "accuracy":
        return f"{value:+.4g}" if signed else f"{value:.4g}"
    return f"{100 * value:+.1f} points" if signed else share(value)


def headline(results: Mapping[str, Any]) -> list[Row]:
    """The rows of a finished run's table; the best model's only where it is another than the last."""
    rows: list[Row] = []
    for which in ("last", "best"):
        judged = results.get(which)
        if not judged or (which == "best" and judged["round"] == results["last"]["round"]):
            continue
        same = which == "last" and results.get("best") and results["best"]["round"] == judged["round"]
        model = f"{'last and best' if same else which} (round {judged['round']})"
        for split, words in SPLITS.items():
            if judged.get(split):
                evaluation = Evaluation.from_json(judged[split])
                found = _rows(model, words, evaluation)
                # What the best model adds is its score after adaptation, with its lead; the rest is said already.
                rows += found if which == "last" else found[-1 if evaluation.lead is None else -2 :]
    return rows


def _rows(model: str, split: str, evaluation: Evaluation) -> list[Row]:
    rows, name = [], evaluation.score_name
    for baseline, figures in evaluation.baselines.items():
        words, scored = baseline, figures[name]
        if scored.count < evaluation.after.count:
            words = f"{baseline}, on {scored.count} of {evaluation.after.count} {evaluation.after.unit}"
        rows.append(Row("none", split, words, name, scored, _beside(figures, name)))
    last = evaluation.adapted
    if evaluation.steps[0] == 0:
        before = {measure: found[0] for measure, found in evaluation.measures.items()}
        rows.append(Row(model, split, "before adaptation", name, evaluation.before, _beside(before, name)))
    if last > 0:
        words, place = f"after adaptation ({counted(last, 'step')})", evaluation.steps.index(last)
        after = {measure: found[place] for measure, found in evaluation.measures.items()}
        rows.append(Row(model, split, words, name, evaluation.after, _beside(after, name)))
    if evaluation.lead is not None:
        rows.append(Row(model, split, f"paired lead over {evaluation.strongest}", name, evaluation.lead, signed=True))
    return rows


def _beside(figures: Mapping[str, Estimate], score_name: str) -> str:
    """What stands beside a score: `nDCG@10 0.8123`."""
    return ", ".join(f"{name} {found.mean:.4g}" for name, found in figures.items() if name != score_name)
