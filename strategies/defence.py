"""The defence that an experiment describes, and what of it cannot work there: refused before any client does."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.learners import LEARNERS
from fedmeta.learners.functional import forward
from fedmeta.workload import Workload
from strategies.aggregation import Aggregate, NotEnoughUpdates, Probe, Rule
from strategies.group_defence import check_promise, check_rule, group_promise, over_groups
from strategies.pipeline import Pipeline


def make_defence(experiment: Experiment, expected: float | None = None) -> Pipeline:
    """The pre-aggregators and the aggregator of an experiment; under secure aggregation their `f` counts groups.

    Args:
        experiment: validated.
        expected: clients of a round; None: as `server.sampling.clients` says, where it is fixed.

    Raises:
        ConfigurationError: too few clients a round for a rule's f, a rule behind buckets that needs clients, one whose
            signal or trusted update does not exist in this experiment, or groups that cannot bear the attackers.
    """
    server, pipeline = experiment.server, Pipeline.of(experiment)
    rule, privacy = pipeline.aggregator, experiment.privacy
    if server.preaggregators and privacy.unit != "none" and privacy.placement == "central":
        raise ConfigurationError(
            "server.preaggregators are not available with central noise, which is calibrated to a sum of clipped "
            "contributions: remove them, or set privacy.placement = 'local'"
        )
    pipeline = _fitted(pipeline, experiment, expected)
    if not isinstance(rule, Rule):
        return pipeline
    if "root_update" in rule.requires.context and server.root == "none":
        raise ConfigurationError(
            f"server.aggregator = '{rule.name}' needs the server's own update on tasks it trusts: set server.root = "
            "'validation', or choose another rule"
        )
    if server.root != "none" and "root_update" not in rule.requires.context:
        warnings.warn(f"server.root has no effect: '{rule.name}' compares with no update of the server's", stacklevel=2)
    if "probe" in rule.requires.context and not has_fixed_slots(experiment):
        raise ConfigurationError(
            f"server.aggregator = '{rule.name}' needs a head whose outputs mean the same for every client, and here "
            "classes get their slots by chance, or there is no head: set task.kind = 'own' and a learner with a head"
        )
    if server.weighting == "tasks" and not rule.requires.weights:
        warnings.warn(
            f"server.weighting = 'tasks' has no effect: '{rule.name}' takes no weights that clients report",
            stacklevel=2,
        )
    if rule.requires.signs and privacy.unit != "none" and privacy.placement != "central":
        warnings.warn(
            f"server.aggregator = '{rule.name}' counts signs, which the clients' noise makes coin flips where it is as "
            "large as an update's values: compare with a rule that does not, such as 'geometric_median'",
            stacklevel=2,
        )
    return pipeline


def _fitted(pipeline: Pipeline, experiment: Experiment, expected: float | None) -> Pipeline:
    """The pipeline for the rows of a round: clients, or groups, for which its `f` is translated.

    Raises:
        ConfigurationError: too few rows, or a rule or groups that secure aggregation rules out.
    """
    sampling = experiment.server.sampling
    clients = sampling.parameters.get("clients") if sampling.name == "fixed" else None
    rows, in_groups = clients, ""
    if experiment.secagg.enabled:
        check_rule(pipeline)
        promise = group_promise(experiment, expected if clients is None else clients)
        if promise is not None:
            check_promise(promise, experiment)
            pipeline = over_groups(pipeline, promise)
            rows, in_groups = promise.odds.groups, f" in {promise.odds.groups} groups"
    if isinstance(clients, int) and isinstance(rows, int):
        try:
            pipeline.check_rows(rows)
        except NotEnoughUpdates as error:
            raise ConfigurationError(
                f"server.sampling.clients = {clients}{in_groups} with server.aggregator: {error}"
            ) from None
    return pipeline


def has_fixed_slots(experiment: Experiment) -> bool:
    """Whether an output of the network means the same class for every client."""
    head = LEARNERS.get(experiment.learner.name).head  # type: ignore[attr-defined]
    return head != "embedding" and (experiment.task.kind == "own" or head == "classes")


def make_probe(experiment: Experiment) -> Probe:
    """How a rule asks models of this experiment for class probabilities; what is not shared stays as it began."""
    workload = Workload(experiment)
    rest = {entry.name: workload.initial[entry.name] for entry in workload.spec.entries if entry.role != "shared"}
    network = {name for name, _ in workload.learner.model.named_parameters()}

    @torch.no_grad()
    def probabilities(shared: Tensor, inputs: Tensor) -> Tensor:
        params = {**workload.spec.unflatten(shared), **rest}
        params = {name: value for name, value in params.items() if name in network}
        return forward(workload.learner.model, params, inputs).softmax(dim=1)

    return Probe(tuple(workload.spec_of_data.input_shape), probabilities, has_fixed_slots(experiment))


def describe(aggregate: Aggregate, clients: Sequence[int]) -> dict[str, Any]:
    """What an aggregation says of clients, as JSON.

    `flagged` (ids; None for a rule that accuses nobody), `scores` and `weights` (by id), `diagnostics`.
    """

    def by_client(values: Tensor | None) -> dict[str, float]:
        pairs = [] if values is None else zip(clients, values.tolist(), strict=True)
        return {str(client): float(value) for client, value in pairs if math.isfinite(value)}

    flags = None if aggregate.flagged is None else aggregate.flagged.tolist()
    return {
        "flagged": None if flags is None else [client for client, bad in zip(clients, flags, strict=True) if bad],
        "scores": by_client(aggregate.scores),
        "weights": by_client(aggregate.weights),
        "diagnostics": dict(aggregate.diagnostics),
    }


def describe_groups(aggregate: Aggregate, groups: int) -> dict[str, Any]:
    """As `describe` for rows that are groups: no client is accused, and what is said goes by the group's place."""
    said = describe(aggregate, range(groups))
    by_group = {key: said[key] for key in ("flagged", "scores", "weights")}
    return {"flagged": None, "scores": {}, "weights": {}, "groups": by_group, "diagnostics": said["diagnostics"]}
