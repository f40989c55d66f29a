"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

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
