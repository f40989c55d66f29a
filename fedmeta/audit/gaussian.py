"""Audits that take the trade-off for a Gaussian one: a bound by error rates, and the one-shot estimate.

Both are tighter than the one-run audit, and assume more.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

THRESHOLDS = np.arange(0.05, 1.0, 0.05)
"""Quantiles of the scores at which error rates are taken; the failure probability is divided among them."""


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of N(0, 1) against N(mu, 1) (Balle and Wang 2018, equation 6).

    >>> round(gaussian_epsilon(1.0, 1e-5), 3)
    4.377
    """
    return pair_epsilon(0.0, 1.0, mu, 1.0, delta) if mu > 0 else 0.0


def mu_bound_epsilon(inside: Floats, outside: Floats, delta: float, beta: float = 0.05) -> float:
    """A lower bound on epsilon from error rates, if the trade-off is Gaussian (Dong et al. 2022; Nasr et al. 2023).

    mu >= Phi^-1(1 - FPR) - Phi^-1(FNR), with Clopper-Pearson upper bounds of both rates at a fixed set of thresholds.

    Args:
        inside, outside: scores of canaries that took part, and of others; independent of one another.
        delta: of the claim.
        beta: probability that the bound is wrong, in (0, 1).
    """
    from scipy.stats import norm

    level = beta / (2 * len(THRESHOLDS))
    best = 0.0
    # A threshold that is an order statistic of the scores outside has a false positive rate of law Beta(k, n - k + 1),
    # which the Clopper-Pearson bound of k errors covers; the scores inside do not know of it.
    for threshold in np.quantile(outside, THRESHOLDS, method="higher"):
        positives, negatives = int((outside >= threshold).sum()), int((inside < threshold).sum())
        fpr, fnr = _upper(positives, len(outside), level), _upper(negatives, len(inside), level)
        if max(fpr, fnr) < 1:
            best = max(best, float(norm.ppf(1 - fpr) - norm.ppf(fnr)))
    return gaussian_epsilon(best, delta)


def _upper(errors: int, count: int, level: float) -> float:
    """Clopper-Pearson upper bound of an error rate."""
    from scipy.stats import beta as beta_law

    return 1.0 if errors == count else float(beta_law.ppf(1 - level, errors + 1, count - errors))


def one_shot_estimate(cosines: Floats, dimension: int, delta: float, null: Floats | None = None) -> float:
    """The epsilon at which canaries' cosines stand apart from chance (Andrew et al. 2023, algorithm 1).

    An estimate, not a bound: it fits a Gaussian to the canaries that took part, against N(0, 1 / d) for a random
    direction that did not, and takes the larger of the two directions of the trade-off.

    Args:
        cosines: `[k]`, k >= 2, of each canary's random direction with what is observed.
        dimension: d, of the directions; a few hundred at least, for the null to be Gaussian.
        delta: of the claim.
        null: cosines of canaries that did not take part, to fit the other Gaussian to. Needed where canaries are so
            many that they are a good part of what is observed, which 1 / d does not know of; None for N(0, 1 / d).
    """
    root = math.sqrt(dimension)
    mean, std = (0.0, 1.0) if null is None else (float(null.mean()) * root, float(null.std(ddof=1)) * root)
    return pair_epsilon(mean, std, float(cosines.mean()) * root, float(cosines.std(ddof=1)) * root, delta)


def pair_epsilon(mean_a: float, std_a: float, mean_b: float, std_b: float, delta: float) -> float:
    """The least epsilon >= 0 with delta(epsilon) <= delta for two Gaussians, the worse of both directions.

    >>> round(pair_epsilon(0, 1, 1, 1.2, 1e-5), 4)
    8.8176
    """

    def excess(epsilon: float) -> float:
        one = _delta(mean_a, std_a, mean_b, std_b, epsilon)
        return max(one, _delta(mean_b, std_b, mean_a, std_a, epsilon)) - delta

    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while excess(high) > 0 and high < 1e4:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def _delta(mean_p: float, std_p: float, mean_q: float, std_q: float, epsilon: float) -> float:
    """P[L > epsilon] - e^epsilon Q[L > epsilon], L the log ratio of the densities p and q: a quadratic of x."""
    from scipy.stats import norm

    a = 0.5 * (std_q**-2 - std_p**-2)
    b = mean_p / std_p**2 - mean_q / std_q**2
    c = math.log(std_q / std_p) + mean_q**2 / (2 * std_q**2) - mean_p**2 / (2 * std_p**2) - epsilon
    masses = []
    for mean, std in ((mean_p, std_p), (mean_q, std_q)):
        masses.append(
            _mass_above(
                a,
                b,
                c,
                lambda x, mean=mean, std=std: float(norm.cdf((x - mean) / std)),
                lambda x, mean=mean, std=std: float(norm.sf((x - mean) / std)),
            )
        )
    return masses[0] - math.exp(min(epsilon, 700.0)) * masses[1]


def _mass_above(a, b, c, below, above) -> float:  # type: ignore[no-untyped-def]
    """Probability that a x^2 + b x + c > 0, given P[X <= x] and P[X > x]."""
    if abs(a) < 1e-12:
        if abs(b) < 1e-300:
            return float(c > 0)
        return float(above(-c / b) if b > 0 else below(-c / b))
    square = b * b - 4 * a * c
    if square <= 0:
        return float(a > 0)
    first, second = sorted(((-b - math.sqrt(square)) / (2 * a), (-b + math.sqrt(square)) / (2 * a)))
    if a > 0:
        return float(below(first) + above(second))
    return float(below(second) - below(first)) if second < 0 else float(above(first) - above(second))
