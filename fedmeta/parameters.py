"""Parameters of plug-ins: declared once as dataclass fields, checked and documented from there.

A learner, data set, model or aggregator is a dataclass whose settings are fields made by `parameter(...)`. The same
declaration gives the constructor its default, the experiment schema its bounds, and `fedmeta config` its text. Nothing
here needs more than the standard library, so that the learners run where only torch and numpy are installed.
"""

import dataclasses
import math
import numbers
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from fedmeta.errors import ConfigurationError, did_you_mean

_KEY = "fedmeta"


LARGEST = 3.4e38
"""What float32 still holds."""


def is_finite(value: float) -> bool:
    """Whether a float holds it: a whole number may be too large for one.

    >>> is_finite(1), is_finite(float("nan")), is_finite(10**400)
    (True, False, False)
    """
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def require_number(
    name: str, value: object, *, whole: bool = False, what: type[ValueError] = ConfigurationError
) -> None:
    """Refuse what is no finite number, before a comparison or an overflow would in words of its own.

    Args:
        name: of the argument.
        value: which may be of any type.
        whole: whether it must be an integer.
        what: the error's type.

    Raises:
        ConfigurationError: names the argument, its value, and what it must be.

    >>> require_number("steps", 3, whole=True)
    >>> require_number("steps", 1.5, whole=True)
    Traceback (most recent call last):
    fedmeta.errors.ConfigurationError: steps = 1.5 must be a whole number
    """
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, kind) and not isinstance(value, bool) and is_finite(value):  # type: ignore[arg-type]
        return
    raise what(f"{name} = {value!r:.80} must be a {'whole' if whole else 'finite'} number")


@dataclass(frozen=True)
class Bounds:
    """What a parameter may be: a text, a unit, and inclusive (`ge`, `le`) or exclusive (`gt`, `lt`) bounds."""

    doc: str
    unit: str = ""
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def range(self) -> str:
        """The bounds in words, such as `> 0, <= 1`; empty without bounds."""
        signs = {">": self.gt, ">=": self.ge, "<": self.lt, "<=": self.le}
        return ", ".join(f"{sign} {bound:g}" for sign, bound in signs.items() if bound is not None)

    def admits(self, value: float) -> bool:
        """Whether a number lies within the bounds, and within those of float32, in which networks compute."""
        return (
            is_finite(value)
            and abs(value) <= LARGEST
            and (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )


@dataclass(frozen=True)
class Parameter:
    """One declared parameter of a plug-in class, as `fedmeta config` prints it."""

    name: str
    annotation: Any
    default: Any
    bounds: Bounds

    @property
    def required(self) -> bool:
        """Whether the parameter has no default."""
        return self.default is dataclasses.MISSING


def parameter(
    default: Any = dataclasses.MISSING,
    *,
    doc: str,
    unit: str = "",
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> Any:
    """Declare a dataclass field as a parameter that users set.

    Args:
        default: the value when none is given; without one the parameter is required. A list is given as a tuple.
        doc: one line for `fedmeta config`.
        unit: `"examples"`, `"seconds"`, ...; empty for a pure number.
        gt, ge, lt, le: bounds; each element of a tuple must keep them.
    """
    metadata = {_KEY: Bounds(doc, unit, gt, ge, lt, le)}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata, kw_only=True)
    return dataclasses.field(default=default, metadata=metadata, kw_only=True)


def parameters_of(cls: type) -> dict[str, Parameter]:
    """The declared parameters of a plug-in dataclass, in order."""
    hints = typing.get_type_hints(cls)
    return {
        field.name: Parameter(field.name, hints[field.name], field.default, field.metadata[_KEY])
        for field in dataclasses.fields(cls)
        if _KEY in field.metadata
    }


def check_parameters(cls: type, given: dict[str, Any], where: str, called: str | None = None) -> dict[str, Any]:
    """Validate settings against a plug-in's declaration and fill in the defaults.

    What two settings may not be together a plug-in refuses by a static method `check_together(values, where)`.

    Args:
        cls: the plug-in dataclass.
        given: name -> value, as read from TOML, JSON or keyword arguments.
        where: how to name the place in an error, such as `learner`.
        called: how to name the plug-in there, such as `learner 'maml'`; None: by its class.

    Returns:
        Every parameter of `cls` with its value, lists turned into tuples, integers into floats where a float is due.

    Raises:
        ConfigurationError: an unknown name, a missing one, a wrong type, a value out of bounds, or what
            `check_together` refuses.
    """
    declared = parameters_of(cls)
    for name in given:
        if name not in declared:
            raise ConfigurationError(
                f"{where}.{name} is not a parameter of {called or cls.__name__}{did_you_mean(name, list(declared))}"
            )
    values = {}
    for name, declaration in declared.items():
        if name in given:
            values[name] = _checked(given[name], declaration, f"{where}.{name}")
        elif declaration.required:
            raise ConfigurationError(f"{where}.{name} is missing: {declaration.bounds.doc}. Set it.")
        else:
            values[name] = declaration.default
    together = getattr(cls, "check_together", None)
    if together is not None:
        together(values, where)
    return values


def _checked(value: Any, declaration: Parameter, where: str) -> Any:
    matched, result = _match(value, declaration.annotation)
    if not matched:
        raise ConfigurationError(
            f"{where} = {value!r} is not {type_name(declaration.annotation)}: {declaration.bounds.doc}"
        )
    for number in result if isinstance(result, tuple) else (result,):
        if isinstance(number, (int, float)) and not isinstance(number, bool) and not declaration.bounds.admits(number):
            bounds = declaration.bounds.range()
            finite = "" if is_finite(number) and abs(number) <= LARGEST else "finite in float32"
            musts = " and ".join(filter(None, (finite, bounds)))
            raise ConfigurationError(f"{where} = {value!r} must be {musts}: {declaration.bounds.doc}")
    return result


def _match(value: Any, annotation: Any) -> tuple[bool, Any]:
    """Whether `value` fits `annotation`, and the value in its declared type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return True, value
    if origin in (typing.Union, types.UnionType):
        for choice in arguments:
            matched, result = _match(value, choice)
            if matched:
                return True, result
        return False, None
    if origin is Literal:
        if value is None and "none" in arguments:  # `--set key=none` reads as no value
            return True, "none"
        return (value in arguments and not (isinstance(value, bool) and True not in arguments)), value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False, None
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            matches = [_match(item, arguments[0]) for item in value]
        elif len(value) == len(arguments):
            matches = [_match(item, kind) for item, kind in zip(value, arguments, strict=True)]
        else:
            return False, None
        return all(matched for matched, _ in matches), tuple(result for _, result in matches)
    if annotation is float:
        return (isinstance(value, (int, float)) and not isinstance(value, bool)), value if value is None else _float(
            value
        )
    if annotation is int:
        return (isinstance(value, int) and not isinstance(value, bool)), value
    if annotation is type(None):
        return value is None, None
    return isinstance(value, annotation), value


def _float(value: Any) -> Any:
    if isinstance(value, int) and not is_finite(value):
        return math.inf if value > 0 else -math.inf  # which no bounds admit
    return float(value) if isinstance(value, (int, float)) else value


def type_name(annotation: Any) -> str:
    """A type as a user reads it.

    >>> type_name(float | None), type_name(Literal["a", "b"]), type_name(tuple[int, ...])
    ('a number or none', "one of 'a', 'b'", 'a list of a whole number')
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(choice) for choice in arguments)
    if origin is Literal:
        return f"one of {', '.join(repr(choice) for choice in arguments)}"
    if origin is tuple:
        return f"a list of {type_name(arguments[0])}"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "none"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
