"""Commands on privacy: what a plan claims, what it costs, what an audit and an attacker find."""

from pathlib import Path
from typing import Annotated

import typer

from simulations.options import Json, Settings, overrides_of


def audit(
    target: Annotated[Path, typer.Argument(help="A run directory, or an experiment file.")],
    settings: Settings = None,
    canaries: Annotated[
        int, typer.Option(help="Made-up clients; 20 at least, at most the parameters of the model.")
    ] = 500,
    engine: Annotated[str, typer.Option(help="ray (client actors) or inline (this process).")] = "ray",
    out: Annotated[Path | None, typer.Option(help="Directory of the audited run; by default a fresh one.")] = None,
    membership: Annotated[
        bool,
        typer.Option("--membership", help="Shadow federations with and without each client, in place of canaries."),
    ] = False,
    shadows: Annotated[int, typer.Option(help="With --membership: how many, even; each costs a training.")] = 16,
    tasks: Annotated[int, typer.Option(min=1, help="With --membership: tasks of a client that are looked at.")] = 4,
    as_json: Json = False,
) -> None:
    """Play a private experiment with canaries, or shadows of any run: what is found out, beside the claim."""
    import json

    if membership:
        from simulations.membership_command import audit_members

        raise typer.Exit(audit_members(target, settings, shadows, tasks, engine, out, as_json))

    from server.report.confidential import audit_in_words
    from simulations.audit import audit as run_audit

    overrides = overrides_of(settings)
    found = run_audit(target, canaries=canaries, engine=engine, overrides=overrides, out=out)
    typer.echo(json.dumps(found, indent=2) if as_json else audit_in_words(found))
    if found["one_run"]["epsilon"] > (found["claim"] if found["claim"] is not None else float("inf")):
        typer.echo("the lower bound is above the claim: the mechanism does not do what it says", err=True)
        raise typer.Exit(1)


def leak_check(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows the pictures.")],
    client: Annotated[int | None, typer.Option(help="Whose update; by default the first training client's.")] = None,
) -> None:
    """Read private inputs off one client's update at several noise levels: originals and reconstructions."""
    from rich.console import Console
    from rich.table import Table

    from server.rundir import LEAK, REPORT
    from simulations.leak import leak

    found = leak(directory, client)
    table = Table("noise, in norms of the update", "cosine to the input, mean", "largest")
    for level, cosines in zip(found.levels, found.cosines, strict=True):
        table.add_row(f"{level:g}", f"{float(cosines.mean()):.3f}", f"{float(cosines.max()):.3f}")
    Console().print(table)
    if (directory / LEAK).exists():  # inputs of other kinds are no pictures to show
        typer.echo(f"report: {directory / REPORT}")


def privacy(
    noise_multiplier: Annotated[float | None, typer.Option(help="Standard deviation of the noise over C.")] = None,
    target_epsilon: Annotated[float | None, typer.Option(help="Find the noise multiplier for this epsilon.")] = None,
    sampling_rate: Annotated[
        float | None, typer.Option(help="Probability of taking part in a round; without one, no amplification.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Releases.")] = 1,
    delta: Annotated[float, typer.Option(help="Below one over the number of units.")] = 1e-5,
    population: Annotated[
        int | None, typer.Option(help="Units there are; for --drawn, --cap and a check of delta.")
    ] = None,
    drawn: Annotated[int | None, typer.Option(help="Units a round without replacement, in place of a rate.")] = None,
    cap: Annotated[int | None, typer.Option(help="Most units of a Poisson draw.")] = None,
    task_rate: Annotated[float | None, typer.Option(help="A second stage: tasks of a client, by coins.")] = None,
    as_json: Json = False,
) -> None:
    """Epsilon of a plan, or the noise for a wanted epsilon, by every valid accountant side by side."""
    import json

    from rich.console import Console

    from fedmeta.privacy.accounting import check_delta
    from simulations.privacy_table import answers, as_json_object, scheme_of, table_of

    scheme = scheme_of(sampling_rate, population, drawn, cap, task_rate)
    check_delta(delta, population)
    found = answers(scheme, rounds, delta, noise_multiplier, target_epsilon)
    if as_json:
        typer.echo(json.dumps(as_json_object(scheme, rounds, delta, found), indent=2))
    else:
        Console().print(table_of(scheme, rounds, delta, found))


def privacy_sweep(
    file: Annotated[Path, typer.Argument(help="An experiment file with privacy.unit set, or set it with --set.")],
    out: Annotated[Path, typer.Option(help="Directory of the runs, sweep.json and the plot; a sweep in it goes on.")],
    settings: Settings = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="A target; repeatable. By default 1, 3, 10, 30.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable. By default 0.")] = None,
    engine: Annotated[str, typer.Option(help="ray (client actors) or inline (this process).")] = "ray",
) -> None:
    """What privacy costs: the score of one experiment over epsilon, and without privacy."""
    from rich.console import Console
    from rich.table import Table

    from server.report.headline import format_score
    from simulations.privacy_sweep import sweep

    overrides = overrides_of(settings)
    points = sweep(
        file,
        epsilon if epsilon is not None else [1.0, 3.0, 10.0, 30.0],
        seed if seed is not None else [0],
        out,
        engine=engine,
        overrides=overrides,
    )
    table = Table("epsilon", "spent", "noise multiplier", "after adaptation", title=f"plot: {out}/sweep.svg")
    for point in points:
        figures = ["none" if v is None else f"{v:.3g}" for v in (point.epsilon, point.spent, point.noise_multiplier)]
        low, high = (format_score(point.score_name, value) for value in (min(point.scores), max(point.scores)))
        spread = f" ({low} to {high})" if len(point.scores) > 1 else ""
        table.add_row(*figures, format_score(point.score_name, point.mean) + spread)
    Console().print(table)
