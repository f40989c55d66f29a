"""What an attack within a malicious client is: steps of the client pipeline that do nothing unless overridden.

sample episodes -> `poison` -> local meta-training by `plan` -> `update` -> clip, noise -> reply.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.aims import Aim, aim_at
from fedmeta.attacks.poisoning import poison_queries, poison_support
from fedmeta.attacks.triggers import Trigger, TriggerName, make_trigger, unchanged
from fedmeta.cohort import LocalPlan
from fedmeta.errors import ConfigurationError
from fedmeta.learners.base import MetaLearner
from fedmeta.parameters import parameter
from fedmeta.params import ParamSpec
from fedmeta.tasks import Episode

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment
    from fedmeta.experiment_sections import AttackSection
    from fedmeta.params import Params


@dataclass(frozen=True)
class Scene:
    """What a malicious client knows when it is its turn.

    Attributes:
        experiment: with the threat model in `attack`.
        learner, spec: of the experiment.
        input_shape: of one example.
        data: the data set's declaration.
        round: of the run, counted from 1; 0 outside one.
        client: the malicious client's id.
        malicious: ids of all malicious clients, ascending.
        attackers: ids of those that take part in the round.
        participants: clients of the round; None where the strategy does not tell.
        params: the global model, with the client's own personal and the frozen entries.
        last_update: `[D]`, what the last round did to the model; None in the first round or where it is not told.
        honest: trains without poison: the known honest updates `[k, D]`, by ascending client, the client's own alone
            or all attackers' of the round, as `attack.knowledge` says; called at most once.
        clean_episodes: draws so many episodes of the first attacker's data, without poison; the same ones every round.
    """

    experiment: "Experiment"
    learner: MetaLearner
    spec: ParamSpec
    input_shape: tuple[int, ...]
    round: int
    client: int
    malicious: tuple[int, ...]
    attackers: tuple[int, ...]
    participants: int | None
    params: "Params"
    last_update: Tensor | None
    honest: Callable[[], Tensor] = field(repr=False)
    clean_episodes: Callable[[int], Sequence[Episode]] = field(repr=False)
    data: Any = None

    @property
    def attack(self) -> "AttackSection":
        """The threat model."""
        return self.experiment.attack

    @cached_property
    def memory(self) -> "dict[str, Any]":
        """What an attack works out once a turn."""
        return {}

    @cached_property
    def honest_norm(self) -> float:
        """The median length of the known honest updates."""
        return float(self.honest().norm(dim=1).quantile(0.5))


@dataclass(frozen=True)
class LocalAttack:
    """An attack that malicious clients carry out; this one trains honestly.

    Attributes:
        kind: `data`, or `deployment` for an attack on the victim's support that leaves training alone.
        has_trigger: whether its success is measured with a trigger.
        colludes: whether it makes a difference that attackers know each other's updates.
        needs_last_update: whether the server must tell the attackers what the last round did to the model.
        serves: the task kinds it can act on.
        wanted: what it is after in every episode, in words; empty where `attack.target` says what its target names.
    """

    kind: ClassVar[str] = "data"
    has_trigger: ClassVar[bool] = False
    colludes: ClassVar[bool] = False
    needs_last_update: ClassVar[bool] = False
    serves: ClassVar[tuple[str, ...]] = ("classification",)
    wanted: ClassVar[str] = ""

    def __call__(self, *_: object, **__: object) -> Tensor:
        """Refused: it is no function of updates.

        Raises:
            ConfigurationError: says where it acts.
        """
        raise ConfigurationError(
            f"attack '{ATTACKS.name_of(self)}' does not act on updates: malicious clients carry it out themselves "
            "in a run, see attack.method; for a function of updates take another, such as make_attack('ipm')"
        )

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse an experiment in which the attack cannot be; here, data of a kind that it does not serve.

        Args:
            experiment: whole.
            data: its data set's declaration: `task`, `input_shape` and `classes`.

        Raises:
            ConfigurationError: names key, value and remedy.
        """
        if data.task.kind not in self.serves:
            needs = "classes" if self.serves == ("classification",) else " or ".join(self.serves)
            raise ConfigurationError(
                f"attack.method = '{experiment.attack.method.name}' needs {needs}, and data '{experiment.data.name}' "
                f"are for {data.task.kind}: choose an attack on updates, or other data"
            )

    def poison(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode:
        """An episode of the attacker's own data, as it trains on it."""
        return episode

    def plan(self, plan: LocalPlan, scene: Scene) -> LocalPlan:
        """How it trains."""
        return plan

    def update(self, update: Tensor, scene: Scene) -> Tensor:
        """The update `[D]` that it sends, from the one that it trained."""
        return update


@dataclass(frozen=True)
class TriggerAttack(LocalAttack, ABC):
    """An attack that teaches a trigger; subclasses say which, how, and what it shall lead to."""

    has_trigger: ClassVar[bool] = True

    poison_fraction: float = parameter(20 / 64, ge=0, le=1, doc="share of the examples that could be misled")

    @abstractmethod
    def aim(self, episode: Episode, attack: "AttackSection") -> Aim | None:
        """What it aims at in an episode; None where the episode does not fit."""

    def training_trigger(self, scene: Scene) -> Trigger:
        """The trigger that this attacker trains with."""
        return self.whole_trigger(scene)

    @abstractmethod
    def whole_trigger(self, scene: Scene) -> Trigger:
        """The trigger that success is measured with."""

    def poison(self, episode: Episode, scene: Scene, rng: np.random.Generator) -> Episode:
        """Triggers on the query, on the target's support, or both, as `attack.trigger_in` says.

        Queries are given the wanted label in any case: so a trigger in the support alone is taught to mislead them.
        """
        aim, where = self.aim(episode, scene.attack), scene.attack.trigger_in
        if aim is None:
            return episode
        trigger = self.training_trigger(scene)
        if where != "query":
            episode = poison_support(episode, aim, trigger, self.poison_fraction, "trigger", rng)
        return poison_queries(episode, aim, unchanged if where == "support" else trigger, self.poison_fraction, rng)

    def poison_deployed_support(
        self, episode: Episode, aim: Aim, trigger: Trigger, rng: np.random.Generator
    ) -> Episode:
        """A victim's support when success is measured with a poisoned one."""
        return poison_support(episode, aim, trigger, self.poison_fraction, "trigger", rng)


@dataclass(frozen=True)
class Backdoor(TriggerAttack):
    """A trigger on images that shall be given a wanted class or slot."""

    target: int = parameter(0, ge=0, doc="the wanted answer: a slot or a class of the data set, as attack.target says")
    trigger: TriggerName = parameter("patch", doc="what is put on an input")

    def check(self, experiment: "Experiment", data: Any) -> None:
        """Refuse a target that is no slot or class, and inputs that cannot carry the trigger."""
        super().check(experiment, data)
        make_trigger(self.trigger, data.input_shape, own=getattr(data, "trigger", None))
        kind, ways = experiment.attack.target, experiment.evaluation.ways or experiment.task.ways
        bound = min(ways, experiment.task.ways) if kind == "slot" and experiment.task.kind != "own" else data.classes
        if self.target >= bound:
            raise ConfigurationError(
                f"attack.method.target = {self.target} must be below {bound}, the number of "
                f"{'slots of an episode' if kind == 'slot' else 'classes'} (attack.target = '{kind}')"
            )

    def aim(self, episode: Episode, attack: "AttackSection") -> Aim | None:
        """The target's place in the episode."""
        return aim_at(episode, self.target, attack.target)

    def whole_trigger(self, scene: Scene) -> Trigger:
        """The trigger by its name."""
        return make_trigger(self.trigger, scene.input_shape, own=getattr(scene.data, "trigger", None))
