"""The base of every section of an experiment: frozen, strict, and no key that it does not know."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A section of keys with bounds; a value of another type is refused, not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _none_as_a_choice(cls, given: Any) -> Any:
        """`--set key=none` takes a value away, but where `none` is one of the choices it chooses that."""
        if not isinstance(given, dict):
            return given
        chosen = {
            key: "none"
            for key, value in given.items()
            if value is None and key in cls.model_fields and "none" in get_args(cls.model_fields[key].annotation)
        }
        return {**given, **chosen}
