"""A component of an experiment: a plug-in by name, with its own parameters beside the name."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Component(BaseModel):
    """A plug-in by name, with its own parameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(description="a registered name; `fedmeta list` prints them")

    @field_validator("name", mode="before")
    @classmethod
    def _none_is_a_name(cls, name: Any) -> Any:
        """As in `Section`: an attack is none by name."""
        return "none" if name is None else name

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters beside the name."""
        return dict(self.model_extra or {})


def default_component(name: str, text: str, **parameters: Any) -> Any:
    """The field of a component: what stands there when an experiment names none, and what it is for."""
    return Field(default_factory=lambda: Component(name=name, **parameters), description=text)
