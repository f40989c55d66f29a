"""Renyi differential privacy curves: of the sampled Gaussian (Opacus), without replacement, and in two stages."""

import functools
import warnings

import numpy as np

from fedmeta.privacy.events import Event, Gaussian
from fedmeta.privacy.rdp_orders import ORDERS, Curve
from fedmeta.privacy.schemes import NoAmplification, Poisson, TwoStage, WithoutReplacement


def curve(event: Event) -> Curve | None:
    """epsilon(alpha) of one application at `ORDERS`; None where there is no valid bound of this kind.

    `event.count` is left to the caller, since curves of compositions add.
    """
    z, scheme = event.effective_multiplier, event.scheme
    if z == 0:
        return np.full(len(ORDERS), np.inf)
    if not isinstance(event.mechanism, Gaussian):
        unsampled = isinstance(scheme, NoAmplification)
        return event.mechanism.curve(ORDERS, event.neighbours.sensitivity) if unsampled else None
    if isinstance(scheme, NoAmplification):
        return ORDERS / (2 * z**2)
    if isinstance(scheme, Poisson):
        return _sampled_gaussian(scheme.rate, z)
    if isinstance(scheme, WithoutReplacement):
        return _without_replacement(scheme.drawn / scheme.population, z)
    if isinstance(scheme, TwoStage):
        return two_stage(scheme.steps * _sampled_gaussian(scheme.task_rate, z), scheme.client_rate)
    return None


def to_epsilon(rdp: Curve, delta: float) -> float:
    """The least epsilon that a curve at `ORDERS` gives (Balle et al. 2020, theorem 21, by Opacus); at least 0."""
    from opacus.accountants.analysis.rdp import get_privacy_spent

    if not np.isfinite(rdp).any():
        return float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is an outermost one: then it is a looser bound, and valid
        found, _ = get_privacy_spent(orders=ORDERS, rdp=rdp, delta=delta)
    return max(0.0, float(found))


@functools.lru_cache(maxsize=512)
def _sampled_gaussian(rate: float, z: float) -> Curve:
    """Poisson-sampled Gaussian (Mironov, Talwar, Zhang 2019), by Opacus; add or remove one."""
    from opacus.accountants.analysis.rdp import compute_rdp

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = np.array([_at(compute_rdp, rate, z, float(order)) for order in ORDERS])
    return np.maximum(found, 0.0)


def _at(compute_rdp, rate: float, z: float, order: float) -> float:  # type: ignore[no-untyped-def]
    try:
        value = float(compute_rdp(q=rate, noise_multiplier=z, steps=1, orders=order))
    except (ValueError, OverflowError):  # its series lost all digits at this order; the others remain
        return float("inf")
    return float("inf") if np.isnan(value) else value


def two_stage(given_client: Curve, client_rate: float) -> Curve:
    """A curve that holds given that the client takes part, amplified by the client's coin.

    By joint convexity of exp((alpha - 1) D_alpha): log(1 + q (e^((alpha - 1) epsilon(alpha)) - 1)) / (alpha - 1).
    """
    exponent = (ORDERS - 1) * given_client
    with np.errstate(over="ignore", invalid="ignore"):
        # log(1 + q (e^x - 1)) = x + log(q + (1 - q) e^-x), which does not overflow.
        return (exponent + np.log(client_rate + (1 - client_rate) * np.exp(-exponent))) / (ORDERS - 1)


@functools.lru_cache(maxsize=128)
def _without_replacement(fraction: float, z: float) -> Curve:
    """Gaussian on a sample without replacement, replace one (Wang, Balle, Kasiviswanathan 2019, theorem 27).

    `z` is noise over the sensitivity of exchanging one unit. Other than integer orders are interpolated (corollary 10:
    (alpha - 1) epsilon(alpha) is convex). Where that is
    loose the curve without sampling holds, by quasi-convexity.
    """
    if fraction == 1.0:
        return ORDERS / (2 * z**2)
    lower, upper = np.floor(ORDERS), np.ceil(ORDERS)
    known = sorted({int(order) for order in (*lower, *upper)})
    log_moments = _log_differences(z, max(known))
    cgf = {order: _log_moment(order, fraction, z, log_moments) for order in known}
    share = ORDERS - lower
    at_lower, at_upper = (np.array([cgf[int(order)] for order in side]) for side in (lower, upper))
    sampled: Curve = ((1 - share) * at_lower + share * at_upper) / (ORDERS - 1)
    return np.minimum(sampled, ORDERS / (2 * z**2))


def _log_moment(order: int, fraction: float, z: float, log_differences: Curve) -> float:
    """log of the bound on E[(P/Q)^alpha] at an integer order."""
    from scipy.special import gammaln, logsumexp

    if order < 2:
        return 0.0
    j = np.arange(2, order + 1)
    log_binomial = gammaln(order + 1) - gammaln(j + 1) - gammaln(order - j + 1)
    moments = j * (j - 1) / (2 * z**2)  # log E[L^j] = (j - 1) epsilon(j)
    even = 0.5 * (log_differences[2 * (j // 2)] + log_differences[2 * ((j + 1) // 2)])
    terms = np.minimum(np.log(4) + even, np.log(2) + moments)
    return float(logsumexp([0.0, *(j * np.log(fraction) + log_binomial + terms)]))


def _log_differences(z: float, order: int) -> Curve:
    """log E_Q[(L - 1)^j] for even j up to `order` + 1, L the likelihood ratio of N(1, z^2) and N(0, z^2).

    By quadrature, whose terms are all positive: forward differences of the moments, as in the paper, cancel. It ends
    where a term could overflow, with infinity, after which the other bound of the minimum holds.
    """
    from scipy.special import logsumexp

    found = np.full(order + 3, np.inf)
    # The integrand L^j Q peaks near j, and (1 - L)^j Q near 0.
    top = min(order + 2, 64)
    x = np.linspace(-12 * z, top + 12 * z, 40_001)
    log_q = -(x**2) / (2 * z**2) - np.log(z * np.sqrt(2 * np.pi))
    log_ratio = (2 * x - 1) / (2 * z**2)
    with np.errstate(divide="ignore", over="ignore"):
        log_gap = np.where(log_ratio > 30, log_ratio, np.log(np.abs(np.expm1(np.minimum(log_ratio, 30)))))
    for j in range(2, top + 1, 2):
        found[j] = logsumexp(j * log_gap + log_q) + np.log(x[1] - x[0])
    return found
