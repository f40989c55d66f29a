"""Commands on what a run's models withstand: backdoors in them, attacked inputs and their detection, certificates."""

from pathlib import Path
from typing import Annotated

import typer

from simulations.options import Json


def detect(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows the triggers.")],
    episodes: Annotated[int, typer.Option(min=1, help="On which triggers are sought; half as many judge them.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Of the search for each slot's trigger.")] = 300,
    success: Annotated[float, typer.Option(min=0, max=1, help="Share of the queries that it has to mislead.")] = 0.9,
    stamped: Annotated[
        str | None, typer.Option(help="query or both (supports too); by default both where there is no head.")
    ] = None,
    poisoned: Annotated[
        float, typer.Option(min=0, max=1, help="Share of supports with the attack's trigger, for spectral signatures.")
    ] = 0.1,
    as_json: Json = False,
) -> None:
    """Look for a backdoor in a run's model: trigger inversion slot by slot, spectral signatures of supports."""
    import json

    from simulations.console import print_examination
    from simulations.detect import Effort
    from simulations.detect import detect as examine

    found = examine(directory, Effort(episodes, steps, success, poisoned=poisoned), stamped)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_examination(found)
        _say_where(directory)


def attack(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows attacked inputs.")],
    norm: Annotated[str, typer.Option(help="Of a change: linf or l2.")] = "linf",
    eps: Annotated[str, typer.Option(help="Radii with commas between, for inputs in [0, 1].")] = ".05,.1,.2",
    attacks: Annotated[
        str, typer.Option(help="With commas between; `fedmeta list evasions`. apgd: apgd_ce and apgd_dlr.")
    ] = "pgd,apgd,square",
    on: Annotated[str, typer.Option(help="What is moved: query, support (through the adaptation) or both.")] = "query",
    episodes: Annotated[int, typer.Option(help="Frozen test episodes, the same for every model.")] = 200,
    model: Annotated[str, typer.Option(help="last or best.")] = "last",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ATTACK.KEY=VALUE", help="An attack's parameter, as pgd.steps=50; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the attacks' draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Evasion: accuracy of a run's adapted models on inputs that an attacker changed a little."""
    import json

    from simulations.attack import attack as try_attacks
    from simulations.attack import plan_of
    from simulations.console import evasion_progress, print_evasion

    plan = plan_of(norm, eps, attacks, on, settings or [], seed)
    found = try_attacks(directory, plan, episodes=episodes, model=model, said=evasion_progress(quiet=as_json))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_evasion(found)
        _say_where(directory)


def certify(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows the curves.")],
    sigma: Annotated[str, typer.Option(help="Noise on pixels: standard deviations with commas between.")] = ".25,.5",
    episodes: Annotated[int, typer.Option(min=1, help="Frozen test episodes.")] = 40,
    queries: Annotated[int, typer.Option(min=1, help="Queries of each.")] = 5,
    samples: Annotated[int, typer.Option(min=1, help="Noisy copies that bound a probability.")] = 1000,
    select: Annotated[int, typer.Option(min=1, help="Other noisy copies that choose the class.")] = 50,
    alpha: Annotated[float, typer.Option(help="Probability that a certificate is wrong.")] = 0.001,
    as_json: Json = False,
) -> None:
    """Certify a run's adapted models by randomised smoothing: accuracy that no change within an L2 radius lowers."""
    import json

    from simulations.certify import Effort, certify_run
    from simulations.robustness_console import print_certificates

    found = certify_run(directory, _numbers(sigma, "--sigma"), Effort(episodes, queries, select, samples, alpha))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_certificates(found)
        _say_where(directory)


def detect_queries(
    directory: Annotated[Path, typer.Argument(help="A run directory, whose report then shows the figures.")],
    eps: Annotated[float, typer.Option(help="Radius of the attacks, in units of pixels.")] = 0.1,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    detectors: Annotated[str, typer.Option(help="Names with commas between; by default all.")] = "",
    episodes: Annotated[int, typer.Option(min=1, help="Frozen test episodes.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Of either attack.")] = 20,
    as_json: Json = False,
) -> None:
    """Tell attacked queries from clean ones: every detector against PGD, and against an attacker who knows it."""
    import json

    from fedmeta.evasion.ball import Ball
    from fedmeta.query_detection.judge import Effort
    from simulations.query_detection import detect_queries as examine
    from simulations.robustness_console import print_query_detection

    names = [name.strip() for name in detectors.split(",") if name.strip()]
    found = examine(directory, Ball(norm, eps), names, episodes, Effort(steps=steps))  # type: ignore[arg-type]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_query_detection(found)
        _say_where(directory)


def _say_where(directory: Path) -> None:
    from server.rundir import REPORT

    typer.echo(f"report: {directory / REPORT}")


def _numbers(text: str, option: str) -> list[float]:
    from fedmeta.errors import ConfigurationError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: give numbers with commas between, such as .25,.5") from error
