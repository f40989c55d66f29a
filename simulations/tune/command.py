"""The `fedmeta tune` command; imports what it needs when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from simulations.options import overrides_of


def tune(
    file: Annotated[
        Path | None, typer.Argument(help="An experiment file; without one, the defaults.", show_default=False)
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=KIND:VALUES",
            help="log:.01:1, float:0:1, int:1:10, logint:1:64 or choice:16,32; repeatable.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="How many; of a private experiment their mean, and the number is drawn.")
    ] = 30,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key for all trials; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; by default runs/NAME-tune. It goes on there.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    parallel: Annotated[int | None, typer.Option(help="Trials at once; by default as many as the cores hold.")] = None,
    engine: Annotated[str, typer.Option(help="ray (trials on all cores) or inline (this process).")] = "ray",
    prune_after: Annotated[
        int, typer.Option(help="Complete trials before one below their median is ended early; 0: never.")
    ] = 5,
    law: Annotated[
        str, typer.Option(help="Of the number of private trials: shape of a negative binomial, or poisson.")
    ] = "1",
) -> None:
    """Search keys of an experiment for the best score on validation clients. Killed, it goes on."""
    from simulations.tune.console import run_tune

    raise typer.Exit(
        run_tune(
            file if file is not None else {},
            search or [],
            trials,
            out,
            overrides=overrides_of(settings),
            seed=seed,
            parallel=parallel,
            engine=engine,
            prune_after=prune_after or None,
            law=law,
        )
    )
