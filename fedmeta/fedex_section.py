"""The section `fedex` of an experiment, and the experiments that its configurations stand for."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from fedmeta.errors import ConfigurationError
from fedmeta.section import Section

if TYPE_CHECKING:
    from fedmeta.experiment import Experiment

ALLOWED = ("learner.", "client.steps", "client.tasks_per_step", "client.optimiser.")
"""What a configuration may set: how a client trains, in its inner and its outer loop."""


class FedexSection(Section):
    """Configurations of local training that clients draw, and whose probabilities are learnt in the same rounds."""

    configurations: tuple[dict[str, Any], ...] = Field(
        (), strict=False, description='dotted key -> value each, such as { "learner.inner_lr" = 0.1 }; empty: none'
    )
    episodes: int = Field(
        4, ge=1, description="fresh episodes on which a client judges its configuration every round [episodes]"
    )

    @field_validator("configurations", mode="before")
    @classmethod
    def _dotted(cls, given: Any) -> Any:
        """TOML reads `{ learner.inner_lr = 0.1 }` as nested tables."""
        if not isinstance(given, (list, tuple)):
            return given
        return [_flat(each) if isinstance(each, Mapping) else each for each in given]


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {above + key: value}
    return found


def configured(experiment: "Experiment", index: int) -> "Experiment":
    """The experiment of one configuration, which has no others.

    Raises:
        ConfigurationError: a value that cannot be.
    """
    from fedmeta.experiment_file import parse_experiment

    chosen = experiment.fedex.configurations[index]
    raw = {**experiment.model_dump(mode="json"), "fedex": {}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the experiment warns of was said when it was loaded
        return parse_experiment(raw, chosen)


def check_fedex(experiment: "Experiment") -> None:
    """Refuse configurations that cannot be learnt, before any client works.

    Raises:
        ConfigurationError: a key that is not of local training, a value out of bounds, models of unequal parameters, or
            losses that privacy or secure aggregation would hide.
    """
    from fedmeta.workload import Workload

    settings = experiment.fedex
    if not settings.configurations:
        return
    if len(settings.configurations) == 1:
        raise ConfigurationError("fedex.configurations has one entry: give two at least, or set its keys and no fedex")
    for name, on in (
        ("privacy.unit", experiment.privacy.unit != "none"),
        ("secagg.enabled", experiment.secagg.enabled),
    ):
        if on:
            raise ConfigurationError(
                f"fedex.configurations need the loss of every client, which {name} is set to hide: take one of them "
                "away, or search with `fedmeta tune`"
            )
    spec = Workload(experiment).spec.hash
    for index, chosen in enumerate(settings.configurations):
        place = f"fedex.configurations[{index}]"
        for key in chosen:
            if not key.startswith(ALLOWED) or key.endswith(".name"):
                raise ConfigurationError(
                    f"{place} sets '{key}': a configuration may set learner.*, client.steps, client.tasks_per_step and "
                    "client.optimiser.*, without their names. Use `fedmeta tune` for others"
                )
        try:
            other = Workload(configured(experiment, index))
        except ConfigurationError as error:
            raise ConfigurationError(f"{place}: {error}") from None
        if other.spec.hash != spec:
            raise ConfigurationError(f"{place} changes the model's parameters, which all clients share")
