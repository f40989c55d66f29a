"""Meta-learners: pure functions of one task. A new one is one file here and one line below."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import nn

    from fedmeta.learners.base import MetaLearner
    from fedmeta.tasks import Task

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
        "emaml": Entry(
            "fedmeta.learners.emaml:EMAML",
            "MAML for policies, with the score of the data that it adapts to",
            "Stadie et al. 2018; Al-Shedivat et al. 2018",
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
        "boil": Entry("fedmeta.learners.boil:BOIL", "MAML whose inner loop adapts all but the head", "Oh et al. 2021"),
        "imaml": Entry(
            "fedmeta.learners.imaml:IMAML",
            "implicit meta-gradient of a proximal optimum, by conjugate gradients",
            "Rajeswaran et al. 2019, algorithms 1 and 2",
        ),
        "perfedavg": Entry(
            "fedmeta.learners.perfedavg:PerFedAvg",
            "MAML on a client's own batches, first order or with Hessian products by differences",
            "Fallah et al. 2020, algorithm 1",
        ),
        "matchingnet": Entry(
            "fedmeta.learners.matchingnet:MatchingNet",
            "attention over support embeddings, full-context ones as an option",
            "Vinyals et al. 2016, equation 1 and appendix A",
        ),
        "lstm_meta": Entry(
            "fedmeta.learners.lstm_meta:LSTMMeta",
            "a learned LSTM cell is the inner optimiser",
            "Ravi and Larochelle 2017, section 3",
        ),
        "abml": Entry(
            "fedmeta.learners.abml:ABML",
            "a Gaussian over the weights, adapted by variational inference",
            "Ravi and Beatson 2019, algorithms 1 and 2",
        ),
        "pfedme": Entry(
            "fedmeta.learners.pfedme:PFedMe",
            "shared model on Moreau envelopes, personal weights beside it",
            "Dinh et al. 2020, algorithm 1",
        ),
        "ditto": Entry(
            "fedmeta.learners.ditto:Ditto",
            "ordinary shared model, personal weights drawn towards it",
            "Li et al. 2021, algorithm 1",
        ),
    },
)


def make_learner(
    name: str, model: "nn.Module", task: "str | Task" = "classification", **parameters: Any
) -> "MetaLearner":
    """Construct a learner: `make_learner("maml", model, inner_lr=0.4, inner_steps=5)`.

    Args:
        name: a registered name; `fedmeta list learners` prints them.
        model: the network; gradient learners need one with as many outputs as there are ways, ProtoNet an embedding.
        task: `classification`, `regression`, `control`, or a data set's own way of judging.
        parameters: the learner's own, as `fedmeta config` lists them.

    Raises:
        ConfigurationError: unknown name or parameter, a value out of bounds, a task the learner does not serve.
    """
    from fedmeta.errors import ConfigurationError
    from fedmeta.tasks import TASKS

    if isinstance(task, str):
        if task not in TASKS:
            raise ConfigurationError(f"unknown task '{task}': use {', '.join(TASKS)}")
        task = TASKS[task]
    learner: MetaLearner = LEARNERS.make(name, model, task, **parameters)
    check_serves(name, task)
    return learner


def check_serves(name: str, task: "Task") -> None:
    """Refuse a learner for a kind of task that it does not serve; the model plays no part.

    Raises:
        ConfigurationError: unknown name, or a task that the learner does not serve.
    """
    from fedmeta.errors import ConfigurationError

    serves: tuple[str, ...] = LEARNERS.get(name).serves  # type: ignore[attr-defined]
    if task.kind not in serves:
        raise ConfigurationError(
            f"learner '{name}' serves {', '.join(serves)}, not {task.kind}. Choose another learner or data set"
        )
