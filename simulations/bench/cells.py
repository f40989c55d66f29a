"""Planning: from a grid to its cells, each a whole experiment with a key, or refused with the reason."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedmeta.attacks import ATTACKS
from fedmeta.attacks.threat import success_steps
from fedmeta.data import DATASETS
from fedmeta.errors import ConfigurationError, FedmetaError
from fedmeta.experiment import Experiment
from server.configuration import load
from simulations.bench.fingerprint import cell_key, fingerprint
from simulations.bench.grid_file import AttackEntry, DefenceEntry, EvasionEntry, Grid, SetUp, is_mean, is_none
from simulations.bench.questions import check_questions
from simulations.omniscient_attack import check_known_defence

NOT_HERE = {
    "seed": "seeds",
    "attack.method": "attacks",
    "attack.clean": "nothing: the twin without attack is found by the benchmark",
    "server.aggregator": "defences",
    "server.preaggregators": "defences",
    "server.root": "defences",
}
"""Keys that a set-up must not change, and where they belong."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        setup, attack, defence: labels.
        seed: of the run.
        experiment: resolved; None where it is refused.
        refused: why this combination cannot be; None where it can.
        key: of what it is computed from; empty where it is refused.
        clean: key of the cell whose last model gives the lift; None where the attack has no trigger.
    """

    setup: str
    attack: str
    defence: str
    seed: int
    experiment: Experiment | None = field(default=None, repr=False)
    refused: str | None = None
    key: str = ""
    clean: str | None = None

    @property
    def words(self) -> str:
        """Its labels in one line."""
        return ", ".join(part for part in (self.setup, self.attack, self.defence, f"seed {self.seed}") if part)


@dataclass(frozen=True)
class Plan:
    """All cells in the order of the tables: set-up, attack, defence, seed.

    Attributes:
        grid: that they come from.
        cells: runs and refused ones.
        notes: warning -> the cells, in words without a seed, of which it was said.
        code: the `fingerprint` that their keys hold.
    """

    grid: Grid
    cells: tuple[Cell, ...]
    notes: Mapping[str, tuple[str, ...]]
    code: str

    @property
    def runs(self) -> tuple[Cell, ...]:
        """The cells that are played."""
        return tuple(cell for cell in self.cells if cell.experiment is not None)

    @property
    def unattacked(self) -> str:
        """Label of the attack that is none."""
        return next(entry.label for entry in self.grid.attacks if is_none(entry))

    @property
    def undefended(self) -> str:
        """Label of the plain mean."""
        return next(entry.label for entry in self.grid.defences if is_mean(entry))


def make_plan(grid: Grid) -> Plan:
    """Resolve every cell of a grid.

    Raises:
        ConfigurationError: the base experiment cannot be, without attack and under the mean; or a question is about
            what is not measured.
    """
    code, notes = fingerprint(), dict[str, list[str]]()
    cells: list[Cell] = []
    unattacked = next(entry for entry in grid.attacks if is_none(entry))
    for setup in grid.setups:
        _check_overrides(grid.set, "set")
        _check_overrides(setup.set, f"setups '{setup.label}'")
        twins: dict[tuple[str, int], str] = {}
        for attack in grid.attacks:
            for defence in grid.defences:
                plain = attack is unattacked and is_mean(defence)
                experiment, refused, said = _resolved(grid, setup, attack, defence)
                if plain and refused is not None:
                    raise ConfigurationError(f"the base experiment{_called(setup)} cannot be: {refused}")
                if plain and experiment is not None and grid.evasion is not None:
                    _check_evasion(experiment, grid.evasion)
                for text in said:
                    words = ", ".join(filter(None, (setup.label, attack.label, defence.label)))
                    notes.setdefault(text, []).append(words)
                for seed in grid.seeds:
                    cell = _cell(setup, attack, defence, seed, experiment, refused, twins, code)
                    if attack is unattacked:
                        twins[(defence.label, seed)] = cell.key
                    cells.append(cell)
    plan = Plan(grid, tuple(cells), {text: tuple(where) for text, where in notes.items()}, code)
    check_questions(plan)
    return plan


def _cell(
    setup: SetUp,
    attack: AttackEntry,
    defence: DefenceEntry,
    seed: int,
    experiment: Experiment | None,
    refused: str | None,
    twins: Mapping[tuple[str, int], str],
    code: str,
) -> Cell:
    labels = (setup.label, attack.label, defence.label, seed)
    if experiment is None:
        return Cell(*labels, refused=refused)
    own = experiment.model_copy(update={"seed": seed})
    clean = (twins.get((defence.label, seed)) or None) if success_steps(own) else None
    return Cell(*labels, experiment=own, key=cell_key(own, clean, code), clean=clean)


def _resolved(
    grid: Grid, setup: SetUp, attack: AttackEntry, defence: DefenceEntry
) -> tuple[Experiment | None, str | None, list[str]]:
    """The experiment of a combination, or why it cannot be; and the warnings that were said of it."""
    raw, overrides = raw_experiment(grid, setup, attack, defence)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            experiment = load(raw, overrides)
            _check_fair(experiment)
            check_known_defence(experiment)
        except FedmetaError as error:
            return None, str(error), []
    return experiment, None, list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))


def raw_experiment(
    grid: Grid, setup: SetUp, attack: AttackEntry, defence: DefenceEntry
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The base's tables and the overrides that make a combination of them; the seed is the grid's first."""
    raw, changes = dict(grid.base), {**grid.set, **setup.set}
    threat = {**raw.pop("attack", {})}
    threat |= {key.removeprefix("attack."): value for key, value in changes.items() if key.startswith("attack.")}
    overrides = {key: value for key, value in changes.items() if not key.startswith("attack.")}
    if not is_none(attack):
        overrides["attack"] = {**_of_use(threat, attack), **attack.given}
    overrides |= {
        "name": grid.name,
        "seed": grid.seeds[0],
        "server.aggregator": _as_table(defence.aggregator),
        "server.preaggregators": [_as_table(component) for component in defence.preaggregators],
        "server.root": defence.root,
        "tracking.backends": [],  # the benchmark is what shows these runs
    }
    if defence.server_lr is not None:
        overrides["server.optimiser.lr"] = defence.server_lr
    return raw, overrides


def _of_use(threat: Mapping[str, Any], attack: AttackEntry) -> dict[str, Any]:
    """The shared threat model without what this attack has no use for: one file serves attacks of all kinds."""
    kind: Any = ATTACKS.get(attack.method.name)
    idle: tuple[str, ...] = () if getattr(kind, "has_trigger", False) else ("target", "trigger_in", "steps")
    idle += ("fraction", "start", "stop") if kind.kind == "deployment" else ()
    return {key: value for key, value in threat.items() if key not in ("method", *idle)}


def _as_table(component: Any) -> dict[str, Any]:
    return {"name": component.name, **component.parameters}


def _check_overrides(given: Mapping[str, Any], where: str) -> None:
    """Refuse keys that belong to the axes of the grid, and tables that would replace whole sections."""
    for key, value in given.items():
        for taken, place in NOT_HERE.items():
            if key == taken or key.startswith(f"{taken}."):
                raise ConfigurationError(f"{where}: '{key}' belongs to {place}")
        if "." not in key and isinstance(value, Mapping):
            inner = next(iter(value), "key")
            raise ConfigurationError(f"{where}: '{key}' would replace a whole section: write \"{key}.{inner}\" = ...")


def _check_fair(experiment: Experiment) -> None:
    """Refuse what would let clients buy influence, or let the matrix compare unlike runs.

    Raises:
        ConfigurationError: weights that clients report.
    """
    if experiment.server.weighting != "uniform":
        raise ConfigurationError(
            f"server.weighting = '{experiment.server.weighting}' lets clients report their own weight, and only the "
            "mean takes it: a benchmark wants uniform"
        )


def _check_evasion(experiment: Experiment, evasion: EvasionEntry) -> None:
    """Refuse to measure robust accuracy where there is no accuracy, or within a radius that is none.

    Raises:
        ConfigurationError: names the key and the remedy.
    """
    declared = DATASETS.make(experiment.data.name, **experiment.data.parameters)
    if declared.task.kind != "classification":
        raise ConfigurationError(
            f"evasion: robust accuracy is of classes, and data '{experiment.data.name}' are for {declared.task.kind}: "
            "remove the table [evasion]"
        )
    if evasion.norm == "linf" and evasion.eps > 1:
        raise ConfigurationError(f"evasion.eps = {evasion.eps:g} is above 1, the whole range of a pixel under linf")


def _called(setup: SetUp) -> str:
    return f" with set-up '{setup.label}'" if setup.label else ""


def find(cells: Iterable[Cell], setup: str, attack: str, defence: str) -> list[Cell]:
    """The cells of one combination, by seed."""
    return [cell for cell in cells if (cell.setup, cell.attack, cell.defence) == (setup, attack, defence)]
