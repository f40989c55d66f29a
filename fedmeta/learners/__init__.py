"""Meta-learners: pure functions of one task. A new one is one file here and one line below."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn

    from fedmeta.learners.base import MetaLearner

__all__ = ["LEARNERS", "make_learner"]

LEARNERS = Registry(
    "learners",
    {
        "maml": Entry(
            "fedmeta.learners.maml:MAML",
            "second-order gradient through the inner loop",
            "Finn et al. 2017, algorithm 1",
        ),
        "fomaml": Entry(
            "fedmeta.learners.maml:FOMAML",
            "query gradient taken at the adapted parameters",
            "Finn et al. 2017, section 5.2",
        ),
        "anil": Entry("fedmeta.learners.maml:ANIL", "MAML whose inner loop adapts the head only", "Raghu et al. 2020"),
        "metasgd": Entry(
            "fedmeta.learners.metasgd:MetaSGD",
            "MAML with a learned step size per parameter",
            "Li et al. 2017, algorithm 1",
        ),
        "reptile": Entry(
            "fedmeta.learners.reptile:Reptile",
            "move towards the parameters after k inner steps",
            "Nichol et al. 2018, algorithm 1",
        ),
        "protonet": Entry(
            "fedmeta.learners.protonet:ProtoNet",
            "nearest class mean in a learned embedding",
            "Snell et al. 2017, algorithm 1",
        ),
        "fedavg": Entry(
            "fedmeta.learners.fedavg:FedAvg",
            "joint training, fine-tuned at test: the baseline",
            "McMahan et al. 2017; Chen et al. 2018, FedAvg(Meta)",
        ),
    },
)


def make_learner(name: str, model: "nn.Module", task: str = "classification", **parameters: Any) -> "MetaLearner":
    """Construct a learner: `make_learner("maml", model, inner_lr=0.4, inner_steps=5)`.

    Args:
        name: a registered name; `fedmeta list learners` prints them.
        model: the network; gradient learners need one with as many outputs as there are ways, ProtoNet an embedding.
        task: `classification` or `regression`.
        parameters: the learner's own, as `fedmeta config` lists them.

    Raises:
        ConfigurationError: unknown name or parameter, a value out of bounds, a task the learner does not serve.
    """
    from fedmeta.errors import ConfigurationError
    from fedmeta.tasks import TASKS

    if task not in TASKS:
        raise ConfigurationError(f"unknown task '{task}': use classification or regression")
    learner = LEARNERS.make(name, model, TASKS[task], **parameters)
    if task not in learner.serves:
        raise ConfigurationError(
            f"learner '{name}' serves {', '.join(learner.serves)}, not {task}. Choose another learner or data set"
        )
    return learner
