"""How counts, durations and intervals are said, on a console and in a report."""

from collections.abc import Callable, Iterable

from fedmeta.estimates import Estimate


def counted(count: int, what: str) -> str:
    """How many of something.

    >>> counted(1, "seed"), counted(3, "seed"), counted(2, "query")
    ('1 seed', '3 seeds', '2 queries')
    """
    many = f"{what.removesuffix('y')}ies" if what.endswith("ry") else f"{what}s"
    return f"{count} {what if count == 1 else many}"


def duration(seconds: float) -> str:
    """A duration as one says it.

    >>> duration(42), duration(600), duration(5 * 3600), duration(3 * 86400)
    ('42 s', '10 min', '5.0 h', '3.0 days')
    """
    for unit, size, digits in (("days", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def bounds(found: Estimate, say: Callable[[float], str]) -> str:
    """What stands behind a mean, without its unit.

    >>> bounds(Estimate(0.5, 0.25, 0.75, 3, "episodes"), lambda value: f"{100 * value:.0f} %")
    '(25 to 75)'
    """
    if not found.known:
        return "(no interval)"
    low, high = (say(value).partition(" ")[0] for value in (found.low, found.high))
    return f"({low} to {high})"


def share(value: float) -> str:
    """A share in per cent.

    >>> share(0.9312)
    '93.1 %'
    """
    return f"{100 * value:.1f} %"


def share_with_bounds(found: Estimate) -> str:
    """A share in per cent with its interval.

    >>> share_with_bounds(Estimate(0.9312, 0.9, 0.96, 3, "episodes"))
    '93.1 % (90.0 to 96.0)'
    """
    return f"{share(found.mean)} {bounds(found, share)}"


def three_digits(value: float) -> str:
    """A figure without a unit, of 0 to 1 for most.

    >>> three_digits(0.93125)
    '0.931'
    """
    return f"{value:.3f}"


def why_unknown(estimates: Iterable[Estimate]) -> str:
    """Why some estimates have no interval, and what it takes, the fewest values first; empty where all have one.

    >>> unknown = float("nan")
    >>> why_unknown([Estimate(0.5, unknown, unknown, 1, "episodes"), Estimate(0.2, unknown, unknown, 6, "clients")])
    'no interval from 1 episode: it takes 2 or more'
    >>> why_unknown([Estimate(0.2, unknown, unknown, 6, "clients")])
    'no interval where all 6 clients have the same value'
    """
    unknown = [found for found in estimates if found.count and not found.known]
    if not unknown:
        return ""
    least = min(unknown, key=lambda found: found.count)
    if least.count == 1:
        return f"no interval from {counted(1, least.unit.removesuffix('s'))}: it takes 2 or more"
    return f"no interval where all {least.count} {least.unit} have the same value"
