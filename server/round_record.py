"""What is kept of a round: its record, its troubles in the log, and whether its model is the best so far."""

import logging
import math
from typing import Any

from fedmeta.statistics import ERRORS, Evaluation
from strategies.reasons import group_reasons
from strategies.round_report import RELEASED, RoundReport

log = logging.getLogger("fedmeta.server")


def better(best: dict[str, Any] | None, evaluation: Evaluation | None, round: int) -> dict[str, Any] | None:
    """The best validation so far, the earliest where equal."""
    if evaluation is None:
        return best
    score = evaluation.after.mean
    if not math.isfinite(score):
        return best
    sign = -1.0 if evaluation.score_name in ERRORS else 1.0
    if best is not None and sign * score <= sign * best["score"]:
        return best
    return {"round": round, "split": "validation", "score": score}


def make_record(
    report: RoundReport, evaluation: Evaluation | None, missing: dict[int, str], seconds: float
) -> dict[str, Any]:
    """The line of a round in metrics.jsonl; `missing` are validation clients that did not answer, and why."""
    attack: dict[str, Any] = {}
    if report.attackers is not None:
        idle = {str(client): reason for client, reason in report.idle.items()}
        attack = {"attackers": list(report.attackers), "attack_idle": idle}
    return {
        **attack,
        "round": report.round,
        "seconds": seconds,
        "sampled": list(report.sampled),
        "train": report.metrics,
        "failed": {str(client): reason for client, reason in report.failed.items()},
        "refused": {str(client): reason for client, reason in report.refused.items()},
        "defence": report.defence,
        **({"groups": report.groups} if report.groups else {}),
        "event": report.event,
        "failed_round": report.failed_round,
        "validation": evaluation.to_json() if evaluation else None,
        "validation_failed": {str(client): reason for client, reason in missing.items()},
    }


def log_troubles(report: RoundReport) -> None:
    """Warn of what went wrong in a round, alike failures once."""
    for line in group_reasons(report.failed):
        log.warning("round %d, failed: %s", report.round, line)
    for line in group_reasons(report.refused):
        log.warning("round %d, refused: %s", report.round, line)
    clipped = max((group["clipped"] or 0.0 for group in report.groups), default=0.0)
    if clipped:
        log.warning(
            "round %d: %.2g %% of a group's values were clipped to secagg.bound: raise it", report.round, 100 * clipped
        )
    for line in group_reasons(report.idle):
        log.warning("round %d, attackers sent honest updates: %s", report.round, line)
    if report.event:
        log.warning("round %d: the model stays as it was: %s", report.round, report.event)
    elif report.failed_round:
        log.warning("round %d: %s", report.round, RELEASED)
