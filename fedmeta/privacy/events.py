"""What is accounted: a mechanism that was applied, to units that were sampled in a certain way, so many times."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, ClassVar

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import is_finite, require_number
from fedmeta.privacy.distributed.mechanisms import DiscreteGaussian, Skellam
from fedmeta.privacy.schemes import Scheme, scheme_from_json, scheme_to_json
from fedmeta.privacy.selection import BestOf
from fedmeta.privacy.units import Adjacency

LEAST_NOISE, MOST_NOISE = 1e-6, 1e9
"""Bounds of a noise multiplier that is not 0."""

MOST = 10**12
"""Applications at most: curves and their sums stay within float64, and no run has as many."""


@dataclass(frozen=True)
class Gaussian:
    """A sum of contributions clipped to norm C, plus Gaussian noise of standard deviation `noise_multiplier` C.

    Args:
        noise_multiplier: z = standard deviation / C; 0 is no noise and so no guarantee, any other from 1e-6 to 1e9,
            between which curves are computed without overflow.

    Raises:
        ConfigurationError: one outside these bounds.
    """

    noise_multiplier: float
    exactness: ClassVar[str] = (
        "Gaussian noise in float64: an approximation of the real-valued one that the bound speaks of"
    )
    analysis: ClassVar[str] = ""

    def __post_init__(self) -> None:
        z = self.noise_multiplier
        if not (isinstance(z, Real) and is_finite(z) and z >= 0):
            raise ConfigurationError(
                f"noise_multiplier = {z} must be finite and >= 0: it is the noise's standard deviation over the clip "
                "norm"
            )
        if z and not LEAST_NOISE <= z <= MOST_NOISE:
            raise ConfigurationError(
                f"noise_multiplier = {z:g} must be 0 or from {LEAST_NOISE:g} to {MOST_NOISE:g}: no bound can be "
                "computed beyond, and none would be of use"
            )

    def __str__(self) -> str:
        return f"Gaussian, z = {self.noise_multiplier:g}"


Mechanism = Gaussian | Skellam | DiscreteGaussian | BestOf

_MECHANISMS: dict[str, type[Mechanism]] = {
    "gaussian": Gaussian,
    "skellam": Skellam,
    "distributed-discrete-gaussian": DiscreteGaussian,
    "best-of": BestOf,
}


@dataclass(frozen=True)
class Event:
    """`count` applications of a mechanism to units drawn by a scheme.

    Args:
        mechanism: what was applied.
        scheme: how units were drawn.
        adjacency: of the guarantee; None for the one that is natural to the scheme.
        count: applications, >= 0; each on a fresh draw.

    Raises:
        ConfigurationError: an adjacency under which the scheme has no valid analysis here.
    """

    mechanism: Mechanism
    scheme: Scheme
    adjacency: Adjacency | None = None
    count: int = 1

    def __post_init__(self) -> None:
        for name, value, kinds in (("mechanism", self.mechanism, Mechanism), ("scheme", self.scheme, Scheme)):
            if not isinstance(value, kinds):
                raise ConfigurationError(
                    f"{name} = {value!r:.60} is none: give one such as Gaussian(1.0) or Poisson(0.1)"
                )
        require_number("count", self.count, whole=True)
        if not 0 <= self.count <= MOST:
            raise ConfigurationError(f"count = {self.count} must be >= 0, <= {MOST:g}")
        if self.adjacency is None:
            object.__setattr__(self, "adjacency", self.scheme.natural)
        elif self.adjacency not in self.scheme.adjacencies:
            known = ", ".join(sorted(kind.value for kind in self.scheme.adjacencies))
            raise ConfigurationError(
                f"{self.adjacency.value} neighbours cannot be accounted under sampling '{self.scheme}': one unit more "
                f"or less, or another in its place, changes the draw of the others. Use {known}"
            )

    @property
    def neighbours(self) -> Adjacency:
        """The adjacency, resolved."""
        assert self.adjacency is not None
        return self.adjacency

    @property
    def effective_multiplier(self) -> float:
        """Noise over sensitivity: z, or z / 2 where a unit is replaced by another. All that a Gaussian costs by."""
        return self.mechanism.noise_multiplier / self.neighbours.sensitivity

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `Event.from_json` reads."""
        kind = next(name for name, cls in _MECHANISMS.items() if type(self.mechanism) is cls)
        return {
            "mechanism": {"kind": kind, **_parameters(self.mechanism)},
            "scheme": scheme_to_json(self.scheme),
            "adjacency": self.neighbours.value,
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Event":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: not such an object, or another mechanism.
        """
        parameters = dict(data["mechanism"])
        kind = parameters.pop("kind")
        if kind not in _MECHANISMS:
            raise ValueError(f"unknown mechanism '{kind}'")
        mechanism = BestOf.from_json(parameters) if kind == "best-of" else _MECHANISMS[kind](**parameters)
        return cls(mechanism, scheme_from_json(data["scheme"]), Adjacency(data["adjacency"]), int(data["count"]))


def _parameters(mechanism: Mechanism) -> dict[str, Any]:
    return mechanism.to_json() if isinstance(mechanism, BestOf) else asdict(mechanism)


def merged(events: Iterable[Event]) -> tuple[Event, ...]:
    """Alike events as one, in an order of their own: composition does not depend on the order in which they happened.

    >>> from fedmeta.privacy.schemes import Poisson
    >>> [event.count for event in merged([Event(Gaussian(1.0), Poisson(0.1)), Event(Gaussian(1.0), Poisson(0.1))])]
    [2]
    """
    counts: Counter[tuple[Mechanism, Scheme, Adjacency]] = Counter()
    for event in events:
        counts[event.mechanism, event.scheme, event.neighbours] += event.count
    found = [Event(*kind, count) for kind, count in counts.items() if count]
    return tuple(sorted(found, key=repr))
