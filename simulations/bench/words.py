"""How values are printed."""

from fedmeta.paired import Interval
from simulations.bench.columns import COLUMNS, Kind


def in_print(kind: Kind, value: float | None, score_name: str) -> str:
    """A value of a column: shares in per cent, differences in points with their sign, errors as numbers.

    >>> in_print("score", 0.9312, "accuracy"), in_print("points", 0.123, "accuracy"), in_print("number", 2.0, "")
    ('93.1 %', '+12.3', '2')
    >>> in_print("score", 1.25, "mse"), in_print("points", None, "mse")
    ('1.25', '-')
    """
    if value is None:
        return "-"
    if kind == "number" or (score_name != "accuracy" and kind == "score"):
        return f"{value:.4g}"
    if score_name != "accuracy" and kind == "points":
        return f"{value:+.3g}"
    return f"{100 * value:.1f} %" if kind in ("score", "share") else f"{100 * value:+.1f}"


def with_interval(kind: Kind, found: Interval | None, score_name: str) -> str:
    """A mean with its bounds, which a single seed does not have.

    >>> with_interval("share", Interval(0.5, 0.25, 0.75, 3), "accuracy")
    '50.0 % [25.0, 75.0]'
    """
    if found is None:
        return "-"
    mean = in_print(kind, found.mean, score_name)
    if found.low is None or found.high is None:
        return mean
    low, high = (in_print(kind, bound, score_name).removesuffix(" %") for bound in (found.low, found.high))
    return f"{mean} [{low}, {high}]"


def p_in_print(p: float) -> str:
    """A p-value with two digits.

    >>> p_in_print(0.001953125), p_in_print(0.25)
    ('0.0020', '0.25')
    """
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def difference_kind(name: str) -> Kind:
    """How the difference of two values of a column is printed; `name` as in files, such as `lift@10`."""
    column = next((column for column in COLUMNS if column.name == name.partition("@")[0]), None)
    return "number" if column is not None and column.kind == "number" else "points"
