"""The grid file: a base experiment, attacks, defences, seeds, and what is measured; validated once."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedmeta.attacks import ATTACKS
from fedmeta.component import Component
from fedmeta.errors import ConfigurationError, did_you_mean
from fedmeta.experiment_file import read_toml
from fedmeta.experiment_sections import AttackSection
from fedmeta.parameters import parameters_of
from fedmeta.registry import Registry
from simulations.bench.columns import COLUMNS
from strategies import AGGREGATORS, PREAGGREGATORS

NONE, MEAN = "none", "mean"
"""The attack and the defence that are in every grid: what the others are compared with."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, strict=True, allow_inf_nan=False)


class SetUp(_Table):
    """A variation of the base experiment, played against all attacks and defences."""

    label: str = Field("", description="in tables; may be empty where there is one set-up only")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted key -> value, over the base's and [set]'s")


class AttackEntry(AttackSection):
    """One row of the matrix: any keys of an experiment's [attack], over those of the base, and a label."""

    label: str = Field("", description="in tables; empty: the method's name")
    clean: None = Field(None, description="set by the benchmark: the twin with the same defence and seed")

    @property
    def given(self) -> dict[str, Any]:
        """The keys that the file sets, for an experiment's [attack]."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"label"})


class DefenceEntry(_Table):
    """One column of the matrix."""

    label: str = Field("", description="in tables; empty: the names, joined")
    preaggregators: tuple[Component, ...] = Field((), strict=False, description="as server.preaggregators")
    aggregator: Component = Field(description="as server.aggregator")
    root: Literal["none", "validation"] = Field("none", description="as server.root, for fltrust")
    server_lr: float | None = Field(
        None, ge=0, description="step of the server for this defence alone, which the page then points out"
    )


class Measure(_Table):
    """What the tables show."""

    checkpoint: Literal["last", "best"] = Field("last", description="best: chosen on validation clients, never on test")
    split: Literal["pooled", "test"] = Field("pooled", description="tasks across all test clients, or each one's own")
    step: int = Field(10, ge=0, description="adaptation steps after which the headline success is taken [steps]")
    resamples: int = Field(10_000, ge=100, description="of the bootstrap, where there are more than six seeds")


class EvasionEntry(_Table):
    """A column beside clean accuracy and attack success: accuracy while queries are attacked by PGD, supports clean."""

    eps: float = Field(gt=0, description="radius of the attack [pixels in 0 to 1]")
    norm: Literal["linf", "l2"] = Field("linf", description="of the radius")
    steps: int = Field(20, ge=1, description="of PGD, each of eps / 8 [steps]")
    restarts: int = Field(1, ge=1, description="of PGD, from random points")
    episodes: int = Field(100, ge=1, description="frozen test episodes, the same for all cells [episodes]")
    checkpoint: Literal["last", "best"] = Field("last", description="set by the benchmark: measure.checkpoint")


class Compare(_Table):
    """A question that was asked before the runs: is the first attack above the second, seed by seed?"""

    attacks: tuple[str, str] = Field(strict=False, description="labels: the first minus the second")
    column: str = Field("lift", description="of the table; asr and lift are taken at `step`")
    step: int | None = Field(None, ge=0, description="none: measure.step [steps]")
    defences: tuple[str, ...] = Field((MEAN,), strict=False, description="labels; under each of these")


class Grid(_Table):
    """A whole grid, with `none` and `mean` in it.

    Attributes:
        added: labels that were not in the file.
    """

    name: str = Field("bench", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    base: dict[str, Any] = Field(default_factory=dict, description="an experiment file's name, or its tables inline")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted key -> value, over the base")
    seeds: tuple[int, ...] = Field(strict=False, min_length=1)
    f: int | None = Field(None, ge=0, description="assumed malicious clients a round, for every rule that has an f")
    setups: tuple[SetUp, ...] = Field((SetUp(),), strict=False, min_length=1)
    attacks: tuple[AttackEntry, ...] = Field((), strict=False)
    defences: tuple[DefenceEntry, ...] = Field((), strict=False)
    measure: Measure = Measure()
    evasion: EvasionEntry | None = Field(None, description="none: not measured, which takes no time")
    compare: tuple[Compare, ...] = Field((), strict=False)
    added: tuple[str, ...] = Field((), exclude=True)

    @property
    def told(self) -> dict[str, Any]:
        """As files show it: without what is not measured, so that a grid from before stays what it was."""
        return self.model_dump(mode="json", exclude=None if self.evasion is not None else {"evasion"})

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("must be different whole numbers of 0 or more, such as [0, 1, 2]")
        return seeds


def read_grid(source: str | Path | Mapping[str, Any]) -> Grid:
    """Read a grid from a TOML file, or from the same as nested mappings.

    Raises:
        ConfigurationError: names key, value and remedy.
    """
    folder = Path()
    if isinstance(source, Mapping):
        raw = dict(source)
    else:
        raw = read_toml(source, "grid")
        folder = Path(source).parent
    if isinstance(raw.get("base"), str):
        raw["base"] = read_toml(folder / raw["base"], "experiment")
    for key in ("attacks", "defences"):
        if isinstance(raw.get(key), list):
            raw[key] = [_by_name(entry) for entry in raw[key]]
    if "added" in raw:
        raise ConfigurationError(f"unknown key 'added'{did_you_mean('added', list(Grid.model_fields))}")
    try:
        grid = Grid.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from error
    return _checked(_completed(grid))


def _by_name(entry: Any) -> Any:
    """An entry with `method = "ipm"` or `aggregator = "median"` written out as a component."""
    if not isinstance(entry, dict):
        return entry
    found = {
        key: {"name": v} if key in ("method", "aggregator") and isinstance(v, str) else v for key, v in entry.items()
    }
    if isinstance(found.get("preaggregators"), list):
        found["preaggregators"] = [{"name": v} if isinstance(v, str) else v for v in found["preaggregators"]]
    return found


def _completed(grid: Grid) -> Grid:
    """With labels, f filled in, and `none` and `mean` first."""
    attacks = [entry.model_copy(update={"label": entry.label or entry.method.name}) for entry in grid.attacks]
    defences = [
        _with_f(entry.model_copy(update={"label": entry.label or _chain(entry)}), grid.f) for entry in grid.defences
    ]
    added = []
    if not any(is_none(entry) for entry in attacks):
        attacks.append(AttackEntry(label=NONE))
        added.append(f"attack '{NONE}'")
    if not any(is_mean(entry) for entry in defences):
        defences.append(DefenceEntry(label=MEAN, aggregator=Component(name=MEAN)))
        added.append(f"defence '{MEAN}'")
    attacks.sort(key=lambda entry: not is_none(entry))  # a stable sort: the others stay in the file's order
    defences.sort(key=lambda entry: not is_mean(entry))
    changed: dict[str, Any] = {"attacks": tuple(attacks), "defences": tuple(defences), "added": tuple(added)}
    if grid.evasion is not None:
        changed["evasion"] = grid.evasion.model_copy(update={"checkpoint": grid.measure.checkpoint})
    return grid.model_copy(update=changed)


def is_none(entry: AttackEntry) -> bool:
    """Whether nobody attacks."""
    return entry.method.name == NONE


def is_mean(entry: DefenceEntry) -> bool:
    """Whether it is the plain mean, which defends against nothing."""
    return entry.aggregator.name == MEAN and not entry.preaggregators and entry.server_lr is None


def _chain(entry: DefenceEntry) -> str:
    return " + ".join(component.name for component in (*entry.preaggregators, entry.aggregator))


def _with_f(entry: DefenceEntry, f: int | None) -> DefenceEntry:
    """Rules that have an f and were given none assume the grid's."""

    def filled(component: Component, registry: Registry) -> Component:
        declared = parameters_of(registry.get(component.name))
        wants = "f" in declared and "f" not in component.parameters and "s" not in component.parameters
        return Component(name=component.name, f=f, **component.parameters) if wants and f is not None else component

    return entry.model_copy(
        update={
            "preaggregators": tuple(filled(component, PREAGGREGATORS) for component in entry.preaggregators),
            "aggregator": filled(entry.aggregator, AGGREGATORS),
        }
    )


def _checked(grid: Grid) -> Grid:
    """Refuse names, parameters, labels and questions that no cell could have."""
    for kind, entries in (("attacks", grid.attacks), ("defences", grid.defences), ("setups", grid.setups)):
        twice = [label for label, count in Counter(entry.label for entry in entries).items() if count > 1]
        if twice:
            raise ConfigurationError(f"{kind}: two entries are called '{twice[0]}': give each a label of its own")
    for entry in grid.attacks:
        ATTACKS.check(entry.method.name, entry.method.parameters, f"attacks '{entry.label}': method")
    for defence in grid.defences:
        where = f"defences '{defence.label}': "
        for component in defence.preaggregators:
            PREAGGREGATORS.check(component.name, component.parameters, f"{where}preaggregators")
        AGGREGATORS.check(defence.aggregator.name, defence.aggregator.parameters, f"{where}aggregator")
    attacks, defences = ([entry.label for entry in entries] for entries in (grid.attacks, grid.defences))
    columns = [column.name for column in COLUMNS]
    for question in grid.compare:
        if question.column not in columns:
            raise ConfigurationError(
                f"compare.column: '{question.column}' is not a column{did_you_mean(question.column, columns)}"
            )
        for key, given, known in (("attacks", question.attacks, attacks), ("defences", question.defences, defences)):
            for label in given:
                if label not in known:
                    raise ConfigurationError(f"compare.{key}: '{label}' is not in the grid{did_you_mean(label, known)}")
    return grid


def _explain(error: ValidationError) -> str:
    """Every fault with its key, its value, and the key that was meant."""
    lines, faults = [], error.errors()
    within = {fault["loc"][:-1] for fault in faults}
    for fault in faults:
        if fault["type"] == "too_short" and fault["loc"] in within:
            continue  # pydantic counts the sound entries only: what is wrong is the entry, named by its own fault
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key '{place}'{did_you_mean(str(fault['loc'][-1]), _known(fault['loc'][:-1]))}")
        elif fault["type"] == "missing" and fault["loc"][0] == "compare" and fault["loc"][-2] == "attacks":
            lines.append(
                f"{place.rpartition('.')[0]} names one attack, and a question is of two, the first against the second, "
                "under each of its defences; every defence is compared with the mean unasked"
            )
        elif fault["type"] == "missing":
            lines.append(f"'{place}' is missing")
        elif fault["type"] == "tuple_type" and isinstance(fault["input"], dict):
            lines.append(f"[{place}] is one table, and there may be several: write [[{place}]] above each")
        else:
            lines.append(f"{place} = {fault['input']!r}: {_words(fault['type'], fault['msg'])}")
    return "; ".join(lines)


def _words(kind: str, message: str) -> str:
    """What pydantic says of a value, in the words of a TOML file, which has lists and tables."""
    words = {
        "tuple_type": "must be a list, as in [...]; tables of it start with [[...]]",
        "dict_type": "must be a table",
        "model_type": "must be a table",
        "string_pattern_mismatch": "must be letters, digits, '.', '_' or '-', and start with a letter or a digit",
        "too_short": "has too few entries",
        "too_long": "has too many entries",
    }
    return words.get(kind, message.removeprefix("Value error, "))


def _known(place: tuple[Any, ...]) -> list[str]:
    """The keys of the table at a place of the file."""
    tables: dict[str, type[BaseModel]] = {
        "setups": SetUp,
        "attacks": AttackEntry,
        "defences": DefenceEntry,
        "measure": Measure,
        "evasion": EvasionEntry,
        "compare": Compare,
    }
    model = tables.get(str(place[0]), Grid) if place else Grid
    return [key for key in model.model_fields if key != "added"]
