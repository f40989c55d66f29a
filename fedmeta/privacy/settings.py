"""Faults of the `privacy` section together with the rest of an experiment: claims that would not hold are refused."""

import warnings

from fedmeta.errors import ConfigurationError
from fedmeta.experiment import Experiment
from fedmeta.privacy.distributed.assumptions import colluders_assumed, group_bounds, survivors_needed
from fedmeta.privacy.offers import check_offer
from fedmeta.privacy.units import Unit


def check_privacy(experiment: Experiment) -> None:
    """Refuse what the learner, the aggregation or the clipping cannot give, and warn of what has no effect.

    Raises:
        ConfigurationError: names the key, the reason and the remedy.
    """
    privacy = experiment.privacy
    if privacy.unit == "none":
        if privacy.noise_multiplier is not None or privacy.target_epsilon is not None or privacy.budget is not None:
            warnings.warn(
                "the privacy section has no effect: privacy.unit = 'none'. Set it to client, task or example",
                stacklevel=3,
            )
        return
    check_offer(experiment.learner.name, Unit(privacy.unit), own_data=experiment.task.kind == "own")
    _check_noise(experiment)
    _check_unit(experiment)
    _check_shares(experiment)
    _check_aggregation(experiment)
    _check_clipping(experiment)


def _check_noise(experiment: Experiment) -> None:
    privacy = experiment.privacy
    if (privacy.noise_multiplier is None) == (privacy.target_epsilon is None):
        raise ConfigurationError(
            "set one of privacy.noise_multiplier and privacy.target_epsilon: the one follows from the other"
        )
    if privacy.noise_multiplier == 0:
        warnings.warn("privacy.noise_multiplier = 0: contributions are clipped, and there is no privacy", stacklevel=4)
    if privacy.target_epsilon is not None and experiment.server.rounds == 0:
        raise ConfigurationError("privacy.target_epsilon needs server.rounds >= 1: nothing is released in none")
    if privacy.share_metrics:
        warnings.warn(
            "privacy.share_metrics = true: losses and scores of training clients are outside the guarantee",
            stacklevel=4,
        )


def _check_shares(experiment: Experiment) -> None:
    privacy = experiment.privacy
    if privacy.placement != "distributed":
        fields = type(privacy).model_fields
        keys = ("mechanism", "min_survivors", "colluders")
        idle = [f"privacy.{key}" for key in keys if getattr(privacy, key) != fields[key].default]
        if idle:
            warnings.warn(f"{', '.join(idle)} has no effect: privacy.placement is not 'distributed'", stacklevel=4)
        return
    if not experiment.secagg.enabled:
        raise ConfigurationError(
            "privacy.placement = 'distributed' needs secagg.enabled = true: a client's own share of the noise protects "
            "nothing that the server sees by itself. Set it, or use placement = 'local'"
        )
    if privacy.unit != "client":
        raise ConfigurationError(
            f"privacy.unit = '{privacy.unit}' is not available with privacy.placement = 'distributed': shares of noise "
            "are sized for the sum of whole clients' clipped updates. Use client, or placement = 'local'"
        )
    if privacy.share_metrics:
        raise ConfigurationError(
            "privacy.share_metrics is not available with privacy.placement = 'distributed': all that travels under the "
            "masks is noised for the update alone. Set it to false"
        )
    smallest, _ = group_bounds(experiment)
    survivors_needed(experiment)
    colluders_assumed(experiment)
    groups = experiment.server.sampling.parameters["clients"] // smallest
    if groups > 1:
        warnings.warn(
            f"each of {groups} groups carries the noise by itself: their mean has {groups**0.5:.2g} times the noise "
            "that one group of all would have (secagg.group_size = none)",
            stacklevel=4,
        )


def _check_unit(experiment: Experiment) -> None:
    privacy, client = experiment.privacy, experiment.client
    if privacy.unit == "example":
        if privacy.placement == "central":
            raise ConfigurationError(
                "privacy.unit = 'example' needs privacy.placement = 'local': an example's gradient is clipped and "
                "noised within the client's inner loop, and the server sees no single one"
            )
        if experiment.model.parameters.get("normalisation") == "batch":
            raise ConfigurationError(
                "privacy.unit = 'example' is not available with model.normalisation = 'batch': batch statistics mix "
                "the examples, so that clipping single gradients bounds nothing. Use group or none"
            )
    if privacy.unit == "task" and privacy.placement == "central":
        _check_central_tasks(experiment)
    if privacy.task_pool is not None:
        if privacy.unit != "task":
            raise ConfigurationError("privacy.task_pool is for privacy.unit = 'task': remove it")
        if client.tasks_per_step > privacy.task_pool:
            raise ConfigurationError(
                f"client.tasks_per_step = {client.tasks_per_step} must be <= privacy.task_pool = {privacy.task_pool}: "
                "each task of the pool takes part with probability tasks_per_step / task_pool"
            )
        if experiment.task.kind == "own":
            raise ConfigurationError("privacy.task_pool needs task.kind = 'episodes': own data are a single task")
    if client.execution == "vmap" and (privacy.unit == "example" or privacy.task_pool is not None):
        warnings.warn("client.execution = 'vmap' has no effect: such private tasks are taken one by one", stacklevel=4)


def _check_central_tasks(experiment: Experiment) -> None:
    optimiser = experiment.client.optimiser
    plain = optimiser.name == "sgd" and not any(
        optimiser.parameters.get(key) for key in ("momentum", "weight_decay", "nesterov")
    )
    if experiment.client.steps != 1 or not plain:
        raise ConfigurationError(
            "privacy.unit = 'task' with placement = 'central' needs client.steps = 1 and plain sgd as "
            "client.optimiser: else a task's influence on the update is not its clipped gradient times the step "
            "size. Use placement = 'local'"
        )
    if optimiser.parameters.get("lr") == 0:
        raise ConfigurationError(
            "client.optimiser.lr = 0 must be > 0 with privacy.unit = 'task' and placement = 'central': the server "
            "divides updates by it to have the clipped gradients back"
        )
    if experiment.sharing.personal:
        raise ConfigurationError(
            "sharing.personal is not available with privacy.unit = 'task' and placement = 'central': personal "
            "parameters are trained without noise, and carry a task into what its client shares in later rounds. Share "
            "all parameters, or use placement = 'local', whose noise covers them"
        )


def _check_aggregation(experiment: Experiment) -> None:
    server = experiment.server
    if server.weighting != "uniform":
        raise ConfigurationError(
            f"server.weighting = '{server.weighting}' is not available with privacy: the sum would move by C times the "
            "largest weight, and the weights are private counts. Use uniform"
        )
    if experiment.privacy.placement == "central" and server.aggregator.name != "mean":
        raise ConfigurationError(
            f"server.aggregator.name = '{server.aggregator.name}' is not available with central noise, which is "
            "calibrated to a sum of clipped contributions. Use mean, or privacy.placement = 'local', after which any "
            "aggregator is post-processing"
        )
    if experiment.privacy.placement == "central" and server.preaggregators:
        raise ConfigurationError(
            "server.preaggregators are not available with central noise: what they make of the updates has no known "
            "sensitivity. Remove them, or use privacy.placement = 'local', after which they are post-processing"
        )


def _check_clipping(experiment: Experiment) -> None:
    privacy = experiment.privacy
    if privacy.clipping == "adaptive" and (privacy.placement == "local" or privacy.unit != "client"):
        raise ConfigurationError(
            "privacy.clipping = 'adaptive' needs placement = 'central' or 'distributed', and unit = 'client': "
            "elsewhere no one may count how many norms are within C. Use fixed"
        )
    if privacy.clipping == "fixed":
        fields = type(privacy).model_fields
        idle = [
            f"privacy.{key}"
            for key in ("quantile", "clip_rate", "count_noise")
            if getattr(privacy, key) != fields[key].default
        ]
        if idle:
            warnings.warn(f"{', '.join(idle)} has no effect: privacy.clipping = 'fixed'", stacklevel=4)
    if privacy.unit == "example" and privacy.per_layer:
        raise ConfigurationError("privacy.per_layer is not available for unit = 'example': set it to false")
