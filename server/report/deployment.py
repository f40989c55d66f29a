"""What defences at deployment cost in accuracy and save in attack success, from a finished run's results."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fedmeta.attacks.success import AttackSuccess
from fedmeta.deployment import DEPLOYMENTS
from fedmeta.estimates import Estimate
from fedmeta.parameters import parameters_of
from fedmeta.statistics import Evaluation
from server.report.headline import format_score
from server.report.plots import steps_in_words
from server.words import bounds


def deployment_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The heads of columns, and one row for the learner as it is and for each defence; no row where there is none.

    On tasks across all test clients where these were judged, else on each client's own. The attack's columns are there
    where success was measured: after the most adaptation steps up to the learner's own, and after the most of all.
    """
    last = results.get("last") or {}
    deployed = last.get("deployed") or []
    split = "pooled" if last.get("pooled") else "test"
    if not deployed or not last.get(split):
        return [], []
    columns = ["", f"{Evaluation.from_json(last[split]).score_name} after adaptation"]
    rows = [["none", *_cells(last, split)]]
    rows += [[_name(found), *_cells(found, split)] for found in deployed]
    success = _success(last, split)
    if success is not None:
        own = Evaluation.from_json(last[split]).adapted
        what = "lift" if success.lift else "attack success"
        columns += [f"{what}, {steps_in_words(success.steps[row])}" for row in _shown(success, own)]
    return columns, rows


def _cells(found: Mapping[str, Any], split: str) -> list[str]:
    if not found.get(split):
        return ["no answer"]
    evaluation = Evaluation.from_json(found[split])
    cells = [_cell(evaluation.score_name, evaluation.after)]
    success = _success(found, split)
    if success is not None:
        estimates = success.lift or success.rate
        cells += [_cell("accuracy", estimates[row]) for row in _shown(success, evaluation.adapted)]
    return cells


def _success(found: Mapping[str, Any], split: str) -> AttackSuccess | None:
    data = (found.get("attack") or {}).get(split)
    return AttackSuccess.from_json(data) if data else None


def _shown(success: AttackSuccess, own: int) -> list[int]:
    """Places in `success.steps`."""
    upto = [row for row, steps in enumerate(success.steps) if steps <= own]
    return sorted({upto[-1] if upto else 0, len(success.steps) - 1})


def _name(found: Mapping[str, Any]) -> str:
    """The defence, with the parameters that are not as by default."""
    declared = parameters_of(DEPLOYMENTS.get(str(found["name"])))
    changed = {key: found.get(key) for key, known in declared.items() if found.get(key) != known.default}
    given = ", ".join(f"{key}={value}" for key, value in changed.items())
    return f"{found['name']} ({given})" if given else str(found["name"])


def _cell(score_name: str, found: Estimate) -> str:
    say = partial(format_score, score_name)
    return f"{say(found.mean)} {bounds(found, say)}"
