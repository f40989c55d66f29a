"""Secure aggregation of a run on the server's side: the grid of an experiment, and what its report says of it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.secagg_settings import group_plan
from strategies.group_defence import GroupPromise
from strategies.secagg_encoding import NoisedSums
from strategies.secure_aggregation import SecureAggregationGrid

log = logging.getLogger("fedmeta.server")


def secured(grid: Grid, experiment: Experiment, simulated: bool) -> Grid:
    """The grid of an experiment: under secure aggregation where it asks for that.

    Args:
        grid: whose nodes run our ClientApp.
        experiment: validated.
        simulated: an engine of ours runs it: groups and dropouts may come from the seed.

    Raises:
        ConfigurationError: simulated dropouts in a deployment, or a grid that rewrites replies.
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
        encoding=NoisedSums(experiment) if experiment.privacy.placement == "distributed" else None,
    )


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
    if promise is not None:
        plans = [group_plan(experiment.secagg, size) for size in sorted(set(promise.odds.sizes))]
        found["thresholds"] = {str(plan.count): plan.threshold for plan in plans}
        found["neighbours"] = {str(plan.count): plan.degree for plan in plans}
        found["promise"] = promise.to_json()
        found["promise_in_words"] = str(promise)
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """What the server learnt, in a line or two for a console or a page."""
    if not found["sums"]:
        return "secure aggregation: the server learnt no sum"
    sizes = f"{found['smallest_sum']}"
    if found["largest_sum"] != found["smallest_sum"]:
        sizes += f" to {found['largest_sum']}"
    text = (
        f"secure aggregation: of training the server learnt {found['sums']} sums of {sizes} clients each (updates, "
        "weights and metrics), and no single update; evaluations are in the clear"
    )
    if found["clipped"]:
        text += f"; up to {100 * found['clipped']:.2g} % of a group's values were clipped to secagg.bound"
    return text
