"""Commands on what a run's adapted models withstand: certificates, and the detection of attacked queries."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


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


def detect_queries(
    directory: Annotated[Path, typer.Argument(help="A run directory.")],
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


def _numbers(text: str, option: str) -> list[float]:
    from fedmeta.errors import ConfigurationError

    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: give numbers with commas between, such as .25,.5") from error
