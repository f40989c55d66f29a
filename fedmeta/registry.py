"""Registries: names that a configuration may use, each pointing at the class that implements it.

An entry holds `"module:Class"` as text, so that listing names loads no torch. A package outside this repository
adds its own by an entry point of the group `fedmeta.<kind>` (for example `fedmeta.learners`), whose name is the
entry's name.
"""

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Any

from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.parameters import check_parameters


@dataclass(frozen=True)
class Entry:
    """A registered name.

    Attributes:
        target: `"module:Class"`.
        summary: one line for `fedmeta list`.
        source: the paper or origin, with the equation or algorithm where there is one.
    """

    target: str
    summary: str
    source: str = ""


class Registry:
    """The entries of one kind, its own and those of installed plug-ins.

    Args:
        kind: plural, as `fedmeta list` takes it, and the suffix of the entry-point group: `learners`.
        entries: name -> Entry.
    """

    def __init__(self, kind: str, entries: dict[str, Entry]) -> None:
        self.kind = kind
        self._own = entries
        self._all: dict[str, Entry] | None = None

    def entries(self) -> dict[str, Entry]:
        """All entries by name, plug-ins after our own; a plug-in cannot replace one of ours."""
        if self._all is None:
            found = {
                point.name: Entry(point.value, f"plug-in {point.dist.name if point.dist else point.value}")
                for point in importlib.metadata.entry_points(group=f"fedmeta.{self.kind}")
            }
            self._all = {**found, **self._own}
        return self._all

    def register(self, name: str, target: str, summary: str, source: str = "") -> None:
        """Add an entry at run time, for example from a notebook.

        Raises:
            ConfigurationError: the name is taken by another target.
        """
        known = self.entries()
        if name in known and known[name].target != target:
            raise ConfigurationError(f"{self.kind}: '{name}' is already {known[name].target}; choose another name")
        known[name] = Entry(target, summary, source)

    def get(self, name: str) -> type:
        """The class behind a name.

        Raises:
            ConfigurationError: an unknown name (with the closest known one), or a plug-in that cannot be imported.
        """
        entry = self.entries().get(name) if isinstance(name, str) else None
        if entry is None:
            raise ConfigurationError(
                f"unknown {self.singular} '{name!s:.80}'{did_you_mean(str(name), list(self.entries()))}"
            )
        module, _, attribute = entry.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.singular} '{name}' cannot be loaded from {entry.target}: {error}"
            ) from error

    @property
    def singular(self) -> str:
        """The kind as one reads it in an error: `learner` for `learners`."""
        return self.kind[:-1].replace("_", " ")

    def check(self, name: str, given: dict[str, Any], where: str = "") -> dict[str, Any]:
        """Validated parameters of the named class with defaults filled in; see `check_parameters`."""
        return check_parameters(self.get(name), given, where or self.singular, f"{self.singular} '{name}'")

    def name_of(self, made: object) -> str:
        """What a configuration calls an object's class; the class's own name where it is not registered.

        A class that has several names is called by all of them.
        """
        kind = type(made)
        target = f"{kind.__module__}:{kind.__name__}"
        names = [name for name, entry in self.entries().items() if entry.target == target]
        return " or ".join(names) or kind.__name__

    def make(self, name: str, *arguments: Any, where: str = "", **given: Any) -> Any:
        """Construct the named class from positional collaborators and validated parameters."""
        return self.get(name)(*arguments, **self.check(name, given, where))
