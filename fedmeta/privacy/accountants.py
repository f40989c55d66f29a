"""Accountants behind one interface: Opacus' RDP and PRV, and dp-accounting's PLD where that extra is installed.

Each says which events it has a valid bound for, and refuses the others with the reason.
"""

import importlib.metadata
import importlib.util
import math
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fedmeta.errors import ConfigurationError, FedmetaError, did_you_mean
from fedmeta.privacy.events import Event, Gaussian
from fedmeta.privacy.rdp import ORDERS, curve, to_epsilon
from fedmeta.privacy.schemes import NoAmplification, Poisson, TruncatedPoisson, TwoStage, WithoutReplacement
from fedmeta.privacy.units import Adjacency


class OutOfReach(FedmetaError):
    """An epsilon so large that an accountant's arithmetic cannot hold it."""


class Accountant(Protocol):
    """Upper bounds on epsilon by one analysis. Pure: asking changes nothing."""

    @property
    def name(self) -> str:
        """As in a configuration."""
        ...

    def version(self) -> str:
        """The package that computes, with its version; empty where it is not installed."""
        ...

    def refusal(self, event: Event) -> str:
        """Why it has no valid bound for an event; empty where it has one."""
        ...

    def epsilon(self, events: Sequence[Event], delta: float) -> float:
        """An upper bound for merged events, none of which is refused, whose noise is not zero.

        Raises:
            OutOfReach: it is larger than the arithmetic can hold.
        """
        ...


class Rdp:
    """Renyi accounting: valid for most schemes, looser than the others by a tenth or more, never fails."""

    name = "rdp"

    def version(self) -> str:
        """Opacus' version."""
        return _package("opacus")

    def refusal(self, event: Event) -> str:
        """Truncated draws have no curve, nor have draws of any kind under distributed noise."""
        if not (isinstance(event.mechanism, Gaussian) or isinstance(event.scheme, NoAmplification)):
            return (
                f"distributed noise has no bound here under sampling '{event.scheme}': the server sees who takes part"
            )
        if isinstance(event.scheme, TruncatedPoisson):
            return "RDP has no valid bound for capped Poisson draws; PLD has"
        return ""

    def epsilon(self, events: Sequence[Event], delta: float) -> float:
        """The least over orders of the summed curves."""
        total = np.zeros(len(ORDERS))
        for event in events:
            found = curve(event)
            assert found is not None
            total = total + event.count * found
        return to_epsilon(total, delta)


class Prv:
    """Numerical composition of privacy loss variables (Gopi et al. 2021) by Opacus: tight, the upper end is given."""

    name = "prv"
    largest = 500.0
    """Beyond this epsilon exp() overflows in Opacus' discretisation, which then answers infinity."""

    def version(self) -> str:
        """Opacus' version."""
        return _package("opacus")

    def refusal(self, event: Event) -> str:
        """Poisson-sampled and plain Gaussians only."""
        if not isinstance(event.mechanism, Gaussian):
            return "PRV composes Gaussians only; RDP bounds distributed noise"
        if isinstance(event.scheme, (Poisson, NoAmplification)):
            return ""
        return f"PRV composes Poisson-sampled Gaussians only, not sampling '{event.scheme}'"

    def epsilon(self, events: Sequence[Event], delta: float) -> float:
        """The upper end of its error interval, at most 0.01 wide, or a hundredth of a small epsilon."""
        from opacus.accountants import PRVAccountant

        rough = Rdp().epsilon(events, delta)
        if Rdp().epsilon(events, delta / 4000) > self.largest:
            raise OutOfReach(f"epsilon is about {rough:.3g}, more than PRV's discretisation can hold: use rdp")
        accountant = PRVAccountant()
        accountant.history = [
            (event.effective_multiplier, event.scheme.rate if isinstance(event.scheme, Poisson) else 1.0, event.count)
            for event in events
        ]
        error = min(0.01, max(1e-3, 0.01 * rough))
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                found = float(accountant.get_epsilon(delta, eps_error=error))
        except (RuntimeError, ValueError) as reason:
            raise OutOfReach(f"PRV's discretisation failed ({reason}): use rdp") from reason
        if not math.isfinite(found):
            raise OutOfReach("PRV's discretisation failed: use rdp")
        return found


class Pld:
    """Privacy loss distributions by Google's dp-accounting: tight, and the only bound for capped Poisson draws."""

    name = "pld"

    def version(self) -> str:
        """dp-accounting's version; empty without the extra."""
        return _package("dp-accounting") if importlib.util.find_spec("dp_accounting") else ""

    def refusal(self, event: Event) -> str:
        """What dp-accounting composes."""
        if not importlib.util.find_spec("dp_accounting"):
            return "PLD needs the extra: pip install 'fedmeta[accounting]'"
        if not isinstance(event.mechanism, Gaussian):
            return "PLD has no bound for distributed noise; RDP has"
        if isinstance(event.scheme, WithoutReplacement):
            return "PLD has no bound for fixed-size draws without replacement; RDP has"
        if isinstance(event.scheme, TwoStage):
            return "PLD has no bound for clients and then tasks; RDP has"
        return ""

    def epsilon(self, events: Sequence[Event], delta: float) -> float:
        """By pessimistic discretisation of the loss at intervals of 1e-4."""
        import dp_accounting
        from dp_accounting import pld

        accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
        for event in events:
            z = event.effective_multiplier
            if isinstance(event.scheme, TruncatedPoisson):
                scheme = event.scheme
                one = dp_accounting.dp_event.TruncatedSubsampledGaussianDpEvent(
                    scheme.population, scheme.rate, scheme.cap, z
                )
            elif isinstance(event.scheme, Poisson):
                one = dp_accounting.PoissonSampledDpEvent(event.scheme.rate, dp_accounting.GaussianDpEvent(z))
            else:
                one = dp_accounting.GaussianDpEvent(z)
            accountant.compose(one, event.count)
        return max(0.0, float(accountant.get_epsilon(delta)))


ACCOUNTANTS: dict[str, Accountant] = {"rdp": Rdp(), "prv": Prv(), "pld": Pld()}
"""By name, as a configuration gives them."""


def accountant(name: str) -> Accountant:
    """The accountant of a name.

    Raises:
        ConfigurationError: an unknown name.
    """
    if not isinstance(name, str) or name not in ACCOUNTANTS:
        raise ConfigurationError(f"unknown accountant '{name!s:.80}'{did_you_mean(str(name), list(ACCOUNTANTS))}")
    return ACCOUNTANTS[name]


def mixed(events: Sequence[Event]) -> str:
    """Why events cannot be composed to one epsilon; empty where they can."""
    kinds = {event.neighbours for event in events}
    if len(kinds) > 1 and kinds != {Adjacency.ADD_REMOVE, Adjacency.REPLACE_SPECIAL}:
        return f"events under {' and '.join(sorted(kind.value for kind in kinds))} neighbours have no common epsilon"
    return ""


def _package(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name
