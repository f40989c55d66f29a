"""Which experiments can train adversarially, and why others cannot."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedmeta.adversarial import OBJECTIVES
from fedmeta.errors import ConfigurationError

if TYPE_CHECKING:
    from fedmeta.adversarial.base import Objective
    from fedmeta.experiment import Experiment
    from fedmeta.learners.base import MetaLearner
    from fedmeta.tasks import Episode


def objective_of(experiment: "Experiment") -> "Objective | None":
    """What takes the place of the learner's outer loss; None where nothing does."""
    chosen = experiment.client.adversarial
    if chosen.name == "none":
        return None
    found: Objective = OBJECTIVES.make(chosen.name, where="client.adversarial", **chosen.parameters)
    return found


def trains_adversarially(experiment: "Experiment", client: int) -> bool:
    """Whether an honest client trains so."""
    objective = objective_of(experiment)
    return objective is not None and objective.trains(experiment.seed, client)


def check_adversarial(experiment: "Experiment") -> None:
    """Refuse adversarial training that cannot be; nothing is built where there is none.

    Raises:
        ConfigurationError: names key, value and remedy.
    """
    objective = objective_of(experiment)
    if objective is None:
        return
    from fedmeta.workload import Workload

    named = f"client.adversarial.name = '{experiment.client.adversarial.name}'"
    workload = Workload(experiment)
    data: Any = workload.spec_of_data
    if data.task.kind != "classification":
        raise ConfigurationError(
            f"{named} attacks inputs in [0, 1] of classes, and data '{experiment.data.name}' are for "
            f"{data.task.kind}: choose other data, or client.adversarial.name = 'none'"
        )
    if not judges_queries(workload.learner):
        raise ConfigurationError(
            f"{named} changes the loss of the query after adaptation, and learner '{experiment.learner.name}' does not "
            "descend one: use maml, fomaml, anil, boil, metasgd, imaml, perfedavg, lstm_meta, abml, protonet or "
            "matchingnet"
        )
    if experiment.privacy.unit == "example":
        raise ConfigurationError(
            f"{named} is not available with privacy.unit = 'example': an attacked query depends on the whole support, "
            "so that clipping example by example would not bound what one of them does. Use the task or client unit"
        )
    if objective.norm == "linf" and objective.eps > 1:
        raise ConfigurationError(
            f"client.adversarial.eps = {objective.eps:g} is above 1, the whole range of an input under linf: choose "
            "one in (0, 1], in units of pixels (8/255 is 0.031)"
        )
    if experiment.server.rounds == 0:
        warnings.warn(f"{named} has no effect: server.rounds = 0", stacklevel=4)


def check_episodes(episodes: "Sequence[Episode]") -> None:
    """Refuse inputs outside the range that attacks keep to.

    Raises:
        ConfigurationError: names the range that was found.
    """
    from fedmeta.evasion.ball import Ball, check_inputs

    for episode in episodes:
        for part in (episode.support, episode.query):
            check_inputs(part.x, Ball())


def judges_queries(learner: "MetaLearner") -> bool:
    """Whether another loss can take the place of the learner's: it has `query_gradient`, of its own `meta_gradient`.

    A subclass that has another `meta_gradient` alone would be trained as its parent.
    """
    order = type(learner).__mro__

    def depth(name: str) -> int:
        return next((place for place, each in enumerate(order) if name in vars(each)), len(order))

    return depth("query_gradient") < len(order) and depth("query_gradient") <= depth("meta_gradient")
