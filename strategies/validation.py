"""The validation round between training rounds: the model, and an attack's success, on validation clients."""

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Message
from torch import Tensor

from fedmeta.attacks.success import AttackSuccess
from fedmeta.attacks.threat import describe_attack, success_steps
from fedmeta.experiment import Experiment
from fedmeta.statistics import Evaluation
from fedmeta.wire import vector_record
from strategies.directory import Directory
from strategies.judging import Judging


class Validation:
    """What is asked of validation clients, and what the last answers say.

    Args:
        experiment: validated.
        directory: the clients.

    `evaluation`, `failed` (client id -> reason) and `success` tell of the last round asked; `clean`, `[D]`, is a model
    that nobody attacked, set where there is one, for the lift of that success.
    """

    def __init__(self, experiment: Experiment, directory: Directory) -> None:
        self.experiment, self.directory = experiment, directory
        self.judging = Judging(
            "validation", experiment.evaluation.validation_episodes, success_steps=success_steps(experiment)
        )
        self.evaluation: Evaluation | None = None
        self.failed: dict[int, str] = {}
        self.success: AttackSuccess | None = None
        self.clean: Tensor | None = None
        self._asked: list[Message] = []

    def messages(self, arrays: ArrayRecord, base: Mapping[str, Any]) -> list[Message]:
        """One message a validation client, about its frozen episodes; none where there are none."""
        beside = vector_record(self.clean) if self.clean is not None and self.judging.success_steps else None
        self._asked = self.judging.messages(self.directory, arrays, base, beside)
        return self._asked

    def summarise(self, replies: Iterable[Message]) -> Evaluation | None:
        """The evaluation that the replies make; None where no client answered."""
        answers = list(replies)
        self.evaluation, self.failed = self.judging.summarise(self.directory, self._asked, answers)
        if self.judging.success_steps:
            protocol = describe_attack(self.experiment)
            self.success, silent = self.judging.success(self.directory, self._asked, answers, protocol)
            self.failed = {**silent, **self.failed}
        return self.evaluation
