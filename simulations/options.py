"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the experiment, such as learner.name=maml; repeatable."
    ),
]
ExperimentFile = Annotated[
    Path | None, typer.Argument(help="An experiment file; without one, the defaults.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


def overrides_of(settings: list[str] | None) -> dict[str, Any]:
    """What `--set` gave: dotted keys and their values.

    Raises:
        ConfigurationError: a setting that is not KEY=VALUE.
    """
    from fedmeta.experiment_file import parse_override  # here, so that `--help` loads little

    return dict(parse_override(text) for text in settings or [])


def given(file: Path | None, settings: list[str] | None) -> tuple[Path | dict[str, Any], dict[str, Any]]:
    """An experiment as a command gets it: its file, or nothing but the defaults, and the overrides."""
    return file if file is not None else {}, overrides_of(settings)
