"""Defences where a model is used: how a client adapts it. A new one is one file here and one line below."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment
    from fedmeta.learners.base import MetaLearner

__all__ = ["DEPLOYMENTS", "check_deployment", "deploy"]

DEPLOYMENTS = Registry(
    "deployments",
    {
        "matching_head": Entry(
            "fedmeta.deployment.matching_head:MatchingHead",
            "cosine attention over the support in place of the head",
            "Chen et al. 2020, arXiv 2006.07026; Vinyals et al. 2016, equation 1",
        ),
        "random_finetune": Entry(
            "fedmeta.deployment.random_finetune:RandomFineTune",
            "a fresh random head, fine-tuned before adaptation",
            "Qin et al. 2023 (simple tuning)",
        ),
    },
)


def deploy(name: str, learner: "MetaLearner", **parameters: Any) -> "MetaLearner":
    """A learner that adapts and predicts under a defence: `deploy("matching_head", learner, temperature=10)`.

    What comes back can be judged as any learner (`fedmeta.evaluation.evaluate`, `fedmeta.attacks.success`); it does not
    train.

    Raises:
        ConfigurationError: unknown name or parameter, a value out of bounds, a learner that the defence does not suit.
    """
    found: MetaLearner = DEPLOYMENTS.make(name, learner, where=f"deployment {name}", **parameters)
    return found


def check_deployment(experiment: "Experiment") -> None:
    """Refuse defences that do not suit the experiment's learner and task; nothing is built where there are none.

    Raises:
        ConfigurationError: names the key, the learner and the remedy.
    """
    if not experiment.evaluation.deployment:
        return
    from fedmeta.workload import Workload

    learner = Workload(experiment).learner
    for component in experiment.evaluation.deployment:
        deploy(component.name, learner, **component.parameters)
