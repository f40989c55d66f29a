"""Epsilon of what happened, by every valid bound; and the noise that keeps to a wanted epsilon."""

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fedmeta.errors import ConfigurationError
from fedmeta.parameters import require_number
from fedmeta.privacy.accountants import ACCOUNTANTS, Accountant, OutOfReach, accountant, mixed
from fedmeta.privacy.events import MOST, Event, Gaussian, merged
from fedmeta.privacy.schemes import NoAmplification, Poisson, TruncatedPoisson, TwoStage
from fedmeta.privacy.units import Adjacency

AUTO = "auto"
"""The least of all valid bounds."""


@dataclass(frozen=True)
class Bound:
    """(epsilon, delta) by a named analysis.

    Attributes:
        epsilon: at least 0; infinite where there is no guarantee.
        delta: in (0, 1).
        accountant: which bound it is.
        version: of the package that computed it.
    """

    epsilon: float
    delta: float
    accountant: str
    version: str


@dataclass(frozen=True)
class Verdict:
    """One accountant's answer: a bound, or why it has none."""

    accountant: str
    bound: Bound | None
    refusal: str = ""


def bounds(events: Iterable[Event], delta: float) -> list[Verdict]:
    """Every accountant's bound on the composition of events, side by side. Reading changes nothing.

    Raises:
        ConfigurationError: delta out of (0, 1).
    """
    check_delta(delta)
    composed = merged(_events(events))
    return [_verdict(each, composed, delta) for each in ACCOUNTANTS.values()]


def tightest(events: Iterable[Event], delta: float, name: str = AUTO) -> Bound:
    """The least of the valid bounds, named; or that of one accountant.

    Args:
        events: what was or will be released.
        delta: in (0, 1).
        name: `auto`, `rdp`, `prv` or `pld`.

    Raises:
        ConfigurationError: no accountant, or not the named one, has a valid bound: the reasons are given.
    """
    check_delta(delta)
    composed = merged(_events(events))
    verdicts = [_verdict(each, composed, delta) for each in _chosen(name)]
    found = [verdict.bound for verdict in verdicts if verdict.bound is not None]
    if not found:
        raise _no_bound(verdict.refusal for verdict in verdicts)
    return min(found, key=lambda bound: bound.epsilon)


def check_bounded(events: Iterable[Event], delta: float, name: str = AUTO) -> None:
    """Refuse what `tightest` would have no answer for, without asking more accountants than it takes.

    Raises:
        ConfigurationError: as `tightest`.
    """
    composed, refusals = merged(events), []
    for each in _chosen(name):
        verdict = _verdict(each, composed, delta)
        if verdict.bound is not None:
            return
        refusals.append(verdict.refusal)
    raise _no_bound(refusals)


def contents_epsilon(events: Sequence[Event], delta: float) -> float:
    """Epsilon of other data within one unit, from releases whose epsilon is for the unit's being there at all.

    One contribution is taken out and another put in, so that a sum moves by 2 C, also where the unit's own epsilon is
    for C. Who takes part does not change with it: the unit's coin still amplifies, by joint convexity.

    Args:
        events: released by the unit, such as a client; not in two stages.
        delta: in (0, 1).
    """
    exchanged = [
        event
        if event.neighbours is Adjacency.REPLACE_ONE
        else replace(event, scheme=NoAmplification(), adjacency=Adjacency.REPLACE_ONE)
        for event in events
    ]
    amplified = [
        replace(now, scheme=TwoStage(event.scheme.rate, 1.0))
        if isinstance(event.scheme, (Poisson, TruncatedPoisson))
        else now
        for event, now in zip(events, exchanged, strict=True)
    ]
    return min(tightest(plan, delta).epsilon for plan in (exchanged, amplified))


def epsilon(noise_multiplier: float, sampling_rate: float, steps: int, delta: float, accountant: str = "prv") -> float:
    """Epsilon of the Poisson-sampled Gaussian mechanism, add or remove one unit.

    Args:
        noise_multiplier: standard deviation of the noise over the clip norm, > 0.
        sampling_rate: probability that a unit takes part in a step, in (0, 1]; draws must be independent coins.
        steps: how many, >= 0.
        delta: in (0, 1).
        accountant: `rdp`, `prv`, `pld`, or `auto` for the least.

    Raises:
        ConfigurationError: a value out of bounds.

    >>> round(epsilon(noise_multiplier=1, sampling_rate=0.01, steps=1000, delta=1e-5, accountant="rdp"), 2)
    2.1
    """
    require_number("noise_multiplier", noise_multiplier)
    if not noise_multiplier > 0:
        raise ConfigurationError(
            f"noise_multiplier = {noise_multiplier} must be > 0: without noise there is no guarantee"
        )
    event = Event(Gaussian(float(noise_multiplier)), _coins(sampling_rate), count=_whole("steps", steps))
    return tightest([event], delta, accountant).epsilon


def noise_multiplier(
    target_epsilon: float, sampling_rate: float, steps: int, delta: float, accountant: str = "prv"
) -> float:
    """The noise multiplier whose epsilon is at most the target, and close to it; arguments as for `epsilon`.

    Raises:
        ConfigurationError: a value out of bounds, or a target that cannot be reached.

    >>> round(noise_multiplier(target_epsilon=1, sampling_rate=0.05, steps=2000, delta=1e-5, accountant="rdp"), 1)
    9.1
    """
    scheme, count = _coins(sampling_rate), _whole("steps", steps)
    return calibrate(lambda z: [Event(Gaussian(z), scheme, count=count)], target_epsilon, delta, accountant)


SMALLEST, LARGEST = 0.05, 1e6
"""Noise multipliers between which calibration looks."""


def calibrate(plan: Callable[[float], Sequence[Event]], target: float, delta: float, name: str = AUTO) -> float:
    """The noise multiplier z for which the epsilon of `plan(z)` is at most the target, and above 0.98 of it.

    Raises:
        ConfigurationError: a target that is not positive, or that no noise multiplier reaches, with the reason.
    """
    check_delta(delta)
    require_number("target epsilon", target)
    if not target > 0:
        raise ConfigurationError(f"target epsilon = {target} must be > 0: no noise of finite size gives 0")
    if not sum(event.count for event in plan(1.0)):
        raise ConfigurationError("nothing is released, so that no noise is needed: plan at least one round (steps)")

    def spent(z: float) -> float:
        composed = merged(plan(z))
        refusals = [_refusal(each, composed) for each in _chosen(name)]
        if all(refusals):
            raise _no_bound(refusals)
        found = [_verdict(each, composed, delta).bound for each in _chosen(name)]
        return min((bound.epsilon for bound in found if bound is not None), default=math.inf)

    low, high, at_high = _bracket(spent, target, delta)
    while at_high < 0.995 * target and high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        found = spent(middle)
        if found <= target:
            high, at_high = middle, found
        else:
            low = middle
    return high


def _bracket(spent: Callable[[float], float], target: float, delta: float) -> tuple[float, float, float]:
    """z of too little noise, z of enough, and what the latter spends.

    From above in small steps: an accountant is slow, or gives up, where epsilon is far beyond the target.
    """
    high = 1.0
    while (at_high := spent(high)) > target:
        high *= 2
        if high > LARGEST:
            raise ConfigurationError(
                f"target epsilon = {target:g} cannot be reached at delta = {delta:g}: with a noise multiplier of "
                f"{LARGEST:g} the bound is still {at_high:.3g}. Raise the target or delta, or use another accountant"
            )
    low = high
    while at_high < 0.995 * target:
        low = high * (0.5 if at_high < 0.2 * target else 0.8)
        if low < SMALLEST:
            raise ConfigurationError(
                f"target epsilon = {target:g} is more than this plan can spend: even with a noise multiplier of "
                f"{high:.3g} the bound is {at_high:.3g}. Lower the target"
            )
        at_low = spent(low)
        if at_low > target:
            return low, high, at_high
        high, at_high = low, at_low
    return low, high, at_high


def check_delta(delta: float, population: int | None = None) -> None:
    """Refuse a delta that means nothing, and warn of one that is too large for the population.

    Raises:
        ConfigurationError: not in (0, 1).
    """
    require_number("delta", delta)
    if not 0 < delta < 1:
        raise ConfigurationError(f"delta = {delta} must be > 0, < 1: it is a probability of failure")
    if population and delta >= 1 / population:
        warnings.warn(
            f"delta = {delta:g} is not below 1 / {population}, one over the number of units: publishing one unit "
            "whole would satisfy it. Lower it",
            stacklevel=3,
        )


def _events(given: Iterable[Event]) -> list[Event]:
    """Events, or a refusal that says so."""
    found = list(given) if isinstance(given, Iterable) else [given]
    wrong = next((each for each in found if not isinstance(each, Event)), None)
    if wrong is not None or not isinstance(given, Iterable):
        raise ConfigurationError(
            f"events must be a list of Event, as [Event(Gaussian(1.0), Poisson(0.1))], not {given!r:.60}"
        )
    return found


def _no_bound(refusals: Iterable[str]) -> ConfigurationError:
    return ConfigurationError(f"no valid bound: {'; '.join(dict.fromkeys(refusals))}")


def _chosen(name: str) -> list[Accountant]:
    return list(ACCOUNTANTS.values()) if name == AUTO else [accountant(name)]


def _refusal(each: Accountant, events: tuple[Event, ...]) -> str:
    return mixed(events) or next(filter(None, map(each.refusal, events)), "")


def _verdict(each: Accountant, events: tuple[Event, ...], delta: float) -> Verdict:
    refusal = _refusal(each, events)
    if refusal:
        return Verdict(each.name, None, refusal)
    if not events:
        found = 0.0
    elif any(event.mechanism.noise_multiplier == 0 for event in events):
        found = math.inf
    else:
        try:
            found = _epsilon(each.name, events, delta)
        except OutOfReach as error:
            return Verdict(each.name, None, str(error))
    return Verdict(each.name, Bound(found, delta, each.name, each.version()))


@functools.lru_cache(maxsize=256)
def _epsilon(name: str, events: tuple[Event, ...], delta: float) -> float:
    """Kept, since a run asks for the same figure for its results, its report and its console."""
    return ACCOUNTANTS[name].epsilon(events, delta)


def _coins(sampling_rate: float) -> Poisson:
    require_number("sampling_rate", sampling_rate)
    if not 0 < sampling_rate <= 1:
        raise ConfigurationError(
            f"sampling_rate = {sampling_rate} must be > 0, <= 1: it is a probability of taking part"
        )
    return Poisson(sampling_rate)


def _whole(name: str, value: int) -> int:
    require_number(name, value)
    if int(value) != value or not 0 <= value <= MOST:
        raise ConfigurationError(f"{name} = {value} must be a whole number >= 0 and <= {MOST:g}")
    return int(value)
