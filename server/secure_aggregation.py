"""Secure aggregation of a run on the server's side: the grid of an experiment, and what its report says of it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.secagg_settings import group_plan
from server.words import counted
from strategies.group_defence import GroupPromise
from strategies.secagg_encoding import NoisedSums
from strategies.secure_aggregation import SecureAggregationGrid

TRUSTED = "FEDMETA_SECAGG_TRUSTED"
"""Environment variable of the SuperLink: the file of public keys that nodes are to sign with; none asks for none."""


def secured(grid: Grid, experiment: Experiment, simulated: bool) -> Grid:
    """The grid of an experiment: under secure aggregation where it asks for that.

    Args:
        grid: whose nodes run our ClientApp.
        experiment: validated.
        simulated: an engine of ours runs it: groups and dropouts may come from the seed.

    Raises:
        ConfigurationError: simulated dropouts in a deployment, a trust list that cannot be read, or a grid that
            rewrites replies.
    """
    if not experiment.secagg.enabled:
        return grid
    if not simulated and any(experiment.secagg.dropout.model_dump().values()):
        raise ConfigurationError(
            "secagg.dropout is for simulations, and this is a deployed run, whose clients fall silent by themselves: "
            "remove it, or use `fedmeta simulate`"
        )
    return SecureAggregationGrid(
        grid,
        experiment.secagg,
        weighting=experiment.server.weighting,
        min_success_fraction=experiment.server.min_success_fraction,
        seed=experiment.seed if simulated else None,
        trusted=None if simulated else _trust_list(),
        encoding=NoisedSums(experiment) if experiment.privacy.placement == "distributed" else None,
    )


def _trust_list() -> frozenset[bytes] | None:
    """The nodes' own lists, as the server knows them: it turns away at once what they would refuse and end for."""
    path = os.environ.get(TRUSTED)
    if not path:
        return None
    from fedmeta.privacy.secagg.identities import read_trusted

    return read_trusted(Path(path), f"{TRUSTED} in the SuperLink's environment")


def learned(
    experiment: Experiment, promise: GroupPromise | None, history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the server of a run learnt, and what its groups promise, as JSON; empty without secure aggregation.

    Args:
        experiment: of the run.
        promise: of its defence over groups; None where the number of clients is not known.
        history: the records of its rounds.
    """
    if not experiment.secagg.enabled:
        return {}
    sums = [group for record in history for group in record.get("groups", [])]
    sizes = [len(group["clients"]) for group in sums]
    clipped = [group["clipped"] for group in sums if group["clipped"] is not None]
    found: dict[str, Any] = {
        "sums": len(sums),
        "smallest_sum": min(sizes, default=None),
        "largest_sum": max(sizes, default=None),
        "without_sum": sum(len(record["failed"]) for record in history),
        "clipped": max(clipped, default=None),
        "bits": experiment.secagg.bits,
        "bound": experiment.secagg.bound,
    }
    attacked = [
        sum(bool(set(group["clients"]) & set(record["attackers"])) for group in record.get("groups", []))
        for record in history
        if record.get("attackers")
    ]
    if attacked:
        found["most_bad_groups"] = max(attacked)
    if promise is not None:
        plans = [group_plan(experiment.secagg, size) for size in sorted(set(promise.odds.sizes))]
        found["thresholds"] = {str(plan.count): plan.threshold for plan in plans}
        found["neighbours"] = {str(plan.count): plan.degree for plan in plans}
        found["promise"] = promise.to_json()
        found["promise_in_words"] = str(promise)
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """What the server learnt, in a line for a console."""
    return f"secure aggregation: the server learnt {_sums(found)} and no single update"


def secure_rows(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run's report says of secure aggregation, as names and words; nothing where the run had none.

    Args:
        results: of the run, as `learned` has added to them.
    """
    found = results.get("secagg")
    if not found:
        return []
    rows = [
        ("what the server learnt", f"{_sums(found)}; each the sum of updates, weights and training metrics"),
        ("what it did not", "any single client's update, weight or metric"),
        ("what is in the clear", "who took part, who fell silent and when; evaluations, of clients that do not train"),
        ("clients in no sum", f"{found['without_sum']}, all rounds together"),
        ("entries", f"{found['bits']} bits, within {found['bound']:g}"),
    ]
    if found["clipped"]:
        rows.append(("clipped", f"up to {100 * found['clipped']:.2g} % of a group's entries: raise secagg.bound"))
    if "most_bad_groups" in found:
        rows.append(("groups with attackers", f"up to {found['most_bad_groups']} in a round"))
    if "promise_in_words" in found:
        shares = [f"{count}: {threshold}" for count, threshold in found["thresholds"].items()]
        rows += [("groups", found["promise_in_words"]), ("threshold, by clients of a group", ", ".join(shares))]
    return rows


def _sums(found: Mapping[str, Any]) -> str:
    if not found["sums"]:
        return "no sum"
    smallest, largest = found["smallest_sum"], found["largest_sum"]
    clients = counted(largest, "client") if smallest == largest else f"{smallest} to {largest} clients"
    return f"{counted(found['sums'], 'sum')} of {clients}"
