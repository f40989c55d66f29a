"""The resolved configuration as a commented TOML text: every key with its meaning, bounds and unit."""

import json
import typing
from typing import Any, Literal

from pydantic import BaseModel

from fedmeta.component import Component
from fedmeta.experiment import DERIVED, Experiment
from fedmeta.parameters import parameters_of, type_name
from server.configuration import ALL_COMPONENTS


def describe(experiment: Experiment) -> str:
    """A TOML file that gives this experiment again, with a comment on every key."""
    lines = ["# Every key with its meaning, bounds and unit. A key that is commented out has no value: none."]
    scalars, sections = [], []
    for key, field in type(experiment).model_fields.items():
        value = getattr(experiment, key)
        if isinstance(value, BaseModel):
            sections.append((key, value, field.description or ""))
        else:
            scalars.append(_line(key, value, f"{field.description}{_field_bounds(field)}"))
    lines += scalars
    for key, value, text in sections:
        lines += _section(key, value, text)
    return "\n".join(lines)


def _section(place: str, value: BaseModel, text: str) -> list[str]:
    lines = ["", f"[{place}]  # {text}"]
    if isinstance(value, Component):
        return lines + _component(place, value)
    nested = []
    for key, field in type(value).model_fields.items():
        inner = getattr(value, key)
        if isinstance(inner, BaseModel):
            nested.append((f"{place}.{key}", inner, field.description or ""))
        else:
            lines.append(_line(key, inner, f"{field.description}{_field_bounds(field)}"))
    for deeper in nested:
        lines += _section(*deeper)
    return lines


def _component(place: str, component: Component) -> list[str]:
    registry = ALL_COMPONENTS[place]
    lines = [_line("name", component.name, f"one of {', '.join(sorted(registry.entries()))}")]
    declared = parameters_of(registry.get(component.name))
    for name, parameter in declared.items():
        if name in DERIVED.get(place, ()):
            continue
        bounds = parameter.bounds
        facts = [type_name(parameter.annotation), bounds.range()]
        unit = f" [{bounds.unit}]" if bounds.unit else ""
        lines.append(
            _line(name, component.parameters.get(name), f"{bounds.doc}{unit} ({', '.join(filter(None, facts))})")
        )
    return lines


def _line(key: str, value: Any, text: str) -> str:
    prefix = f"# {key} =" if value is None else f"{key} = {_toml(value)}"
    return f"{prefix:<40}  # {text}"


def _toml(value: Any) -> str:
    if isinstance(value, Component):
        given = {"name": value.name, **value.parameters}
        pairs = [f"{key} = {_toml(item)}" for key, item in given.items() if item is not None]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, tuple) and any(isinstance(item, Component) for item in value):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(item)}' for key, item in value.items())} }}"
    if isinstance(value, tuple) and any(isinstance(item, dict) for item in value):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _field_bounds(field: Any) -> str:
    if typing.get_origin(field.annotation) is Literal:
        return f" ({type_name(field.annotation)})"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [
        f"{sign} {getattr(item, name):g}"
        for item in field.metadata
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return f" ({', '.join(found)})" if found else ""
