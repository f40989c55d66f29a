"""What an attacker of adapted models may do, checked before anything is computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.evasion import EVASIONS, make_evasion
from fedmeta.evasion.ball import Ball, Norm, check_inputs
from fedmeta.evasion.base import Evasion
from fedmeta.evasion.losses import require_ways
from fedmeta.evasion.target import PARTS, Part, check_differentiable
from fedmeta.execution import to_device
from fedmeta.learners.base import MetaLearner
from fedmeta.learners.functional import ways_of
from fedmeta.parameters import parameters_of, require_number
from fedmeta.params import Params
from fedmeta.tasks import Episode

APGD = ("apgd_ce", "apgd_dlr")
"""What `apgd` stands for."""


@dataclass(frozen=True)
class Plan:
    """A threat model: what is moved, how far, by which attacks.

    Attributes:
        norm: of a change.
        eps: radii, ascending.
        attacks: by name; see `attacks_of`.
        on: what moves: the query, the support, or both.
        steps: of adaptation; None: the learner's own.
        seed: of the attacks' draws.

    Raises:
        ConfigurationError: no attack or radius, radii that do not ascend, or one that is none (`Ball`).
    """

    norm: Norm = "linf"
    eps: tuple[float, ...] = (0.05, 0.1, 0.2)
    attacks: Mapping[str, Evasion] = field(default_factory=dict)
    on: Part = "query"
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.on not in PARTS:
            raise ConfigurationError(f"on = '{self.on}' is no part of an episode{did_you_mean(self.on, list(PARTS))}")
        require_number("seed", self.seed, whole=True)
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"seed = {self.seed} must be from 0 to 2^63 - 1")
        if not self.attacks:
            raise ConfigurationError(f"there is no attack to try: name some of {', '.join(EVASIONS.entries())}")
        if not self.eps or list(self.eps) != sorted(set(self.eps)):
            raise ConfigurationError(f"eps = {list(self.eps)} must be one or more radii that ascend")
        for eps in self.eps:
            Ball(self.norm, eps)

    def ball(self, eps: float) -> Ball:
        """The ball of a radius, for what is attacked."""
        return Ball(self.norm, eps, lead=1 if self.on == "query" else 2)

    def check(self, learner: MetaLearner, params: Params, episodes: Sequence[Episode]) -> None:
        """Refuse what this learner or these episodes do not allow.

        Raises:
            ConfigurationError: regression, inputs outside [0, 1], too few classes, inputs that are no images for an
                attack of images, an adaptation without gradients for an attack that needs them.
        """
        if learner.task.kind != "classification":
            raise ConfigurationError(
                f"evasion is judged by wrong classes, and this task is {learner.task.kind}. Attack a classification run"
            )
        if not episodes:
            raise ConfigurationError("there is no episode to attack")
        ball, ways = self.ball(self.eps[-1]), min(map(ways_of, episodes))
        for episode in episodes:
            check_inputs(episode.query.x, ball)
            check_inputs(episode.support.x, ball)
        for name, evasion in self.attacks.items():
            require_ways(ways, evasion.least_ways, f"evasion '{name}' compares that many")
            evasion.check(tuple(episodes[0].query.x.shape[1:]), ball)
        if self.on != "query" and not all(evasion.black_box for evasion in self.attacks.values()):
            device = next(iter(params.values())).device
            check_differentiable(learner, params, to_device(episodes[0], device), self.steps)

    def to_json(self) -> dict[str, Any]:
        """What must stand beside the numbers."""
        return {
            "norm": self.norm,
            "eps": list(self.eps),
            "on": self.on,
            "attacks": {name: settings_of(evasion) for name, evasion in self.attacks.items()},
            "seed": self.seed,
        }


def settings_of(evasion: Evasion) -> dict[str, Any]:
    """The parameters of an attack, and whether it is a black box."""
    own = {name: getattr(evasion, name) for name in parameters_of(type(evasion))}
    return {**own, "black_box": evasion.black_box}


def attacks_of(names: Iterable[str], settings: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Evasion]:
    """Attacks by name, in order and once each; `apgd` stands for both `apgd_ce` and `apgd_dlr`.

    Args:
        names: registered ones.
        settings: name -> parameters.

    Raises:
        ConfigurationError: an unknown name or parameter, or parameters of an attack that is not among the names.
    """
    wanted = list(dict.fromkeys(own for name in names for own in (APGD if name == "apgd" else (name,))))
    given = dict(settings or {})
    for name in given:
        if name not in wanted:
            raise ConfigurationError(
                f"parameters for '{name}', which is not among the attacks {', '.join(wanted)}"
                f"{did_you_mean(name, wanted)}"
            )
    return {name: make_evasion(name, **given.get(name, {})) for name in wanted}
